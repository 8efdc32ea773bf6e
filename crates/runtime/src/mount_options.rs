//! Mount options by name, as mount(8) and the runtime specification have them.

use kernel::mount::{MountAttributes, MountFlags};

/// A mount's options, sorted by who takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes to set on the mount.
    pub set: MountAttributes,
    /// Attributes to clear from a bind mount that would inherit them.
    pub clear: MountAttributes,
    /// Attributes to set on the mount and all below it (`rro` and its like).
    pub set_recursively: MountAttributes,
    /// Whether this is a bind mount.
    pub bind: bool,
    /// Whether the mounts below come along.
    pub recursive: bool,
    /// Propagation, and whether for the mounts below as well.
    pub propagation: Option<(MountFlags, bool)>,
    /// The superblock is read-only too.
    pub read_only: bool,
    /// What only the file system understands: a word, or a key and its value.
    pub data: Vec<(String, Option<String>)>,
}

/// Sorts options. Unknown ones are the file system's own; it refuses what it does not know.
pub fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        if !apply(&mut parsed, option) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (option.clone(), None),
            };
            parsed.data.push((key, value));
        }
    }
    parsed.read_only = parsed.set.contains(MountAttributes::RDONLY);
    parsed
}

fn apply(parsed: &mut Options, option: &str) -> bool {
    if let Some((propagation, recursive)) = propagation(option) {
        parsed.propagation = Some((propagation, recursive));
        return true;
    }
    if let Some((attribute, on)) = attribute(option) {
        parsed.set.set(attribute, on);
        parsed.clear.set(attribute, !on);
        return true;
    }
    let recursive = option.strip_prefix('r').and_then(attribute);
    if let Some((attribute, on)) = recursive {
        parsed.set_recursively.set(attribute, on);
        return true;
    }
    match option {
        "bind" => parsed.bind = true,
        "rbind" => (parsed.bind, parsed.recursive) = (true, true),
        "defaults" | "relatime" | "async" | "nolazytime" | "loud" => {}
        _ => return false,
    }
    true
}

fn propagation(option: &str) -> Option<(MountFlags, bool)> {
    let (name, recursive) = match option {
        "rprivate" | "rslave" | "rshared" | "runbindable" => (&option[1..], true),
        _ => (option, false),
    };
    let flags = match name {
        "private" => MountFlags::PRIVATE,
        "slave" => MountFlags::SLAVE,
        "shared" => MountFlags::SHARED,
        "unbindable" => MountFlags::UNBINDABLE,
        _ => return None,
    };
    Some((flags, recursive))
}

fn attribute(option: &str) -> Option<(MountAttributes, bool)> {
    Some(match option {
        "ro" => (MountAttributes::RDONLY, true),
        "rw" => (MountAttributes::RDONLY, false),
        "nosuid" => (MountAttributes::NOSUID, true),
        "suid" => (MountAttributes::NOSUID, false),
        "nodev" => (MountAttributes::NODEV, true),
        "dev" => (MountAttributes::NODEV, false),
        "noexec" => (MountAttributes::NOEXEC, true),
        "exec" => (MountAttributes::NOEXEC, false),
        "noatime" => (MountAttributes::NOATIME, true),
        "strictatime" => (MountAttributes::STRICTATIME, true),
        "nodiratime" => (MountAttributes::NODIRATIME, true),
        "diratime" => (MountAttributes::NODIRATIME, false),
        "nosymfollow" => (MountAttributes::NOSYMFOLLOW, true),
        "symfollow" => (MountAttributes::NOSYMFOLLOW, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Options {
        parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn sorts_options() {
        let parsed = of("rbind,ro,rslave,noexec,size=64k,mode=755");
        assert!(parsed.bind && parsed.recursive && parsed.read_only);
        assert_eq!(parsed.set, MountAttributes::RDONLY | MountAttributes::NOEXEC);
        assert_eq!(parsed.propagation, Some((MountFlags::SLAVE, true)));
        let data = [("size".to_owned(), Some("64k".to_owned())), ("mode".to_owned(), Some("755".to_owned()))];
        assert_eq!(parsed.data, data);
    }

    #[test]
    fn the_last_of_two_opposites_counts() {
        assert_eq!(of("ro,rw").set, MountAttributes::empty());
        assert_eq!(of("rw,ro").set, MountAttributes::RDONLY);
        assert_eq!(of("ro,rw").clear, MountAttributes::RDONLY);
        assert_eq!(of("rro").set_recursively, MountAttributes::RDONLY);
    }
}
