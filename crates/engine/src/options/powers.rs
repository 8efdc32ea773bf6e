//! Powers: capabilities and `--security-opt`.

use std::path::Path;

use super::{Error, Result, boolean, invalid, nearest, unsupported};
use crate::spec::Powers;

/// `--cap-add`, `--cap-drop`: the kernel's name, or `ALL`. With or without `CAP_`, in any case.
pub fn capability(option: &'static str, text: &str) -> Result<String> {
    let typed = text.to_ascii_uppercase();
    let short = typed.strip_prefix("CAP_").unwrap_or(&typed);
    if short == "ALL" {
        return Ok("ALL".to_owned());
    }
    let known = || runtime::CAPABILITIES.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name));
    if known().any(|name| name == short) {
        return Ok(format!("CAP_{short}"));
    }
    let near = nearest(short, known()).join(", ");
    let accepted = match near.as_str() {
        "" => "names as in capabilities(7), for example NET_ADMIN, and ALL".to_owned(),
        near => format!("names as in capabilities(7), and ALL; did you mean {near}?"),
    };
    Err(invalid(option, text, "no such capability", &accepted))
}

/// One `--security-opt`, put into `powers`. The older form with a colon is accepted as docker does.
pub fn security_opt(powers: &mut Powers, text: &str) -> Result<()> {
    const OPTION: &str = "--security-opt";
    const ACCEPTED: &str = "no-new-privileges[=true|false], seccomp=unconfined, seccomp=FILE, \
                            systempaths=unconfined, apparmor=unconfined, apparmor=PROFILE and label=disable";
    let separator = text.find(['=', ':']);
    let (key, value) = separator.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    match (key, value) {
        ("no-new-privileges", None) => powers.no_new_privileges = true,
        ("no-new-privileges", Some(value)) => {
            let wrong = || invalid(OPTION, text, "not true or false", ACCEPTED);
            powers.no_new_privileges = boolean(value).ok_or_else(wrong)?;
        }
        ("seccomp", Some("unconfined")) => {
            (powers.seccomp_unconfined, powers.seccomp_profile) = (true, None);
        }
        ("seccomp", Some("builtin")) => (powers.seccomp_unconfined, powers.seccomp_profile) = (false, None),
        ("seccomp", Some(file)) if !file.is_empty() => {
            (powers.seccomp_unconfined, powers.seccomp_profile) = (false, Some(read_profile(text, file)?));
        }
        ("systempaths", Some("unconfined")) => powers.system_paths_unconfined = true,
        ("apparmor", Some(profile)) if is_profile_name(profile) => powers.apparmor = Some(profile.to_owned()),
        // Nothing is confined by it, so nothing has to be switched off.
        ("label", Some("disable")) => {}
        ("label", Some(_)) => {
            let reason = "this version sets no SELinux labels";
            return Err(unsupported(OPTION, text, reason, Some("--security-opt label=disable")));
        }
        _ => return Err(invalid(OPTION, text, "no such security option", ACCEPTED)),
    }
    Ok(())
}

/// What the kernel could have as a name: it is one line that is written to a file of its.
fn is_profile_name(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::is_control)
}

/// The profile's text, checked to be one.
fn read_profile(text: &str, file: &str) -> Result<String> {
    let profile = fs_err::read_to_string(Path::new(file))
        .map_err(|source| Error::File { option: "--security-opt seccomp", source })?;
    match runtime::seccomp::Profile::parse(profile.as_bytes()) {
        Ok(_) => Ok(profile),
        Err(error) => Err(invalid(
            "--security-opt",
            text,
            error.to_string(),
            "files in the form of docker's seccomp profiles or the OCI runtime specification",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_in_any_spelling() {
        for text in ["NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", "net_admin"] {
            assert_eq!(capability("--cap-add", text).unwrap(), "CAP_NET_ADMIN");
        }
        assert_eq!(capability("--cap-drop", "all").unwrap(), "ALL");
        let error = capability("--cap-add", "NET_ADMN").unwrap_err();
        assert!(error.advice().unwrap().contains("NET_ADMIN"), "{error:?}");
        assert!(capability("--cap-add", "").is_err());
    }

    fn read(text: &str) -> Result<Powers> {
        let mut powers = Powers::default();
        security_opt(&mut powers, text).map(|()| powers)
    }

    #[test]
    fn security_options() {
        for text in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=1"] {
            assert!(read(text).unwrap().no_new_privileges, "{text}");
        }
        assert!(!read("no-new-privileges=false").unwrap().no_new_privileges);
        assert!(read("seccomp=unconfined").unwrap().seccomp_unconfined);
        assert!(read("systempaths=unconfined").unwrap().system_paths_unconfined);
        assert!(read("label=disable").is_ok());
        for (text, profile) in
            [("apparmor=unconfined", "unconfined"), ("apparmor:/usr/bin/a b", "/usr/bin/a b")]
        {
            assert_eq!(read(text).unwrap().apparmor.as_deref(), Some(profile));
        }
        for wrong in
            ["", "seccomp", "seccomp=", "no-new-privileges=maybe", "apparmor", "apparmor=", "label=type:x"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("seccomp=/nowhere.json").unwrap_err().to_string().contains("/nowhere.json"));
    }
}
