//! AppArmor: which profile confines a container, and coracle's own one, loaded when it is first needed.
//!
//! A profile is compiled for the running kernel by AppArmor's own program, apparmor_parser, and stays loaded until the machine stops.

mod profile;

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use kernel::process::{self, Ended};
use kernel::record::{Actor, Chapter, because};
use rustix::fs::MemfdFlags;

use self::profile::Profile;
use crate::error::{Error, Result};
use crate::options::Error as OptionError;
use crate::spawn;
use crate::spec::Powers;

/// What `apparmor=` calls coracle's own profile; the kernel's name for it is longer.
const DEFAULT: &str = "coracle-default";
/// What the kernel calls having none.
const UNCONFINED: &str = "unconfined";
const PARSER: &str = "apparmor_parser";

/// The profile that the container's program gets, which is loaded now if it is coracle's own. None: it keeps that of this process.
///
/// Only root's containers are confined without being asked for, as docker's and podman's are. This process must be single-threaded.
pub(crate) fn profile(powers: &Powers) -> Result<Option<String>> {
    let is_root = rustix::process::geteuid().is_root();
    let asked = powers.apparmor.as_deref();
    let name = match asked {
        Some(name) => name,
        None if !is_root => return Ok(None),
        None if powers.privileged => UNCONFINED,
        None => DEFAULT,
    };
    if !runtime::has_apparmor() {
        return match asked {
            None | Some(UNCONFINED) => Ok(None),
            Some(name) => Err(refused(
                name,
                "AppArmor is not enabled in this machine's kernel".to_owned(),
                "--security-opt apparmor=unconfined, or no such option",
            )),
        };
    }
    match name {
        UNCONFINED => Ok((own()? != UNCONFINED).then(|| UNCONFINED.to_owned())),
        DEFAULT => {
            let profile = Profile::of(&own()?);
            match loaded()? {
                Some(loaded) if lists(&loaded, &profile.name) => {}
                Some(_) => load(&profile.text())?,
                // There is no way to ask or to load: inside another container, or in a user namespace.
                None if asked.is_none() => return Ok(None),
                None => {}
            }
            Ok(Some(profile.name))
        }
        name => {
            // A stack of profiles and one of another namespace are known to the kernel alone, which answers when it is asked for them.
            let is_plain = !name.starts_with([':', '&']) && !name.contains("//&");
            if is_plain && loaded()?.is_some_and(|loaded| !lists(&loaded, name)) {
                let reason = format!("no AppArmor profile \"{name}\" is loaded");
                return Err(refused(name, reason, "a profile that is: apparmor_parser -r FILE loads one"));
            }
            Ok(Some(name.to_owned()))
        }
    }
}

fn refused(name: &str, reason: String, instead: &str) -> Error {
    let (option, value) = ("--security-opt", format!("apparmor={name}"));
    OptionError::Unsupported { option, value, reason, instead: Some(instead.to_owned()) }.into()
}

/// The profile of this process.
fn own() -> Result<String> {
    Ok(name_of(&profile_of("self")?))
}

/// The profile of a process and its mode as the kernel writes them: `NAME (enforce)`, or `unconfined`.
pub(crate) fn profile_of(process: &str) -> std::io::Result<String> {
    let directory = Path::new("/proc").join(process).join("attr");
    // Before Linux 5.1 AppArmor has the other file to itself.
    let text = fs_err::read_to_string(directory.join("apparmor/current"))
        .or_else(|_| fs_err::read_to_string(directory.join("current")))?;
    Ok(text.trim_end().to_owned())
}

fn name_of(line: &str) -> String {
    line.rsplit_once(" (").map_or(line, |(name, _)| name).to_owned()
}

/// All loaded profiles, a line each; none where this process may not know.
fn loaded() -> Result<Option<String>> {
    match fs_err::read_to_string("/sys/kernel/security/apparmor/profiles") {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn lists(loaded: &str, name: &str) -> bool {
    loaded.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(" (")))
}

/// Has apparmor_parser load a profile.
fn load(text: &str) -> Result<()> {
    let parser = spawn::find_program(PARSER).ok_or_else(|| Error::ProfileNotLoaded {
        reason: format!("{PARSER}, which loads profiles, is not installed"),
        repair: "install it (package apparmor)",
    })?;
    let failed = |reason| Error::ProfileNotLoaded { reason, repair: "put right what it does not like" };
    let (input, said) = (memory_file()?, memory_file()?);
    // At its place, so that the program reads from the beginning.
    rustix::io::pwrite(&input, text.as_bytes(), 0)
        .map_err(|errno| kernel::Error::new("pwrite", "the AppArmor profile", errno))?;
    because(
        Chapter::Process,
        "AppArmor does not know coracle's profile yet: its own program compiles and loads it",
    );
    let mut error = None;
    let child = process::spawn(|| error = Some(become_parser(&parser, &input, &said)))?;
    let ended = process::wait(child.pidfd.as_fd())?;
    match (ended, error) {
        (Ended::Exited(0), _) => Ok(()),
        (_, Some(error)) => Err(failed(error.to_string())),
        (ended, None) => {
            Err(failed(format!("{} ended with status {}: {}", parser.display(), ended.code(), words(&said))))
        }
    }
}

fn memory_file() -> Result<OwnedFd> {
    rustix::fs::memfd_create(PARSER, MemfdFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("memfd_create", PARSER, errno).into())
}

/// Returns only when the program could not be executed.
fn become_parser(parser: &Path, input: &OwnedFd, said: &OwnedFd) -> kernel::Error {
    kernel::record::actor(Actor::Helper);
    kernel::signal::unblock_all();
    let streams = [(input, 0), (said, 1), (said, 2)];
    let mut set =
        streams.into_iter().map(|(file, number)| process::set_standard_stream(file.as_fd(), number));
    match set.try_for_each(|set| set).and_then(|()| process::cloexec_all()) {
        // Its cache may be on a file system that is read-only, and it would read what we do not mean.
        Ok(()) => process::execve(parser, &[PARSER, "--skip-cache", "--replace"].map(str::to_owned), &[]),
        Err(error) => error,
    }
}

/// What the program has said, in one line.
fn words(said: &OwnedFd) -> String {
    let mut bytes = [0; 1024];
    let read = rustix::io::pread(said, &mut bytes, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(name_of("unconfined"), "unconfined");
        assert_eq!(name_of("docker-default (enforce)"), "docker-default");
        assert_eq!(name_of("/usr/bin/a b (c) (complain)"), "/usr/bin/a b (c)");
        let loaded = "one-more (enforce)\n/usr/bin/a b (complain)\none//child (enforce)\n";
        for name in ["one-more", "/usr/bin/a b", "one//child"] {
            assert!(lists(loaded, name), "{name}");
        }
        for name in ["one", "more", "", "/usr/bin/a"] {
            assert!(!lists(loaded, name), "{name}");
        }
    }
}
