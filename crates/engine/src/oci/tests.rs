//! Configurations as a whole, kept in `tests/golden`. After a change that is meant: `CORACLE_UPDATE_GOLDEN=1 cargo test -p engine`.

use std::path::Path;

use runtime::spec::{Device, DeviceRule, NamespaceKind, ThrottleDevice, TimeOffset, WeightDevice};

use super::*;
use crate::options;
use crate::spec::MountOption;

const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn machine(uid: u32) -> Machine {
    Machine {
        uid,
        gid: uid,
        hostname: "host".to_owned(),
        hosts: "127.0.0.1\tlocalhost\n".to_owned(),
        resolv_conf: "nameserver 10.0.0.1\nsearch lan\n".to_owned(),
        thermal_throttles: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
        shows_queues: true,
        devices: vec![Device {
            kind: "c".to_owned(),
            path: "/dev/fuse".into(),
            major: 10,
            minor: 229,
            file_mode: Some(0o666),
            uid: Some(0),
            gid: Some(0),
        }],
        ..Machine::default()
    }
}

fn image() -> image::Config {
    image::Config {
        env: vec!["PATH=/bin".to_owned(), "LANG=C".to_owned()],
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
        working_dir: "/srv".to_owned(),
        user: "web".to_owned(),
        ..image::Config::default()
    }
}

fn spec() -> Spec {
    Spec { image: Some("image".to_owned()), ..Spec::default() }
}

fn make(machine: &Machine, spec: &Spec) -> Result<Made> {
    let joined = |name: &str| match name {
        "web" => Ok(4321),
        _ => Err(crate::error::Error::NoSuchContainer { name: name.to_owned() }),
    };
    spec.validate()?;
    let places = Places { directory: Path::new("/containers/id"), id: ID, joined: &joined };
    generate_on(machine, spec, Some(&image()), &places)
}

#[track_caller]
fn golden(name: &str, machine: &Machine, spec: &Spec) {
    let made = make(machine, spec).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(&made.request).unwrap();
    text.push('\n');
    if std::env::var_os("CORACLE_UPDATE_GOLDEN").is_some() {
        fs_err::create_dir_all(file.parent().unwrap()).unwrap();
        fs_err::write(&file, &text).unwrap();
    }
    let kept = fs_err::read_to_string(&file).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).find(|(kept, made)| kept != made);
    assert!(kept == text, "{} differs, first here: {differs:?}", file.display());
}

#[test]
fn plain() {
    golden("plain", &machine(0), &spec());
}

#[test]
fn the_talks_example() {
    let mut spec = Spec { command: vec!["sh".to_owned()], ..spec() };
    spec.entrypoint = Some(Vec::new());
    spec.remove = true;
    spec.names.hostname = Some("container".to_owned());
    spec.limits.pids = Some(20);
    spec.limits.memory = options::memory("50m").unwrap();
    spec.limits.memory_swap = options::memory_swap("50m").unwrap();
    (spec.limits.cpu_quota, spec.limits.cpu_period) = options::cpus("0.5", 2).unwrap().unzip();
    spec.files.mounts = vec![options::tmpfs("/mytemp:size=100m,mode=0755").unwrap()];
    golden("talk", &machine(0), &spec);
}

#[test]
fn privileged() {
    let mut spec = spec();
    spec.powers.privileged = true;
    spec.terminal = true;
    golden("privileged", &machine(0), &spec);
}

#[test]
fn user_with_ranges() {
    let ranges = vec![(100_000, 65_536)];
    let machine = Machine {
        subordinate_uids: ranges.clone(),
        subordinate_gids: ranges,
        has_map_helpers: true,
        ..machine(1000)
    };
    golden("user-with-ranges", &machine, &spec());
    let mut kept = spec();
    (kept.isolation.user, kept.isolation.keep_id) = options::userns("keep-id").unwrap();
    golden("user-keeps-id", &machine, &kept);
}

#[test]
fn user_with_one_id() {
    golden("user-with-one-id", &machine(1000), &spec());
    let mut spec = spec();
    spec.isolation.keep_id = true;
    assert!(make(&machine(1000), &spec).is_err());
    spec.isolation = crate::spec::Isolation { user: Choice::Host, ..Default::default() };
    assert!(make(&machine(1000), &spec).is_err());
}

#[test]
fn everything_limited() {
    let rate = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
    let mut spec = spec();
    spec.limits = Limits {
        pids: Some(20),
        memory: Some(50 << 20),
        memory_swap: Some(-1),
        memory_reservation: Some(20 << 20),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0-1".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        blkio_weight: Some(300),
        blkio_weight_device: vec![WeightDevice { major: 8, minor: 0, weight: Some(200), leaf_weight: None }],
        device_read_bps: rate(1),
        device_write_bps: rate(2),
        device_read_iops: rate(3),
        device_write_iops: rate(4),
        cgroup_parent: Some("/mine".to_owned()),
    };
    spec.process.rlimits = vec![options::ulimit("nofile=1024:2048").unwrap()];
    spec.process.oom_score_adj = Some(500);
    spec.files.shm_size = Some(1 << 20);
    spec.files.read_only = true;
    spec.powers.device_rules = vec![options::device_cgroup_rule("c 10:* rw").unwrap()];
    spec.isolation.time_offsets.insert("boottime".to_owned(), TimeOffset { secs: 3600, nanosecs: 0 });
    golden("all-limits", &machine(0), &spec);
}

#[test]
fn shared_namespaces() {
    let mut spec = spec();
    spec.isolation.pid = Choice::Host;
    spec.isolation.ipc = Choice::Host;
    spec.isolation.uts = Choice::Host;
    spec.isolation.cgroup = Choice::Host;
    spec.isolation.network = Choice::Container("web".to_owned());
    golden("shared-namespaces", &machine(0), &spec);
    // A user's container lives in the other's user namespace, which alone may show its network.
    golden("user-shares-namespaces", &machine(1000), &spec);
    spec.isolation.network = Choice::Container("gone".to_owned());
    assert!(make(&machine(0), &spec).is_err());
}

#[test]
fn a_user_namespace_cannot_mount_what_shows_the_hosts_network() {
    let mut spec = spec();
    spec.isolation.network = Choice::Host;
    let kind_of = |made: &Made, path: &str| {
        let mounts = &made.request.spec.mounts;
        mounts.iter().find(|mount| mount.destination == Path::new(path)).unwrap().kind.clone()
    };
    assert_eq!(kind_of(&make(&machine(0), &spec).unwrap(), "/sys"), "sysfs");
    assert_eq!(kind_of(&make(&machine(1000), &spec).unwrap(), "/sys"), "bind");
    assert_eq!(kind_of(&make(&machine(1000), &spec).unwrap(), "/proc"), "proc");
}

#[test]
fn command_and_entry_point_combine_as_in_docker() {
    let args = |entrypoint: Option<&[&str]>, command: &[&str]| {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let spec = Spec { entrypoint: entrypoint.map(owned), command: owned(command), ..spec() };
        make(&machine(0), &spec).map(|made| made.request.spec.process.unwrap().args.join(" ")).ok()
    };
    assert_eq!(args(None, &[]).unwrap(), "/entry serve");
    assert_eq!(args(None, &["stop", "now"]).unwrap(), "/entry stop now");
    assert_eq!(args(Some(&["/mine"]), &[]).unwrap(), "/mine");
    assert_eq!(args(Some(&["/mine"]), &["a"]).unwrap(), "/mine a");
    assert_eq!(args(Some(&[]), &["sh"]).unwrap(), "sh");
    assert_eq!(args(Some(&[]), &[]), None);
}

#[test]
fn later_variables_win() {
    let mut spec = Spec { terminal: true, ..spec() };
    let set = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    spec.process.environment = vec![set("A", Some("1")), set("LANG", None), set("A", Some("2"))];
    let env = make(&machine(0), &spec).unwrap().request.spec.process.unwrap().env;
    assert_eq!(env, ["PATH=/bin", "HOSTNAME=001122334455", "TERM=xterm", "A=2"]);
}

#[test]
fn what_was_typed_stands_before_the_image() {
    let mut spec = spec();
    assert_eq!(make(&machine(0), &spec).unwrap().request.user.as_deref(), Some("web"));
    spec.process.user = Some("1:2".to_owned());
    spec.process.working_directory = Some("/tmp".into());
    let request = make(&machine(0), &spec).unwrap().request;
    assert_eq!(request.user.as_deref(), Some("1:2"));
    assert_eq!(request.spec.process.unwrap().cwd, Path::new("/tmp"));
}

#[test]
fn filters() {
    let seccomp = |change: fn(&mut crate::spec::Powers)| {
        let mut spec = spec();
        change(&mut spec.powers);
        make(&machine(0), &spec).unwrap().request.seccomp
    };
    assert_eq!(seccomp(|_| {}), SeccompChoice::Default);
    assert_eq!(seccomp(|powers| powers.privileged = true), SeccompChoice::Unconfined);
    assert_eq!(seccomp(|powers| powers.seccomp_unconfined = true), SeccompChoice::Unconfined);
    let profile = seccomp(|powers| {
        (powers.privileged, powers.seccomp_profile) = (true, Some("{}".to_owned()));
    });
    assert_eq!(profile, SeccompChoice::Profile("{}".to_owned()));
}

#[test]
fn mounts_asked_for_take_the_place_of_the_usual_ones() {
    let destinations = |mounts: &[&str]| {
        let mut spec = spec();
        spec.files.mounts = mounts.iter().map(|text| options::tmpfs(text).unwrap()).collect();
        let mounts = make(&machine(0), &spec).unwrap().request.spec.mounts;
        mounts.iter().map(|mount| mount.destination.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    let tail = "/etc/hostname /etc/hosts /etc/resolv.conf";
    let kernel = "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue";
    assert_eq!(destinations(&["/a/b/c", "/a"]), format!("{kernel} /dev/shm /a {tail} /a/b/c"));
    assert_eq!(destinations(&["/dev/shm"]), format!("{kernel} /dev/shm {tail}"));
    assert_eq!(destinations(&["/dev"]), format!("/proc /sys /sys/fs/cgroup /dev {tail}"));
    let own = destinations(&["/etc/hosts"]);
    assert_eq!(own, format!("{kernel} /dev/shm /etc/hosts /etc/hostname /etc/resolv.conf"));
}

#[test]
fn a_missing_source_is_made_by_one_option_and_refused_by_the_other() {
    let directory = std::env::temp_dir().join(format!("coracle-source-{}", std::process::id()));
    let source = directory.join("made");
    let mut spec = spec();
    let bind = |make_source| MountOption::Bind {
        source: source.clone(),
        destination: "/data".into(),
        read_only: true,
        propagation: Some("rprivate".to_owned()),
        recursive: true,
        writable_below: false,
        make_source,
    };
    spec.files.mounts = vec![bind(false)];
    let refused = make(&machine(0), &spec).err().unwrap().to_string();
    assert!(refused.contains("--mount") && refused.contains("made"), "{refused}");
    spec.files.mounts = vec![bind(true)];
    let made = make(&machine(0), &spec).unwrap();
    assert!(source.is_dir());
    fs_err::remove_dir_all(&directory).unwrap();
    let mount =
        made.request.spec.mounts.iter().find(|mount| mount.destination == Path::new("/data")).unwrap();
    assert_eq!(mount.options, ["rbind", "rprivate", "ro", "rro"]);
}

#[test]
fn devices_come_with_their_rules() {
    let mut spec = spec();
    spec.powers.devices = vec![options::device("/dev/null:/dev/nothing:r").unwrap()];
    let linux = make(&machine(0), &spec).unwrap().request.spec.linux.unwrap();
    assert_eq!(linux.devices[0].path, Path::new("/dev/nothing"));
    let rule = DeviceRule {
        allow: true,
        kind: Some("c".to_owned()),
        major: Some(1),
        minor: Some(3),
        access: Some("r".to_owned()),
    };
    assert_eq!(linux.resources.unwrap().devices.last(), Some(&rule));
    spec.powers.devices = vec![options::device("/etc/passwd").unwrap()];
    assert!(make(&machine(0), &spec).is_err());
    spec.powers.devices.clear();
    spec.powers.device_rules = vec![options::device_cgroup_rule("c 10:* rw").unwrap()];
    assert!(make(&machine(1000), &spec).is_err(), "a user's rules would not be enforced");
}

#[test]
fn every_namespace_is_new_by_default() {
    let kinds = |machine: &Machine| {
        let linux = make(machine, &spec()).unwrap().request.spec.linux.unwrap();
        assert!(linux.namespaces.iter().all(|namespace| namespace.path.is_none()));
        linux.namespaces.iter().map(|namespace| namespace.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&machine(0)).len(), 6);
    assert_eq!(kinds(&machine(1000))[0], NamespaceKind::User);
}
