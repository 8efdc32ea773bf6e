//! `linux.intelRdt`: shares of processor caches and memory bandwidth, by groups of the kernel's resctrl file system.
//!
//! A group is a directory with a file of shares (`schemata`) and one of processes (`tasks`); what a process starts is in its group. Source:
//! config-linux.md, "IntelRdt", and the kernel's Documentation/filesystems/resctrl.rst.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernel::record::{Chapter, because};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::request::Request;
use crate::spec::IntelRdt;

const STEP: &str = "cannot set linux.intelRdt";
const WHAT: &str = "linux.intelRdt";

/// Puts a process into the group that the request asks for, which is made if it has to be.
pub(crate) fn begin(request: &Request, pid: u32) -> Result<()> {
    let Some(rdt) = rdt_of(request) else { return Ok(()) };
    let place = Place::of(&mount_point(&request.id)?, &request.id, rdt)?;
    let is_new = place.make(rdt)?;
    place.share(rdt, is_new)?;
    place.enter(pid)
}

/// Puts another process of the container into its group.
pub(crate) fn join(request: &Request, pid: u32) -> Result<()> {
    let Some(rdt) = rdt_of(request) else { return Ok(()) };
    Place::of(&mount_point(&request.id)?, &request.id, rdt)?.enter(pid)
}

/// Changes the shares of a container that runs, `pid` being its first process; what is not given stays. One that had none gets a group.
///
/// The request is as it is to be written down then.
pub fn update(request: &mut Request, pid: u32, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
    let Ok(root) = mount_point(&request.id) else {
        let schema = cache.or(bandwidth).unwrap_or_default();
        return Err(refuse(schema, "Intel RDT is not enabled: no resctrl file system is mounted"));
    };
    let shares = &mut request.spec.linux.get_or_insert_default().intel_rdt;
    update_in(&root, &request.id, shares, pid, cache, bandwidth)
}

fn update_in(
    root: &Path,
    id: &str,
    shares: &mut Option<IntelRdt>,
    pid: u32,
    cache: Option<&str>,
    bandwidth: Option<&str>,
) -> Result<()> {
    let has = |names: &[&str]| names.iter().any(|name| root.join("info").join(name).is_dir());
    if let Some(schema) = cache.filter(|_| !has(&["L3", "L3CODE"])) {
        return Err(refuse(schema, "Intel RDT/CAT: l3 cache schema is not enabled"));
    }
    if let Some(schema) = bandwidth.filter(|_| !has(&["MB"])) {
        return Err(refuse(schema, "Intel RDT/MBA: memory bandwidth schema is not enabled"));
    }
    let changed = |schema: Option<&str>| schema.map(str::to_owned);
    let only = IntelRdt {
        l3_cache_schema: changed(cache),
        mem_bw_schema: changed(bandwidth),
        ..IntelRdt::default()
    };
    let is_first = shares.is_none();
    let rdt = shares.get_or_insert_default();
    let place = Place::of(root, id, rdt)?;
    place.make(&only)?;
    if is_first {
        place.enter(pid)?;
    }
    // Of a group that is shared by name, too: whoever asks means it.
    place.share(&only, true)?;
    rdt.l3_cache_schema = only.l3_cache_schema.or(rdt.l3_cache_schema.take());
    rdt.mem_bw_schema = only.mem_bw_schema.or(rdt.mem_bw_schema.take());
    Ok(())
}

/// Removes what was made for the container alone. A group of a given name may be that of others, and stays.
pub fn remove(request: &Request) -> Result<()> {
    let Some(rdt) = rdt_of(request) else { return Ok(()) };
    // Where it is not mounted there is nothing left of it.
    let Ok(root) = mount_point(&request.id) else { return Ok(()) };
    Place::of(&root, &request.id, rdt)?.remove(rdt)
}

fn rdt_of(request: &Request) -> Option<&IntelRdt> {
    request.spec.linux.as_ref()?.intel_rdt.as_ref()
}

/// Where resctrl is mounted.
fn mount_point(id: &str) -> Result<PathBuf> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
    find_mount(&mounts).ok_or_else(|| {
        let reason = "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl file system is mounted";
        refuse(id, reason)
    })
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let kind = file_system.split(' ').next()?;
        (kind == "resctrl").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    };
    mounts.lines().find_map(point)
}

fn refuse(value: &str, reason: &str) -> Error {
    Error::Configuration { what: WHAT, value: value.to_owned(), reason: reason.to_owned() }
}

/// A container's directories in resctrl.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    group: PathBuf,
    /// What is measured of the container alone.
    monitoring: Option<PathBuf>,
}

impl Place {
    fn of(root: &Path, id: &str, rdt: &IntelRdt) -> Result<Self> {
        let name = rdt.clos_id.as_deref().unwrap_or(id);
        if matches!(name, "." | "..") || name.contains('/') {
            return Err(refuse(name, "closID must be the name of a directory"));
        }
        let group = root.join(name);
        let monitoring = rdt.enable_monitoring.then(|| group.join("mon_groups").join(id));
        Ok(Self { group, monitoring })
    }

    /// Makes what is missing; tells whether the group was. One of a given name without shares has to be there.
    fn make(&self, rdt: &IntelRdt) -> Result<bool> {
        let is_there = self.group.is_dir();
        if let (false, Some(name), true) = (is_there, &rdt.clos_id, lines(rdt).is_empty()) {
            return Err(refuse(name, "there is no such group, and no shares are given to make it with"));
        }
        because(Chapter::Limits, "linux.intelRdt: the group that shares caches and memory bandwidth");
        for directory in [(!is_there).then_some(&self.group), self.monitoring.as_ref()].into_iter().flatten()
        {
            match kernel::file::make_directory(directory) {
                Err(error) if error.errno() != Errno::EXIST => return Err(error).in_step(STEP),
                _ => {}
            }
        }
        Ok(!is_there)
    }

    /// Gives a new group its shares. One that was there has to have them: its other processes are not to be changed.
    fn share(&self, rdt: &IntelRdt, is_new: bool) -> Result<()> {
        let (lines, file) = (lines(rdt), self.group.join("schemata"));
        if lines.is_empty() {
            return Ok(());
        }
        if !is_new && rdt.clos_id.is_some() {
            let there = Shares::parse(&fs_err::read_to_string(&file)?);
            return match lines.iter().find(|line| !there.has(line)) {
                Some(line) => Err(refuse(line, "the group is there, and has other shares")),
                None => Ok(()),
            };
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        kernel::file::write_control(&file, &text).in_step(STEP)
    }

    fn enter(&self, pid: u32) -> Result<()> {
        because(Chapter::Limits, "linux.intelRdt: the process shares with its group");
        for directory in [Some(&self.group), self.monitoring.as_ref()].into_iter().flatten() {
            kernel::file::write_control(&directory.join("tasks"), &pid.to_string()).in_step(STEP)?;
        }
        Ok(())
    }

    fn remove(&self, rdt: &IntelRdt) -> Result<()> {
        let own_group = rdt.clos_id.is_none().then_some(&self.group);
        for directory in [self.monitoring.as_ref(), own_group].into_iter().flatten() {
            match kernel::file::remove_directory(directory) {
                Err(error) if error.errno() != Errno::NOENT => {
                    return Err(error).in_step("cannot remove the group of linux.intelRdt");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The lines to write, one for each resource. Memory bandwidth in the lines for the cache yields to its own property.
fn lines(rdt: &IntelRdt) -> Vec<&str> {
    let bandwidth = rdt.mem_bw_schema.as_deref();
    let cache = rdt.l3_cache_schema.as_deref().unwrap_or_default().lines();
    let cache = cache.filter(|line| !(bandwidth.is_some() && line.trim_start().starts_with("MB:")));
    let all = rdt.schemata.iter().flat_map(|line| line.lines()).chain(cache);
    let all = all.chain(bandwidth.unwrap_or_default().lines());
    all.map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// What `schemata` says: the share of each resource in each of its places. The kernel pads numbers.
#[derive(Debug, Default)]
struct Shares(BTreeMap<(String, String), String>);

impl Shares {
    fn parse(text: &str) -> Self {
        let mut shares = BTreeMap::new();
        for (resource, list) in text.lines().filter_map(|line| line.split_once(':')) {
            for (place, share) in list.split(';').filter_map(|part| part.split_once('=')) {
                let share = share.trim().trim_start_matches('0').to_lowercase();
                let plain = |text: &str| text.trim().to_owned();
                shares.insert((plain(resource), plain(place)), share);
            }
        }
        Self(shares)
    }

    fn has(&self, line: &str) -> bool {
        let Self(asked) = Self::parse(line);
        !asked.is_empty() && asked.iter().all(|(place, share)| self.0.get(place) == Some(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory in the place of resctrl; it goes with the test.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("coracle-resctrl-{name}-{}", std::process::id()));
            fs_err::create_dir(&root).unwrap();
            Self(root)
        }

        /// What the kernel puts into a new directory.
        fn fill(&self, group: &str) {
            fs_err::create_dir_all(self.0.join(group).join("mon_groups")).unwrap();
            fs_err::write(self.0.join(group).join("schemata"), "").unwrap();
            fs_err::write(self.0.join(group).join("tasks"), "").unwrap();
        }

        fn read(&self, file: &str) -> String {
            fs_err::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    fn rdt(text: &str) -> IntelRdt {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_group_of_the_containers_own_is_made_and_removed() {
        let fake = Fake::new("own");
        let rdt =
            rdt(r#"{"l3CacheSchema": "L3:0=f\nMB:0=9", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"]}"#);
        let place = Place::of(&fake.0, "box", &rdt).unwrap();
        assert!(place.make(&rdt).unwrap());
        fake.fill("box");
        place.share(&rdt, true).unwrap();
        place.enter(42).unwrap();
        assert_eq!(fake.read("box/schemata"), "L2:0=3\nL3:0=f\nMB:0=20\n");
        assert_eq!(fake.read("box/tasks"), "42");
        // In resctrl a group goes with its files.
        fs_err::remove_file(fake.0.join("box/schemata")).unwrap();
        fs_err::remove_file(fake.0.join("box/tasks")).unwrap();
        fs_err::remove_dir(fake.0.join("box/mon_groups")).unwrap();
        place.remove(&rdt).unwrap();
        assert!(!fake.0.join("box").exists());
        place.remove(&rdt).unwrap();
    }

    #[test]
    fn a_group_of_a_given_name_has_to_have_the_shares_and_stays() {
        let fake = Fake::new("named");
        let named = rdt(r#"{"closID": "gold", "l3CacheSchema": "L3:0=ff", "enableMonitoring": true}"#);
        fake.fill("gold");
        fs_err::write(fake.0.join("gold/schemata"), "    MB:0=100\n    L3:0=00ff;1=00ff\n").unwrap();
        let place = Place::of(&fake.0, "box", &named).unwrap();
        assert!(!place.make(&named).unwrap());
        fs_err::write(fake.0.join("gold/mon_groups/box/tasks"), "").unwrap();
        place.share(&named, false).unwrap();
        place.enter(7).unwrap();
        assert_eq!(
            (fake.read("gold/tasks"), fake.read("gold/mon_groups/box/tasks")),
            ("7".into(), "7".into())
        );
        let other = rdt(r#"{"closID": "gold", "memBwSchema": "MB:0=50"}"#);
        let told = place.share(&other, false).unwrap_err().to_string();
        assert_eq!(told, "linux.intelRdt \"MB:0=50\": the group is there, and has other shares");
        fs_err::remove_file(fake.0.join("gold/mon_groups/box/tasks")).unwrap();
        place.remove(&named).unwrap();
        assert!(fake.0.join("gold").exists() && !fake.0.join("gold/mon_groups/box").exists());
    }

    #[test]
    fn shares_are_changed_and_what_is_not_given_stays() {
        let fake = Fake::new("update");
        for name in ["info/L3", "info/MB"] {
            fs_err::create_dir_all(fake.0.join(name)).unwrap();
        }
        fake.fill("box");
        let mut own = Some(rdt(r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}"#));
        update_in(&fake.0, "box", &mut own, 42, None, Some("MB:0=70")).unwrap();
        assert_eq!(fake.read("box/schemata"), "MB:0=70\n");
        // It is in its group already.
        assert_eq!(fake.read("box/tasks"), "");
        assert_eq!(own, Some(rdt(r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=70"}"#)));
        fake.fill("gold");
        let mut named = Some(rdt(r#"{"closID": "gold"}"#));
        update_in(&fake.0, "box", &mut named, 42, Some("L3:0=3"), None).unwrap();
        assert_eq!(fake.read("gold/schemata"), "L3:0=3\n");
        assert_eq!(named.unwrap().l3_cache_schema.as_deref(), Some("L3:0=3"));
    }

    #[test]
    fn a_container_without_shares_gets_a_group_of_its_own() {
        let fake = Fake::new("late");
        fs_err::create_dir_all(fake.0.join("info/L3CODE")).unwrap();
        let mut none = None;
        let told = update_in(&fake.0, "box", &mut none, 42, None, Some("MB:0=70")).unwrap_err().to_string();
        assert_eq!(told, "linux.intelRdt \"MB:0=70\": Intel RDT/MBA: memory bandwidth schema is not enabled");
        assert!(!fake.0.join("box").exists() && none.is_none());
        fake.fill("box");
        update_in(&fake.0, "box", &mut none, 42, Some("L3:0=3"), None).unwrap();
        assert_eq!((fake.read("box/tasks"), fake.read("box/schemata")), ("42".into(), "L3:0=3\n".into()));
        let told = update_in(&fake.0, "..", &mut none, 42, Some("L3:0=3"), None).unwrap_err().to_string();
        assert!(told.contains("closID"), "{told}");
    }

    #[test]
    fn a_group_that_is_only_named_has_to_be_there() {
        let fake = Fake::new("missing");
        let named = rdt(r#"{"closID": "silver"}"#);
        let told = Place::of(&fake.0, "box", &named).unwrap().make(&named).unwrap_err().to_string();
        assert!(told.starts_with("linux.intelRdt \"silver\": there is no such group"), "{told}");
        for name in ["..", "a/b"] {
            let rdt = IntelRdt { clos_id: Some(name.to_owned()), ..IntelRdt::default() };
            assert!(Place::of(&fake.0, "box", &rdt).is_err(), "{name}");
        }
    }

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let line = "30 23 0:26 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw";
        let other = "31 23 0:27 / /sys/fs/bpf rw - bpf bpf rw";
        assert_eq!(find_mount(&format!("{other}\n{line}\n")), Some(PathBuf::from("/sys/fs/resctrl")));
        assert_eq!(find_mount(other), None);
    }
}
