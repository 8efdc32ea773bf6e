//! Which ids inside a user namespace are which outside.

use std::path::Path;

use runtime::spec::IdMapping;

use super::machine::Machine;
use crate::error::Result;
use crate::options::unsupported;
use crate::spec::Isolation;

/// How many ids a container of root's gets: all that fit in 16 bits, `nobody` (65534) among them.
const MANY: u32 = 65_536;

/// Root's range where /etc/subuid has none for it: above those of systemd's containers, which nothing else uses.
/// Source: systemd, `UIDS-GIDS.md`.
const DEFAULT_START: u32 = 1_879_048_192;

/// The maps of a new user namespace; empty without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
    /// Whether newuidmap and newgidmap have to write them.
    pub with_helpers: bool,
}

impl Maps {
    /// The ids outside of root inside.
    pub fn root(&self) -> Option<(u32, u32)> {
        let of = |maps: &[IdMapping]| maps.iter().find(|map| map.container_id == 0).map(|map| map.host_id);
        Some((of(&self.uids)?, of(&self.gids)?))
    }
}

/// The maps by which this ordinary user's images are unpacked: those of its containers. None for root, and for a user without ranges or
/// without the helpers.
pub(crate) fn of_images() -> Option<Maps> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid == 0 || !has_map_helpers() {
        return None;
    }
    let (uids, gids) = (ranges("/etc/subuid", uid), ranges("/etc/subgid", uid));
    if uids.is_empty() || gids.is_empty() {
        return None;
    }
    Some(Maps { uids: around(0, uid, &uids)?, gids: around(0, gid, &gids)?, with_helpers: true })
}

/// The maps for whoever asks. Root maps a range; an ordinary user itself, and its ranges if it has any.
pub(super) fn maps(isolation: &Isolation, machine: &Machine) -> Result<Maps> {
    if machine.uid == 0 {
        if isolation.keep_id {
            let reason = "root's own id inside would be root's own id outside, with nothing gained";
            return Err(unsupported("--userns", "keep-id", reason, Some("--userns private")).into());
        }
        let (uids, gids) = (shift(&machine.subordinate_uids), shift(&machine.subordinate_gids));
        return Ok(Maps { uids, gids, with_helpers: false });
    }
    let ranges = [&machine.subordinate_uids, &machine.subordinate_gids];
    if !machine.has_map_helpers || ranges.iter().any(|ranges| ranges.is_empty()) {
        return one_id(isolation, machine);
    }
    let own = |id| if isolation.keep_id { id } else { 0 };
    let uids = around(own(machine.uid), machine.uid, &machine.subordinate_uids);
    let gids = around(own(machine.gid), machine.gid, &machine.subordinate_gids);
    match (uids, gids) {
        (Some(uids), Some(gids)) => Ok(Maps { uids, gids, with_helpers: true }),
        _ => {
            let reason = "your ranges in /etc/subuid and /etc/subgid hold too few ids to reach your own";
            Err(unsupported("--userns", "keep-id", reason, Some("--userns private")).into())
        }
    }
}

/// A user without ranges is root inside, and that is all there is.
fn one_id(isolation: &Isolation, machine: &Machine) -> Result<Maps> {
    if isolation.keep_id {
        let reason = "that needs ranges in /etc/subuid and /etc/subgid, and newuidmap (package uidmap)";
        let instead =
            "ask the administrator: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER";
        return Err(unsupported("--userns", "keep-id", reason, Some(instead)).into());
    }
    let one = |id| vec![IdMapping { container_id: 0, host_id: id, size: 1 }];
    Ok(Maps { uids: one(machine.uid), gids: one(machine.gid), with_helpers: false })
}

fn shift(ranges: &[(u32, u32)]) -> Vec<IdMapping> {
    let (start, count) = ranges.first().copied().unwrap_or((DEFAULT_START, MANY));
    vec![IdMapping { container_id: 0, host_id: start, size: count.min(MANY) }]
}

/// `own` is `inside`, and the ranges fill the numbers below and above it. None when they do not reach it.
fn around(inside: u32, own: u32, ranges: &[(u32, u32)]) -> Option<Vec<IdMapping>> {
    let own = IdMapping { container_id: inside, host_id: own, size: 1 };
    let mut maps = Vec::new();
    let mut next: u32 = 0;
    for (mut start, mut count) in ranges.iter().copied() {
        while count > 0 {
            if next == inside {
                maps.push(own);
                next += 1;
            }
            let here = if next < inside { count.min(inside - next) } else { count };
            maps.push(IdMapping { container_id: next, host_id: start, size: here });
            next = next.checked_add(here)?;
            (start, count) = (start + here, count - here);
        }
    }
    if next == inside {
        maps.push(own);
    }
    (next >= inside).then_some(maps)
}

/// The ranges of a user in subuid(5) or subgid(5); for root those of `containers`, else of root.
pub(super) fn ranges(file: &str, uid: u32) -> Vec<(u32, u32)> {
    // Without the file there is no range.
    let text = fs_err::read_to_string(file).unwrap_or_default();
    if uid == 0 {
        let of_containers = ranges_in(&text, &["containers"]);
        return if of_containers.is_empty() { ranges_in(&text, &["root", "0"]) } else { of_containers };
    }
    let passwd = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    });
    ranges_in(&text, &[name.unwrap_or(&number), &number])
}

fn ranges_in(text: &str, names: &[&str]) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let (start, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (names.contains(&name) && count > 0 && start.checked_add(count).is_some()).then_some((start, count))
    };
    text.lines().filter_map(range).collect()
}

/// Whether both helpers are where the runtime looks for them.
pub(super) fn has_map_helpers() -> bool {
    let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let is_here = |name: &str| directories.iter().any(|directory| Path::new(directory).join(name).exists());
    ["newuidmap", "newgidmap"].into_iter().all(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn ranges_are_read_by_name_and_number() {
        let text = "# note\nann:100000:65536\n1000:300000:10\nbob:1:x\nann:200000:5\nann:4294967295:5\n";
        assert_eq!(ranges_in(text, &["ann", "1000"]), [(100_000, 65_536), (300_000, 10), (200_000, 5)]);
        assert!(ranges_in(text, &["bob"]).is_empty());
    }

    #[test]
    fn the_own_id_is_root_or_keeps_its_number() {
        let ranges = [(100_000, 10), (200_000, 10)];
        let as_root = [map(0, 1000, 1), map(1, 100_000, 10), map(11, 200_000, 10)];
        assert_eq!(around(0, 1000, &ranges).unwrap(), as_root);
        let kept = [map(0, 100_000, 10), map(10, 200_000, 2), map(12, 12, 1), map(13, 200_002, 8)];
        assert_eq!(around(12, 12, &ranges).unwrap(), kept);
        let three = [(100, 1), (200, 2), (300, 3)];
        let kept = [map(0, 100, 1), map(1, 7, 1), map(2, 200, 2), map(4, 300, 3)];
        assert_eq!(around(1, 7, &three).unwrap(), kept);
        assert_eq!(around(1000, 1000, &ranges), None);
    }

    #[test]
    fn root_gets_a_range() {
        let mut machine = Machine::default();
        let isolation = Isolation::default();
        assert_eq!(maps(&isolation, &machine).unwrap().uids, [map(0, DEFAULT_START, MANY)]);
        machine.subordinate_uids = vec![(500_000, 200_000)];
        assert_eq!(maps(&isolation, &machine).unwrap().uids, [map(0, 500_000, MANY)]);
        assert!(maps(&Isolation { keep_id: true, ..isolation }, &machine).is_err());
    }
}
