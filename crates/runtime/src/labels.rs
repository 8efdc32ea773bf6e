//! What a security module of the kernel is told of the container: its AppArmor profile, its SELinux contexts.

use kernel::record::{Chapter, because};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::private_proc::PrivateProc;
use crate::request::Request;
use crate::spec::{Process, Spec};

/// Outside, before anything is made: refuses by name what this kernel does not enforce. The words are runc's.
pub(crate) fn check(request: &Request) -> Result<()> {
    check_in(&request.spec, has_apparmor(), has_selinux())
}

fn check_in(spec: &Spec, has_apparmor: bool, has_selinux: bool) -> Result<()> {
    let refuse = |what, label: Option<&String>, reason: &str| match label {
        Some(label) => Err(Error::Configuration { what, value: label.clone(), reason: reason.to_owned() }),
        None => Ok(()),
    };
    let process = spec.process.as_ref();
    if !has_apparmor {
        let profile = process.and_then(|process| process.apparmor_profile.as_ref());
        let reason = "apparmor: config provided but apparmor not supported: it is not enabled in this kernel";
        refuse("process.apparmorProfile", profile, reason)?;
    }
    if !has_selinux {
        let reason = "selinux label is specified in config, but selinux is disabled or not supported";
        let label = process.and_then(|process| process.selinux_label.as_ref());
        refuse("process.selinuxLabel", label, reason)?;
        let label = spec.linux.as_ref().and_then(|linux| linux.mount_label.as_ref());
        refuse("linux.mountLabel", label, reason)?;
    }
    Ok(())
}

/// Whether AppArmor is on in this kernel.
pub fn has_apparmor() -> bool {
    fs_err::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Its file system is there only when it is on.
fn has_selinux() -> bool {
    const SELINUX_MAGIC: u32 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|status| status.f_type as u32 == SELINUX_MAGIC)
}

/// Whether a process has a label to be written.
pub(crate) fn has_any(process: &Process) -> bool {
    process.apparmor_profile.is_some() || process.selinux_label.is_some()
}

/// In the container's process: its program begins under the profile and in the context of its configuration.
pub(crate) fn apply(process: &Process, proc: &PrivateProc) -> Result<()> {
    if let Some(label) = &process.selinux_label {
        because(Chapter::Process, "process.selinuxLabel: the context that the program runs in");
        proc.write_own("attr/exec", label).in_step("cannot set process.selinuxLabel")?;
    }
    let Some(profile) = &process.apparmor_profile else { return Ok(()) };
    because(Chapter::Process, "process.apparmorProfile: the profile that confines the program");
    let value = format!("exec {profile}");
    let written = match proc.write_own("attr/apparmor/exec", &value) {
        // Before Linux 5.1 the file is not there, and AppArmor has the other one to itself. A write says so of the profile.
        Err(error) if error.errno() == Errno::NOENT && error.call() == "open" => {
            proc.write_own("attr/exec", &value)
        }
        other => other,
    };
    // The kernel's error is about the profile, not about the file.
    written
        .map_err(|error| kernel::Error::new(error.call(), format!("{value:?}"), error.errno()))
        .in_step(PROFILE_STEP)
}

/// The step of `process.apparmorProfile`, which has an advice of its own.
pub(crate) const PROFILE_STEP: &str = "cannot set process.apparmorProfile";

/// Makes keys with the container's own context, as long as `make` runs: they are not in any namespace.
pub(crate) fn on_keys(process: Option<&Process>, make: impl FnOnce() -> Result<()>) -> Result<()> {
    const NAME: &str = "attr/keycreate";
    const STEP: &str = "cannot set process.selinuxLabel on the keyring";
    let Some(label) = process.and_then(|process| process.selinux_label.as_ref()) else { return make() };
    let proc = PrivateProc::open()?;
    because(Chapter::Namespaces, "process.selinuxLabel: the new keyring is the container's");
    proc.write_own(NAME, label).in_step(STEP)?;
    make()?;
    proc.write_own(NAME, "\n").in_step(STEP)
}

/// The context for a new file system of this kind; none for those that SELinux labels by itself.
pub(crate) fn context_of<'a>(kind: &str, spec: &'a Spec) -> Option<&'a str> {
    let label = spec.linux.as_ref().and_then(|linux| linux.mount_label.as_deref());
    label.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_the_kernel_does_not_enforce_is_refused_by_name() {
        let told = |text: &str, apparmor, selinux| {
            check_in(&spec(text), apparmor, selinux)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        let profile = r#"{"process": {"apparmorProfile": "docker-default"}}"#;
        let refused = told(profile, false, true);
        assert!(refused.contains("apparmor: config provided but apparmor not supported"), "{refused}");
        assert!(refused.starts_with("process.apparmorProfile \"docker-default\""), "{refused}");
        let label = r#"{"process": {"selinuxLabel": "a:b:c:s0"}}"#;
        let words = "selinux label is specified in config, but selinux is disabled or not supported";
        assert_eq!(told(label, true, false), format!("process.selinuxLabel \"a:b:c:s0\": {words}"));
        let mounts = r#"{"linux": {"mountLabel": "a:b:c:s0"}}"#;
        assert_eq!(told(mounts, true, false), format!("linux.mountLabel \"a:b:c:s0\": {words}"));
        for text in [profile, label, mounts] {
            assert_eq!(told(text, true, true), "");
        }
        let empty =
            r#"{"process": {"apparmorProfile": "", "selinuxLabel": ""}, "linux": {"mountLabel": ""}}"#;
        assert_eq!(told(empty, false, false), "");
    }

    #[test]
    fn a_context_is_for_file_systems_that_keep_none_of_their_own() {
        let spec = spec(r#"{"linux": {"mountLabel": "a:b:c:s0:c1,c2"}}"#);
        assert_eq!(context_of("tmpfs", &spec), Some("a:b:c:s0:c1,c2"));
        assert_eq!(context_of("devpts", &spec), Some("a:b:c:s0:c1,c2"));
        for kind in ["proc", "sysfs", "mqueue", "cgroup", "cgroup2"] {
            assert_eq!(context_of(kind, &spec), None, "{kind}");
        }
        assert_eq!(context_of("tmpfs", &Spec::default()), None);
    }
}
