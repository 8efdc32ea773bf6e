//! Mount options by name, as mount(8) and the runtime specification have them (config.md, "Linux mount options").
//!
//! One table for each kind of option: [`parse`] reads by them and [`names`] lists them, so that what is promised is what is understood.

use kernel::mount::{Change, MountAttributes, MountFlags, Setting};

/// A mount's options, sorted by who takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes to set on the mount.
    pub set: MountAttributes,
    /// Attributes to clear from a bind mount that would inherit them.
    pub clear: MountAttributes,
    /// Attributes to set on the mount and all below it (`rro` and its like).
    pub set_recursively: MountAttributes,
    /// Attributes to clear from the mount and all below it (`rrw` and its like).
    pub clear_recursively: MountAttributes,
    /// Whether this is a bind mount.
    pub bind: bool,
    /// Whether the mounts below come along.
    pub recursive: bool,
    /// Propagation, and whether for the mounts below as well.
    pub propagation: Option<(MountFlags, bool)>,
    /// Whether the owners of its files are mapped, and whether those of the mounts below as well.
    pub idmap: Option<bool>,
    /// Whether a new file system in memory gets a copy of what it hides.
    pub copy_up: bool,
    /// Whether a mount that is there already is changed.
    pub remount: bool,
    /// The superblock is read-only too.
    pub read_only: bool,
    /// Words for a new superblock that every file system takes (`sync`). A bind mount has the superblock of its source, and
    /// nothing of it changes.
    pub superblock: Vec<&'static str>,
    /// What only the file system understands: a word, or a key and its value.
    pub data: Vec<(String, Option<String>)>,
}

impl Options {
    /// What fsconfig(2) is told about a new file system.
    pub fn settings(&self) -> impl Iterator<Item = Setting<'_>> {
        let data = self.data.iter().map(|(key, value)| match value {
            Some(value) => Setting::String(key, value),
            None => Setting::Flag(key),
        });
        self.superblock.iter().map(|word| Setting::Flag(word)).chain(data)
    }

    /// The attributes of a new mount, which has none below it.
    pub fn attributes(&self) -> MountAttributes {
        apply(
            apply(MountAttributes::empty(), self.set, self.clear),
            self.set_recursively,
            self.clear_recursively,
        )
    }

    /// The changes of attributes of a bind mount, in order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'static>> {
        let change = |set, clear, recursive| Change { set, clear, recursive, ..Change::default() };
        [change(self.set, self.clear, false), change(self.set_recursively, self.clear_recursively, true)]
            .into_iter()
            .filter(|change| !(change.set | change.clear).is_empty())
    }
}

fn apply(attributes: MountAttributes, set: MountAttributes, clear: MountAttributes) -> MountAttributes {
    (attributes - clear) | set
}

/// Sorts options. Unknown ones are the file system's own; it refuses what it does not know.
pub fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        if !understand(&mut parsed, option) {
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

/// All options that are not left to the file system, sorted.
pub fn names() -> Vec<String> {
    let with_recursive =
        ATTRIBUTES.iter().map(|(name, _)| *name).chain(PROPAGATIONS.iter().map(|(name, _)| *name));
    let recursive = with_recursive.clone().map(|name| format!("r{name}"));
    let others = OTHERS.iter().map(|(name, _)| *name);
    let mut names: Vec<String> = with_recursive.chain(others).map(str::to_owned).chain(recursive).collect();
    names.sort();
    names
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
}

fn understand(parsed: &mut Options, option: &str) -> bool {
    if let Some(other) = find(&OTHERS, option) {
        other.put(parsed);
        return true;
    }
    let recursive = option.strip_prefix('r');
    if let Some(attribute) = find(&ATTRIBUTES, option) {
        attribute.put(&mut parsed.set, &mut parsed.clear);
    } else if let Some(attribute) = recursive.and_then(|name| find(&ATTRIBUTES, name)) {
        attribute.put(&mut parsed.set_recursively, &mut parsed.clear_recursively);
    } else if let Some(flags) = find(&PROPAGATIONS, option) {
        parsed.propagation = Some((flags, false));
    } else if let Some(flags) = recursive.and_then(|name| find(&PROPAGATIONS, name)) {
        parsed.propagation = Some((flags, true));
    } else {
        return false;
    }
    true
}

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy)]
enum Attribute {
    On(MountAttributes),
    Off(MountAttributes),
    /// Access times are kept in this way. It is one of three, so another one is given up; none is the kernel's own way, relatime,
    /// which is also what mount(2) makes of the options that only say which way it shall not be.
    AccessTimes(MountAttributes),
}

impl Attribute {
    /// The last of two opposites counts.
    fn put(self, set: &mut MountAttributes, clear: &mut MountAttributes) {
        match self {
            Self::On(attribute) => {
                set.insert(attribute);
                clear.remove(attribute);
            }
            Self::Off(attribute) => {
                set.remove(attribute);
                clear.insert(attribute);
            }
            Self::AccessTimes(way) => {
                *set = (*set - MountAttributes::ATIME) | way;
                clear.insert(MountAttributes::ATIME);
            }
        }
    }
}

/// Options for the attributes of one mount. Each has a twin for all mounts below, with an `r` before it.
const ATTRIBUTES: [(&str, Attribute); 18] = [
    ("ro", Attribute::On(MountAttributes::RDONLY)),
    ("rw", Attribute::Off(MountAttributes::RDONLY)),
    ("nosuid", Attribute::On(MountAttributes::NOSUID)),
    ("suid", Attribute::Off(MountAttributes::NOSUID)),
    ("nodev", Attribute::On(MountAttributes::NODEV)),
    ("dev", Attribute::Off(MountAttributes::NODEV)),
    ("noexec", Attribute::On(MountAttributes::NOEXEC)),
    ("exec", Attribute::Off(MountAttributes::NOEXEC)),
    ("nodiratime", Attribute::On(MountAttributes::NODIRATIME)),
    ("diratime", Attribute::Off(MountAttributes::NODIRATIME)),
    ("nosymfollow", Attribute::On(MountAttributes::NOSYMFOLLOW)),
    ("symfollow", Attribute::Off(MountAttributes::NOSYMFOLLOW)),
    ("noatime", Attribute::AccessTimes(MountAttributes::NOATIME)),
    ("strictatime", Attribute::AccessTimes(MountAttributes::STRICTATIME)),
    ("relatime", Attribute::AccessTimes(MountAttributes::empty())),
    ("atime", Attribute::AccessTimes(MountAttributes::empty())),
    ("norelatime", Attribute::AccessTimes(MountAttributes::empty())),
    ("nostrictatime", Attribute::AccessTimes(MountAttributes::empty())),
];

/// Options for propagation, each with such a twin too.
const PROPAGATIONS: [(&str, MountFlags); 4] = [
    ("private", MountFlags::PRIVATE),
    ("slave", MountFlags::SLAVE),
    ("shared", MountFlags::SHARED),
    ("unbindable", MountFlags::UNBINDABLE),
];

/// An option that has no twin.
#[derive(Debug, Clone, Copy)]
enum Other {
    Bind {
        recursive: bool,
    },
    IdMap {
        recursive: bool,
    },
    CopyUp,
    Remount,
    /// A word for the superblock.
    On(&'static str),
    /// Takes such a word back.
    Off(&'static str),
    /// Says nothing that is not so anyway.
    Nothing,
}

impl Other {
    fn put(self, parsed: &mut Options) {
        match self {
            Self::Bind { recursive } => {
                parsed.bind = true;
                parsed.recursive |= recursive;
            }
            Self::IdMap { recursive } => parsed.idmap = Some(recursive),
            Self::CopyUp => parsed.copy_up = true,
            Self::Remount => parsed.remount = true,
            Self::On(word) if parsed.superblock.contains(&word) => {}
            Self::On(word) => parsed.superblock.push(word),
            Self::Off(word) => parsed.superblock.retain(|there| *there != word),
            Self::Nothing => {}
        }
    }
}

const OTHERS: [(&str, Other); 18] = [
    ("defaults", Other::Nothing),
    ("bind", Other::Bind { recursive: false }),
    ("rbind", Other::Bind { recursive: true }),
    ("idmap", Other::IdMap { recursive: false }),
    ("ridmap", Other::IdMap { recursive: true }),
    ("tmpcopyup", Other::CopyUp),
    ("remount", Other::Remount),
    ("sync", Other::On("sync")),
    ("async", Other::Off("sync")),
    ("dirsync", Other::On("dirsync")),
    ("lazytime", Other::On("lazytime")),
    ("nolazytime", Other::Off("lazytime")),
    // The kernel takes the word and has no mandatory locks since Linux 5.15.
    ("mand", Other::On("mand")),
    ("nomand", Other::Off("mand")),
    // Whether the kernel logs complaints about the file system's data: fsconfig(2) has no word for it and gives the complaints
    // to the caller instead.
    ("silent", Other::Nothing),
    ("loud", Other::Nothing),
    // fsconfig(2) has no word for counting changes either: each file system does it or does not.
    ("iversion", Other::Nothing),
    ("noiversion", Other::Nothing),
];

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
        assert_eq!(of("rro,rrw").set_recursively, MountAttributes::empty());
        assert_eq!(of("rro,rrw").clear_recursively, MountAttributes::RDONLY);
        assert_eq!(of("sync,async,dirsync,sync,sync").superblock, ["dirsync", "sync"]);
        assert_eq!(of("idmap,ridmap").idmap, Some(true));
    }

    #[test]
    fn there_is_one_way_of_access_times() {
        let way = |text| (of(text).set, of(text).clear);
        assert_eq!(way("noatime,strictatime"), (MountAttributes::STRICTATIME, MountAttributes::ATIME));
        assert_eq!(way("noatime,atime"), (MountAttributes::empty(), MountAttributes::ATIME));
        assert_eq!(way("strictatime,relatime"), (MountAttributes::empty(), MountAttributes::ATIME));
        assert_eq!(way("ro").1, MountAttributes::empty());
        assert_eq!(of("rnoatime,ro").set_recursively, MountAttributes::NOATIME);
    }

    #[test]
    fn a_new_mount_takes_what_is_meant_for_all_below_it() {
        assert_eq!(of("nodev,rro,rnoatime").attributes(), {
            MountAttributes::NODEV | MountAttributes::RDONLY | MountAttributes::NOATIME
        });
        assert_eq!(of("ro,rrw,strictatime,rrelatime").attributes(), MountAttributes::empty());
    }

    #[test]
    fn a_bind_mount_is_changed_before_those_below() {
        let changes: Vec<_> = of("nosuid,rrw").changes().collect();
        assert_eq!((changes[0].set, changes[0].recursive), (MountAttributes::NOSUID, false));
        assert_eq!((changes[1].clear, changes[1].recursive), (MountAttributes::RDONLY, true));
        assert_eq!(of("rbind,rprivate").changes().count(), 0);
    }

    #[test]
    fn every_option_of_the_specification_is_understood() {
        let table = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
            nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
            rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
            rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
            rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap \
            ridmap";
        let mut table: Vec<&str> = table.split_whitespace().collect();
        table.sort_unstable();
        assert_eq!(names(), table);
        for name in names() {
            assert_eq!(of(&name).data, [], "{name}");
        }
    }
    /// A file system in memory that is attached nowhere, with these options; it goes with its descriptor.
    fn mounted(text: &str) -> Option<rustix::fs::StatVfsMountFlags> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let tree = crate::file_system::new_file_system("tmpfs", "tmpfs", &of(text)).unwrap();
        Some(rustix::fs::fstatvfs(&tree).unwrap().f_flag)
    }

    #[test]
    fn a_new_file_system_gets_what_is_asked() {
        use rustix::fs::StatVfsMountFlags as Seen;
        let cases = [
            ("sync,dirsync,lazytime,mand,size=64k", Seen::SYNCHRONOUS | Seen::RELATIME),
            ("sync,async,silent,loud,iversion,noiversion,defaults", Seen::RELATIME),
            ("ro,rnosuid,noatime,nodiratime", Seen::RDONLY | Seen::NOSUID | Seen::NOATIME | Seen::NODIRATIME),
            ("noatime,strictatime,noexec,nodev", Seen::NOEXEC | Seen::NODEV),
            ("strictatime,norelatime", Seen::RELATIME),
        ];
        for (text, expected) in cases {
            let Some(seen) = mounted(text) else {
                println!(
                    "SKIP: mount_options::tests::a_new_file_system_gets_what_is_asked: only root mounts"
                );
                return;
            };
            let known = Seen::SYNCHRONOUS
                | Seen::RELATIME
                | Seen::RDONLY
                | Seen::NOSUID
                | Seen::NOATIME
                | Seen::NODIRATIME
                | Seen::NOEXEC
                | Seen::NODEV;
            assert_eq!(seen & known, expected, "{text}");
        }
    }

    #[test]
    fn a_bind_mount_changes_in_every_way_that_has_a_name() {
        use std::os::fd::AsFd as _;

        use kernel::mount::{At, OpenTree, open_tree, set_attributes};
        if !rustix::process::geteuid().is_root() {
            println!(
                "SKIP: mount_options::tests::a_bind_mount_changes_in_every_way_that_has_a_name: only root mounts"
            );
            return;
        }
        for (name, _) in ATTRIBUTES {
            for option in [name.to_owned(), format!("r{name}")] {
                // Recursive, as mount_setattr(2) is told for options with an r; nothing is mounted below.
                let root = At::path(std::path::Path::new("/proc/sys"));
                let tree = open_tree(root, OpenTree::CLONE | OpenTree::RECURSIVE).unwrap();
                for change in of(&format!("noatime,rstrictatime,{option}")).changes() {
                    set_attributes(At::fd(tree.as_fd(), "tree"), change)
                        .unwrap_or_else(|error| panic!("{option}: {error}"));
                }
            }
        }
    }
}
