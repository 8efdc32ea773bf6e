//! A container's own scope, which systemd makes, limits and removes: the systemd driver of OCI runtimes.
//!
//! Callers name it in `linux.cgroupsPath` as `slice:prefix:name`. Root asks the machine's systemd, a user its own.

use std::path::{Path, PathBuf};

use kernel::record::{Chapter, because};
use serde::{Deserialize, Serialize};

use crate::dbus::{Body, Connection, Value};
use crate::place::{Place, groups_of};
use crate::properties::properties;
use crate::scope::{PATIENCE, Refusal, method, outer_uid, socket};
use crate::{Error, Limits, Mount, Result};

/// The unit's name begins so if no path is given.
const PREFIX: &str = "coracle";

/// What came of asking systemd.
type Asked<T> = std::result::Result<T, Refusal>;

/// A scope of systemd's that is one container's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `prefix-name.scope`.
    name: String,
    /// The slice that it is in: `machine.slice`.
    slice: String,
}

impl Unit {
    /// The unit that `slice:prefix:name` means; without a path that of the container `id`. An empty slice is `system.slice`, a user's
    /// `user.slice`.
    ///
    /// # Errors
    /// [`Error::Name`] if it is no such path, or does not name a scope.
    pub fn of_path(path: Option<&str>, id: &str) -> Result<Self> {
        let path = path.filter(|path| !path.is_empty());
        let parts: Vec<&str> = path.map_or(vec!["", PREFIX, id], |path| path.split(':').collect());
        let wrong = |reason| Error::Name { name: path.unwrap_or(id).to_owned(), reason };
        let [slice, prefix, name] = parts[..] else {
            return Err(wrong("for systemd it must be slice:prefix:name"));
        };
        if name.is_empty()
            || name.ends_with(".slice")
            || format!("{prefix}{name}").contains(['/', '\n', '\0'])
        {
            return Err(wrong("the last part must name a scope, which holds processes as a slice does not"));
        }
        let usual = if outer_uid() == 0 { "system.slice" } else { "user.slice" };
        let slice = if slice.is_empty() { usual } else { slice };
        slice_path(slice)
            .ok_or_else(|| wrong("the first part must name a slice: machine.slice, a-b.slice"))?;
        Ok(Self { name: format!("{prefix}-{name}.scope"), slice: slice.to_owned() })
    }

    /// The unit's name, as `systemctl` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The slice's name.
    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// Has systemd make the unit with a process in it, and waits until it has.
    pub(crate) fn start(&self, description: &str, pid: u32, limits: &Limits) -> Result<()> {
        let pids = [pid];
        let limited = properties(limits)?;
        let mut list = vec![
            ("Description", Value::Text(description)),
            ("Slice", Value::Text(&self.slice)),
            ("PIDs", Value::Numbers(&pids)),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            ("MemoryAccounting", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            ("IOAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            // One that failed shall not stand in the way of the next.
            ("CollectMode", Value::Text("inactive-or-failed")),
        ];
        if !limited.iter().any(|(name, _)| *name == "TasksMax") {
            // Else systemd has a limit of its own, which nobody asked for.
            list.push(("TasksMax", Value::Number(u64::MAX)));
        }
        list.extend(limited);
        self.ask("start", |systemd| match self.start_with(systemd, &list) {
            Err(Refusal::Exists) => {
                // It may be what is left of one that failed.
                self.forget(systemd)?;
                self.start_with(systemd, &list)
            }
            other => other,
        })
    }

    fn start_with(&self, systemd: &mut Connection, list: &[(&str, Value<'_>)]) -> Asked<()> {
        because(
            Chapter::Limits,
            "control groups are systemd's here: it makes one with the container's first process in it, and leaves it to us",
        );
        let body = Body::default().text(&self.name).text("fail").properties(list).no_more_units();
        let words = format!("StartTransientUnit {} in {}, Delegate=yes", self.name, self.slice);
        let reply = systemd.call(&method("StartTransientUnit"), &body, &words)?;
        match wait_for_job(systemd, &reply.arguments())?.as_str() {
            "done" => Ok(()),
            result => {
                let text = format!("its job ended as {result}");
                Err(Refusal::Refused { method: "StartTransientUnit".to_owned(), text })
            }
        }
    }

    /// Tells systemd of other limits; what is not given stays.
    pub(crate) fn change(&self, limits: &Limits) -> Result<()> {
        let list = properties(limits)?;
        if list.is_empty() {
            return Ok(());
        }
        because(
            Chapter::Limits,
            "systemd is told what now holds, since it writes what it knows again when it is reloaded",
        );
        let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
        let words = format!("SetUnitProperties {}: {}", self.name, names.join(", "));
        // Until the next boot, which is longer than a scope lives.
        let body = Body::default().text(&self.name).flag(true).properties(&list);
        self.ask("change", |systemd| systemd.call(&method("SetUnitProperties"), &body, &words).map(drop))
    }

    /// Has systemd put another process into the unit.
    pub(crate) fn attach(&self, pid: u32) -> Result<()> {
        because(Chapter::Limits, "this process may not move others there, which systemd may");
        let body = Body::default().text(&self.name).text("").numbers(&[pid]);
        let words = format!("AttachProcessesToUnit {}, process {pid}", self.name);
        self.ask("enter", |systemd| systemd.call(&method("AttachProcessesToUnit"), &body, &words).map(drop))
    }

    /// Has systemd remove the unit, and waits until it has. One that is gone is no error: systemd removes what is empty.
    pub(crate) fn stop(&self) -> Result<()> {
        self.ask("stop", |systemd| self.stop_with(systemd))
    }

    fn stop_with(&self, systemd: &mut Connection) -> Asked<()> {
        because(Chapter::CleanUp, "systemd made the container's control group, and removes it");
        let body = Body::default().text(&self.name).text("replace");
        let words = format!("StopUnit {}", self.name);
        match systemd.call(&method("StopUnit"), &body, &words) {
            Ok(reply) => drop(wait_for_job(systemd, &reply.arguments())?),
            Err(Refusal::NoUnit { .. }) => {}
            Err(error) => return Err(error),
        }
        self.forget(systemd)
    }

    /// Has systemd remove the unit if nobody is in it: one that was to begin with a process which had just been killed stays as it is.
    ///
    /// # Errors
    /// [`Error::Unit`].
    pub fn stop_if_empty(&self) -> Result<()> {
        let body = Body::default().text(&self.name);
        let words = format!("GetUnitProcesses {}", self.name);
        self.ask("stop", |systemd| match systemd.call(&method("GetUnitProcesses"), &body, &words) {
            Ok(reply) if reply.is_empty_list() => self.stop_with(systemd),
            Err(Refusal::NoUnit { .. }) => Ok(()),
            reply => reply.map(drop),
        })
    }

    /// Has systemd forget that the unit failed, if it did.
    fn forget(&self, systemd: &mut Connection) -> Asked<()> {
        let words = format!("ResetFailedUnit {}", self.name);
        match systemd.call(&method("ResetFailedUnit"), &Body::default().text(&self.name), &words) {
            Err(Refusal::NoUnit { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    fn ask(&self, act: &'static str, what: impl FnOnce(&mut Connection) -> Asked<()>) -> Result<()> {
        Connection::open(&socket(), PATIENCE)
            .and_then(|mut systemd| what(&mut systemd))
            .map_err(|source| Error::Unit { act, unit: self.name.clone(), source })
    }

    /// Where the unit's group is, which is the one that the process was put into.
    pub(crate) fn place_of(&self, pid: u32, mount: &Mount) -> Result<Place> {
        let groups = groups_of(&pid.to_string(), mount)?;
        let elsewhere = || {
            let group = groups.first().map_or("/".to_owned(), |group| format!("/{}", group.display()));
            Error::Unit { act: "start", unit: self.name.clone(), source: Refusal::Elsewhere { group } }
        };
        let group = groups.iter().find(|group| group.ends_with(&self.name)).ok_or_else(elsewhere)?;
        let below = slice_path(&self.slice).unwrap_or_default().join(&self.name);
        // What comes before is the systemd's own group: none for the machine's, `user@UID.service` for a user's.
        let depth = below.components().count();
        let base = group.ancestors().nth(depth).filter(|_| group.ends_with(&below)).ok_or_else(elsewhere)?;
        Ok(Place { base: base.to_owned(), below })
    }
}

/// Waits for a job that a call began; gives its result.
fn wait_for_job(systemd: &mut Connection, reply: &[String]) -> Asked<String> {
    let job = reply.first().ok_or(Refusal::Unreadable)?;
    let ended = systemd.wait_for("JobRemoved", |arguments| arguments.get(1) == Some(job))?;
    Ok(ended.get(3).cloned().unwrap_or_default())
}

/// Where a slice's group is: `a-b.slice` is in `a.slice`. The root of all slices, `-.slice`, is the tree's.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut whole = String::new();
    for part in name.split('-') {
        if part.is_empty() || part.contains(['/', '\n', '\0']) {
            return None;
        }
        whole = if whole.is_empty() { part.to_owned() } else { format!("{whole}-{part}") };
        path.push(Path::new(&format!("{whole}.slice")));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_three_parts_name_a_scope_in_a_slice() {
        let unit = Unit::of_path(Some("machine.slice:libpod:abc"), "x").unwrap();
        assert_eq!((unit.name(), unit.slice()), ("libpod-abc.scope", "machine.slice"));
        let usual = if outer_uid() == 0 { "system.slice" } else { "user.slice" };
        let unit = Unit::of_path(Some(":docker:abc"), "x").unwrap();
        assert_eq!((unit.name(), unit.slice()), ("docker-abc.scope", usual));
        assert_eq!(Unit::of_path(None, "x").unwrap().name(), "coracle-x.scope");
        for wrong in
            ["/a/b", "a:b:c", "a.slice:b", "a.slice:b:c:d", "a.slice::", "-a.slice:b:c", "s.slice:b:c/d"]
        {
            assert!(matches!(Unit::of_path(Some(wrong), "x"), Err(Error::Name { .. })), "{wrong}");
        }
        assert!(Unit::of_path(Some("a.slice:b:pod.slice"), "x").is_err());
    }

    #[test]
    fn a_slices_group_is_in_those_that_its_name_begins_with() {
        assert_eq!(slice_path("a-b-c.slice").unwrap(), Path::new("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(slice_path("-.slice").unwrap(), Path::new(""));
        for wrong in ["a", ".slice", "a--b.slice", "a-.slice", "a/b.slice"] {
            assert_eq!(slice_path(wrong), None, "{wrong}");
        }
    }
}
