//! `restore`: a container made again by criu, from what `checkpoint` has written.

use std::process::ExitCode;

use runtime::checkpoint::{self, Restoration};
use runtime::config;
use runtime::request::Oci;

use crate::arguments::{Flag, Given, option, switch};
use crate::relay::Relay;
use crate::{Failed, Global, Outcome, create, delete, run};

pub const FLAGS: &[Flag] = &[
    create::BUNDLE,
    option("console-socket", None, "PATH", "refused: containers with a terminal cannot be checkpointed"),
    option("image-path", None, "DIR", "where the image files are [./checkpoint]"),
    option("work-path", None, "DIR", "where criu's log goes [the directory of the images]"),
    switch("tcp-established", None, "allow open TCP connections"),
    switch("ext-unix-sk", None, "allow UNIX sockets that are connected to processes outside"),
    switch("shell-job", None, "allow a session that is led from outside"),
    switch("file-locks", None, "allow locked files"),
    option("manage-cgroups-mode", None, "MODE", "soft or full: what criu does about control groups [soft]"),
    run::DETACH,
    create::PID_FILE,
    run::NO_SUBREAPER,
    switch("no-pivot", None, "refused: criu always pivots to the root"),
    option("empty-ns", None, "KIND", "restore nothing of this namespace; only network can be given"),
    switch("auto-dedup", None, "remove from the images what has been restored"),
    switch("lazy-pages", None, "refused: memory is restored as a whole"),
    option("lsm-profile", None, "TYPE:NAME", "restore with this profile of AppArmor's or SELinux's"),
    option("lsm-mount-context", None, "CONTEXT", "mount with this SELinux context"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let detached = given.is_on("detach");
    let relay = match detached {
        true => None,
        false => Some(Relay::begin(!given.is_on("no-subreaper"))?),
    };
    let options = crate::checkpoint::options(given)?;
    if given.value("console-socket").is_some_and(|path| !path.is_empty()) {
        return Err(Failed::new(
            "--console-socket is not supported: criu's command line cannot restore a container with a terminal",
        ));
    }
    if given.is_on("no-pivot") {
        return Err(Failed::new("--no-pivot is not supported: criu always changes the root by pivot_root"));
    }
    let bundle = crate::absolute("--bundle", given.value("bundle").unwrap_or(".").into())?;
    let spec = config::read(&bundle)?;
    for warning in config::validate(&spec)? {
        global.log.warning(&warning.to_string());
    }
    let oci = Oci {
        systemd_cgroup: global.systemd_cgroup,
        needs_group: global.rootless == Some(false),
        bundle,
        ..Oci::default()
    };
    let (root, id) = (&global.root, given.operands[0].as_str());
    let lsm = [("--lsm-profile", "lsm-profile"), ("--lsm-mount-context", "lsm-mount-context")]
        .into_iter()
        .filter_map(|(option, name)| Some((option, given.value(name)?.to_owned())))
        .collect();
    let (container, child) =
        checkpoint::restore(Restoration { root, id, spec, oci, options: &options, labels: lsm })?;
    if let Err(failed) = create::write_pid_file(given.value("pid-file"), child.pid) {
        // The first failure is the one to tell.
        let _ = delete::destroy(global, &container.directory, Some(&container));
        return Err(failed);
    }
    let Some(relay) = relay else { return Ok(ExitCode::SUCCESS) };
    let ended = relay.until_end(&child, None);
    delete::destroy(global, &container.directory, Some(&container))?;
    Ok(ExitCode::from(ended? as u8))
}
