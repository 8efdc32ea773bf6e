//! Which of root's powers a container has.

use runtime::CAPABILITIES;
use runtime::spec::Capabilities;

use crate::spec::Powers;

/// What docker gives. Source: moby, `daemon/pkg/oci/caps/defaults.go`.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The sets. Neither inheritable nor ambient: for a user other than root, execve clears the rest too, as in docker.
pub(super) fn sets(powers: &Powers) -> Capabilities {
    let names: Vec<String> =
        CAPABILITIES.iter().filter(|name| is_given(powers, name)).map(|name| (*name).to_owned()).collect();
    Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        inheritable: Vec::new(),
        ambient: Vec::new(),
    }
}

/// docker's rules in their order: everything, all but what is dropped, only what is added, the default changed by both.
fn is_given(powers: &Powers, name: &str) -> bool {
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let (added, dropped) = (has(&powers.add, name), has(&powers.drop, name));
    if powers.privileged {
        true
    } else if has(&powers.add, "ALL") {
        !dropped
    } else if has(&powers.drop, "ALL") {
        added
    } else {
        added || (DEFAULT.contains(&name) && !dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        sets(&Powers { add: owned(add), drop: owned(drop), ..Powers::default() }).bounding
    }

    #[test]
    fn additions_and_removals() {
        assert_eq!(of(&[], &[]).len(), 14);
        assert_eq!(of(&["CAP_NET_ADMIN"], &["CAP_MKNOD"]).len(), 14);
        assert_eq!(of(&["CAP_KILL"], &["ALL"]), ["CAP_KILL"]);
        assert!(of(&[], &["ALL"]).is_empty());
        assert_eq!(of(&["ALL"], &["CAP_SYS_ADMIN"]).len(), CAPABILITIES.len() - 1);
        assert_eq!(of(&["CAP_KILL"], &["CAP_KILL"]).len(), 14, "what is added is had");
        let all = sets(&Powers { privileged: true, drop: vec!["ALL".to_owned()], ..Powers::default() });
        assert_eq!(all.bounding.len(), CAPABILITIES.len());
        assert!(all.ambient.is_empty() && all.inheritable.is_empty());
    }
}
