//! From what was typed to what it means.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine::cdi;
use engine::options::{self, Error, Result};
use engine::spec::{Files, Isolation, Limits, Names, Powers, ProcessOptions, Spec};

use super::arguments::Arguments;

/// When the registry is asked for the image.
pub fn pull(typed: &Arguments) -> Result<options::Pull> {
    Ok(one(typed.pull.as_ref(), options::pull)?.unwrap_or_default())
}

/// What the arguments ask for.
pub fn spec(typed: &Arguments) -> Result<Spec> {
    refuse_what_is_to_come(typed)?;
    let mut words = typed.words.clone();
    let image = match &typed.rootfs {
        None if words.is_empty() => return Err(Error::NoImage),
        None => Some(words.remove(0)),
        Some(_) => None,
    };
    let spec = Spec {
        image,
        root_directory: typed.rootfs.as_deref().map(absolute).transpose()?,
        platform: one(typed.platform.as_ref(), options::platform)?,
        command: words,
        entrypoint: typed.entrypoint.as_ref().map(|program| match program.as_str() {
            "" => Vec::new(),
            program => vec![program.to_owned()],
        }),
        name: one(typed.name.as_ref(), options::container_name)?,
        remove: typed.rm,
        interactive: typed.interactive,
        terminal: typed.tty,
        init: typed.init,
        cid_file: typed
            .cidfile
            .as_deref()
            .filter(|path| !path.is_empty())
            .map(options::cid_file)
            .transpose()?,
        labels: labels(typed)?,
        stop_signal: one(typed.stop_signal.as_ref(), |text| options::stop_signal("--stop-signal", text))?,
        stop_timeout: one(typed.stop_timeout.as_ref(), |text| options::stop_timeout("--stop-timeout", text))?,
        process: process(typed)?,
        isolation: isolation(typed)?,
        limits: limits(typed)?,
        files: files(typed)?,
        powers: powers(typed)?,
        names: names(typed)?,
    };
    Ok(spec)
}

/// Options that docker's users type often, and that have no meaning yet.
fn refuse_what_is_to_come(typed: &Arguments) -> Result<()> {
    let refuse = |option, value: &str, reason: &str, instead: &str| {
        let (value, reason, instead) = (value.to_owned(), reason.to_owned(), Some(instead.to_owned()));
        Err(Error::Unsupported { option, value, reason, instead })
    };
    if typed.detach {
        let reason = "this version runs containers in the foreground only";
        return refuse("--detach", "", reason, "let your shell do it: coracle run ... &");
    }
    if let Some(port) = typed.publish.first() {
        let reason = "this version has no network that a port could be published from";
        return refuse("--publish", port, reason, "use the host's ports: --network host");
    }
    if let Some(policy) = typed.restart.as_deref().filter(|policy| !matches!(*policy, "" | "no")) {
        return refuse("--restart", policy, "this version starts a container once", "leave it out");
    }
    if typed.oom_kill_disable {
        let reason = "the kernel's version 2 of control groups has no such switch, and a program that waits for memory for ever \
                      helps nobody";
        return refuse(
            "--oom-kill-disable",
            "",
            reason,
            "say which is to be ended last: --oom-score-adj -500",
        );
    }
    Ok(())
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|source| Error::File { option: "--rootfs", source })
}

/// A list of values, each read by `read`.
fn each<T>(texts: &[String], read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    texts.iter().map(|text| read(text)).collect()
}

/// A value of which none means the same as leaving the option out.
fn maybe<T>(text: Option<&String>, read: impl Fn(&str) -> Result<Option<T>>) -> Result<Option<T>> {
    Ok(one(text, read)?.flatten())
}

/// The value of an option. An empty one is none, as in docker: a script may have nothing to say.
fn one<T>(text: Option<&String>, read: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
    text.filter(|text| !text.is_empty()).map(|text| read(text)).transpose()
}

/// Later ones win; those of files come first, as docker has it.
fn labels(typed: &Arguments) -> Result<Vec<(String, String)>> {
    let mut labels = BTreeMap::new();
    for file in &typed.label_file {
        labels.extend(options::label_file(file)?);
    }
    labels.extend(each(&typed.label, options::label)?);
    Ok(labels.into_iter().collect())
}

fn process(typed: &Arguments) -> Result<ProcessOptions> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut environment = Vec::new();
    for file in &typed.env_file {
        environment.extend(options::env_file(file, &lookup)?);
    }
    environment.extend(each(&typed.env, |text| options::variable(text, &lookup))?);
    Ok(ProcessOptions {
        environment,
        working_directory: one(typed.workdir.as_ref(), options::working_directory)?,
        user: typed.user.clone().filter(|user| !user.is_empty()),
        groups: typed.group_add.iter().filter(|group| !group.is_empty()).cloned().collect(),
        rlimits: each(&typed.ulimit, options::ulimit)?,
        oom_score_adj: one(typed.oom_score_adj.as_ref(), options::oom_score_adj)?,
    })
}

fn isolation(typed: &Arguments) -> Result<Isolation> {
    let (ipc, ipc_without_shm) = one(typed.ipc.as_ref(), options::ipc)?.unwrap_or_default();
    let (user, keep_id) = one(typed.userns.as_ref(), options::userns)?.unwrap_or_default();
    Ok(Isolation {
        pid: one(typed.pid.as_ref(), options::pid)?.unwrap_or_default(),
        ipc,
        ipc_without_shm,
        uts: one(typed.uts.as_ref(), options::uts)?.unwrap_or_default(),
        user,
        keep_id,
        cgroup: one(typed.cgroupns.as_ref(), options::cgroupns)?.unwrap_or_default(),
        network: one(typed.network.as_ref(), options::network)?.unwrap_or_default(),
        time_offsets: each(&typed.time_offset, options::time_offset)?.into_iter().collect(),
    })
}

fn limits(typed: &Arguments) -> Result<Limits> {
    let share = maybe(typed.cpus.as_ref(), |text| options::cpus(text, options::processors()))?;
    let quota = maybe(typed.cpu_quota.as_ref(), options::cpu_quota)?;
    let period = maybe(typed.cpu_period.as_ref(), options::cpu_period)?;
    if share.is_some() && (quota.is_some() || period.is_some()) {
        let second = if quota.is_some() { "--cpu-quota" } else { "--cpu-period" };
        let reason = "both set the same limit".to_owned();
        return Err(Error::Conflict { first: "--cpus", second, reason });
    }
    let rates = |option, texts: &[String]| each(texts, |text| options::device_rate_bytes(option, text));
    let counts = |option, texts: &[String]| each(texts, |text| options::device_rate_operations(option, text));
    let list = |option, text: &Option<String>| one(text.as_ref(), |text| options::cpuset(option, text));
    let reservation = |text: &str| options::bytes("--memory-reservation", text).map(|size| size as i64);
    Ok(Limits {
        pids: one(typed.pids_limit.as_ref(), options::pids_limit)?,
        memory: maybe(typed.memory.as_ref(), options::memory)?,
        memory_swap: maybe(typed.memory_swap.as_ref(), options::memory_swap)?,
        memory_reservation: one(typed.memory_reservation.as_ref(), reservation)?.filter(|size| *size != 0),
        cpu_quota: share.map(|(quota, _)| quota).or(quota),
        cpu_period: share.map(|(_, period)| period).or(period),
        cpu_shares: maybe(typed.cpu_shares.as_ref(), options::cpu_shares)?,
        cpuset_cpus: list("--cpuset-cpus", &typed.cpuset_cpus)?,
        cpuset_mems: list("--cpuset-mems", &typed.cpuset_mems)?,
        blkio_weight: maybe(typed.blkio_weight.as_ref(), |text| {
            options::blkio_weight("--blkio-weight", text)
        })?,
        blkio_weight_device: each(&typed.blkio_weight_device, options::device_weight)?,
        device_read_bps: rates("--device-read-bps", &typed.device_read_bps)?,
        device_write_bps: rates("--device-write-bps", &typed.device_write_bps)?,
        device_read_iops: counts("--device-read-iops", &typed.device_read_iops)?,
        device_write_iops: counts("--device-write-iops", &typed.device_write_iops)?,
        cgroup_parent: typed.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
    })
}

fn files(typed: &Arguments) -> Result<Files> {
    let mut mounts = each(&typed.volume, options::volume)?;
    mounts.extend(each(&typed.mount, options::mount)?);
    mounts.extend(each(&typed.tmpfs, options::tmpfs)?);
    Ok(Files {
        read_only: typed.read_only,
        mounts,
        shm_size: one(typed.shm_size.as_ref(), options::shm_size)?,
        sysctls: sysctls(typed)?,
    })
}

/// The parameters that are written as such: the domain name is set with the names.
fn sysctls(typed: &Arguments) -> Result<BTreeMap<String, String>> {
    let mut sysctls: BTreeMap<_, _> = each(&typed.sysctl, options::sysctl)?.into_iter().collect();
    sysctls.remove(options::DOMAIN_NAME);
    Ok(sysctls)
}

/// `--domainname`, or the kernel parameter that says the same.
fn domain_name(typed: &Arguments) -> Result<Option<String>> {
    let name = one(typed.domainname.as_ref(), options::domainname)?;
    let sysctls = each(&typed.sysctl, options::sysctl)?;
    let Some((_, same)) = sysctls.into_iter().rfind(|(name, _)| name == options::DOMAIN_NAME) else {
        return Ok(name);
    };
    if typed.uts.as_deref() == Some("host") {
        let reason = "the name would be the host's own".to_owned();
        return Err(Error::Conflict { first: "--sysctl", second: "--uts host", reason });
    }
    Ok(name.or(Some(same)))
}

fn powers(typed: &Arguments) -> Result<Powers> {
    let (mut by_path, mut cdi) = (Vec::new(), cdi::Asked::default());
    for text in &typed.device {
        match options::device_by_name(text)? {
            Some(name) => cdi.devices.push(name),
            None => by_path.push(text.clone()),
        }
    }
    cdi.directories = each(&typed.cdi_spec_dir, options::cdi_directory)?;
    let mut powers = Powers {
        privileged: typed.privileged,
        add: each(&typed.cap_add, |text| options::capability("--cap-add", text))?,
        drop: each(&typed.cap_drop, |text| options::capability("--cap-drop", text))?,
        devices: by_path.into_iter().map(|text| options::device(&text)).collect::<Result<_>>()?,
        cdi,
        device_rules: each(&typed.device_cgroup_rule, options::device_cgroup_rule)?,
        ..Powers::default()
    };
    typed.security_opt.iter().try_for_each(|text| options::security_opt(&mut powers, text))?;
    Ok(powers)
}

fn names(typed: &Arguments) -> Result<Names> {
    Ok(Names {
        hostname: one(typed.hostname.as_ref(), options::hostname)?,
        domainname: domain_name(typed)?,
        hosts: each(&typed.add_host, options::add_host)?,
        dns: each(&typed.dns, options::dns)?,
        dns_search: each(&typed.dns_search, options::dns_search)?,
        dns_options: each(&typed.dns_option, options::dns_option)?,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: Arguments,
    }

    fn parse(line: &str) -> std::result::Result<Arguments, clap::Error> {
        Line::try_parse_from(std::iter::once("run").chain(line.split(' '))).map(|line| line.run)
    }

    fn meaning(line: &str) -> Result<Spec> {
        spec(&parse(line).unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn options_end_at_the_image() {
        let spec = meaning("--rm -it -m 50m busybox --rm -c sh -- -x").unwrap();
        assert!(spec.remove && spec.interactive && spec.terminal);
        assert_eq!(spec.image.as_deref(), Some("busybox"));
        assert_eq!(spec.command, ["--rm", "-c", "sh", "--", "-x"]);
        let spec = meaning("--rm -- busybox -c").unwrap();
        assert_eq!((spec.image.as_deref(), spec.command.join(" ")), (Some("busybox"), "-c".to_owned()));
    }

    #[test]
    fn a_directory_leaves_all_words_to_the_command() {
        let spec = meaning("--rootfs /srv/root sh -c true").unwrap();
        assert_eq!(spec.command, ["sh", "-c", "true"]);
        assert_eq!((spec.image, spec.root_directory), (None, Some("/srv/root".into())));
        assert!(matches!(meaning("--rm"), Err(Error::NoImage)));
    }

    #[test]
    fn misspelled_options_are_not_images() {
        let error = parse("--memroy 5m busybox").unwrap_err().to_string();
        assert!(error.contains("--memory"), "{error}");
    }

    #[test]
    fn short_and_old_names() {
        let spec = meaning(
            "-h box -e A=1 -e -x -w /srv -u 1 -l a=b -c 512 -v /a:/b --net host --memory-swap -1 -m 1g x",
        );
        let spec = spec.unwrap();
        assert_eq!(spec.names.hostname.as_deref(), Some("box"));
        assert_eq!(spec.process.environment.len(), 2);
        assert_eq!((spec.limits.cpu_shares, spec.limits.memory_swap), (Some(512), Some(-1)));
        assert_eq!((spec.files.mounts.len(), spec.labels.len()), (1, 1));
        assert_eq!(spec.isolation.network, engine::spec::Choice::Host);
    }

    #[test]
    fn empty_values_are_none() {
        let options = "--name= --hostname= --domainname= -w= --platform= --cidfile= --pid= --ipc= --uts= --userns= --network= \
                       --cpuset-cpus= --cpuset-mems= -m= --memory-swap= --pids-limit= --group-add= -u= --cpus= --cpu-shares= \
                       --stop-signal= --stop-timeout= --restart= --pull= --cgroup-parent= --shm-size= --blkio-weight= x";
        assert_eq!(meaning(options).unwrap(), meaning("x").unwrap());
        assert_eq!(meaning("--entrypoint= x").unwrap().entrypoint, Some(Vec::new()), "this one means none");
    }

    #[test]
    fn the_domain_name_is_a_kernel_parameter_too() {
        let spec = meaning("--sysctl kernel.domainname=example.org --sysctl net.core.somaxconn=9 x").unwrap();
        assert_eq!(spec.names.domainname.as_deref(), Some("example.org"));
        assert_eq!(spec.files.sysctls.keys().collect::<Vec<_>>(), ["net.core.somaxconn"]);
        let refused = meaning("--uts host --sysctl kernel.domainname=x x").unwrap_err();
        assert!(matches!(refused, Error::Conflict { first: "--sysctl", .. }), "{refused}");
    }

    #[test]
    fn what_is_to_come_is_refused_by_name() {
        for line in ["-d x", "-p 80:80 x", "--restart always x", "--oom-kill-disable x", "--network bridge x"]
        {
            let error = meaning(line).unwrap_err();
            assert!(
                matches!(error, Error::Unsupported { .. }) && error.advice().is_some(),
                "{line}: {error}"
            );
        }
        assert!(meaning("--restart no x").is_ok());
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "--cpus 1 --cpu-quota 5000 x",
            "--cpus 1 --cpu-period 5000 x",
            "--memory-swap 1g x",
            "-m 1g --memory-swap 1m x",
            "-m 1m --memory-reservation 2m x",
            "--uts host -h box x",
            "--network host --sysctl net.ipv4.ip_forward=1 x",
            "--ipc host --sysctl kernel.shmmax=1 x",
            "--ipc none --shm-size 1m x",
            "--tmpfs /a -v /b:/a/ x",
        ] {
            let refused = meaning(line).and_then(|spec| spec.validate());
            assert!(refused.is_err(), "{line}");
        }
    }

    #[test]
    fn explain_takes_its_form_behind_an_equals_sign() {
        use crate::explain::Form;
        assert_eq!(parse("--explain x").unwrap().explain, Some(Form::Text));
        assert_eq!(parse("--explain=json x").unwrap().explain, Some(Form::Json));
        assert_eq!(parse("--explain json").unwrap().words, ["json"]);
        assert!(parse("--explain=xml x").is_err());
    }
}
