//! A group's life: made with its limits, found again, changed, removed.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::Errno;
use kernel::file::{make_directory, remove_directory, write_control};
use kernel::record::{Chapter, because};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::hierarchy::{Version, is_writable, read};
use crate::place::{Choice, Place, is_systemd};
use crate::setting::{self, Setting};
use crate::{Error, Hierarchy, Limits, Mount, Refusal, Result, Unit, devices};

/// A removal of the shared parent by another process can come between our steps; more often than this in a row it does not.
const ATTEMPTS: usize = 16;

/// The group of one container, in as many trees as it needs.
#[derive(Debug)]
pub struct Group {
    pub(crate) place: Place,
    hierarchy: Hierarchy,
    pub(crate) unified: Option<Unified>,
    /// On version 1 alone the tree that tracks processes comes first.
    pub(crate) v1: Vec<V1Directory>,
    /// Directories that were missing, in the order they were made.
    made: Vec<PathBuf>,
    /// Whether it was made for a runtime: in every tree, in directories that may have been there before.
    everywhere: bool,
    /// The unit of systemd's that the group is.
    unit: Option<Unit>,
}

/// Where a group is, to be written down and opened again by another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    place: Place,
    /// The unit of systemd's that the group is, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// The group's directory for each controller, and for each named tree by `name=NAME`; that of version 2 has the empty name. This
    /// is what runc's state calls `cgroup_paths`.
    pub directories: BTreeMap<String, PathBuf>,
}

impl Description {
    /// The place that the group is at in every tree.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// The group's directory in the tree of version 2.
#[derive(Debug)]
pub(crate) struct Unified {
    pub(crate) path: PathBuf,
    descriptor: OwnedFd,
}

/// One of the group's directories in the trees of version 1.
#[derive(Debug)]
pub(crate) struct V1Directory {
    pub(crate) path: PathBuf,
    pub(crate) controllers: Vec<String>,
}

impl Group {
    /// Makes the group `parent/id` with these limits; `parent` is `coracle` if not given. systemd is not asked for a place.
    ///
    /// Gives none where this user may make no groups and nothing is to be limited. If anything fails nothing is left behind.
    ///
    /// # Errors
    /// A limit that cannot be enforced here, or makes no sense, is an error that says why. [`Error::Exists`] if the group is there.
    pub fn create(
        hierarchy: &Hierarchy,
        parent: Option<&str>,
        id: &str,
        limits: &Limits,
    ) -> Result<Option<Self>> {
        let choice = match Place::find(hierarchy, parent, id)? {
            Some(place) => Choice::At(place),
            None => Choice::Nowhere { with_parent: parent.is_some(), refusal: None },
        };
        let group = Self::create_without_devices(hierarchy, choice, limits)?;
        match group.as_ref().map_or(Ok(()), |group| group.limit_devices(limits)) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = group.map(|group| group.remove());
                Err(error)
            }
        }
    }

    /// The same at a chosen place, with [`Group::limit_devices`] still to be called, before the container's program runs.
    ///
    /// The kernel takes half a millisecond to check and compile the program, in which other things can be done.
    pub fn create_without_devices(
        hierarchy: &Hierarchy,
        choice: Choice,
        limits: &Limits,
    ) -> Result<Option<Self>> {
        let settings = setting::settings(hierarchy, limits)?;
        let place = match choice {
            Choice::At(place) => place,
            Choice::Nowhere { with_parent, refusal } => {
                return refuse_or_none(hierarchy, &settings, limits, with_parent, refusal);
            }
        };
        let mut group = Self::unmade(hierarchy, place);
        let made = group.make(&settings);
        match made {
            Ok(()) => Ok(Some(group)),
            Err(error) => {
                // Nobody is in it yet, so what was made can be removed; the first failure is the one to tell.
                let _ = group.remove();
                group.unmake();
                Err(error)
            }
        }
    }

    /// Makes a group as callers of a runtime expect it: in every tree that can be written, since they read statistics from all of them, with
    /// every controller of version 2 that is to be had. A group that is there already is used if it has no processes.
    /// [`Group::limit_devices`] is still to be called.
    ///
    /// Gives none where this user may make no groups and nothing is to be limited. If anything fails nothing that was made is left behind.
    ///
    /// # Errors
    /// As [`Group::create`]; [`Error::NotEmpty`] and [`Error::FoundFrozen`] if the group is there and cannot be a new container's.
    pub fn create_everywhere(hierarchy: &Hierarchy, choice: Choice, limits: &Limits) -> Result<Option<Self>> {
        let settings = setting::settings(hierarchy, limits)?;
        let place = match choice {
            Choice::At(place) => place,
            Choice::Nowhere { with_parent, refusal } => {
                return refuse_or_none(hierarchy, &settings, limits, with_parent, refusal);
            }
        };
        let mut group = Self { everywhere: true, ..Self::unmade(hierarchy, place) };
        group.refuse_used()?;
        match group.make(&settings) {
            Ok(()) => Ok(Some(group)),
            Err(error) => {
                group.unmake();
                Err(error)
            }
        }
    }

    /// The error where this process may make no groups, for those who need one without any limit.
    pub fn none_delegated(hierarchy: &Hierarchy) -> Error {
        no_delegation("a control group", hierarchy)
    }

    /// Has systemd make the scope `unit` with the waiting process `pid` in it, and takes the scope's group as the container's: in every
    /// tree, with these limits, which systemd is told too, so that it keeps them. [`Group::limit_devices`] is still to be called.
    ///
    /// If anything fails once there is a scope, the process is killed and the scope goes.
    pub fn create_in_unit(
        hierarchy: &Hierarchy,
        unit: &Unit,
        description: &str,
        pid: u32,
        limits: &Limits,
    ) -> Result<Self> {
        let settings = setting::settings(hierarchy, limits)?;
        let mount = hierarchy.unified().or(hierarchy.v1_with("name=systemd")).ok_or(Error::NoHierarchy)?;
        unit.start(description, pid, limits)?;
        // A process that is dead already is in no group, and systemd would wait for ever for the end of the last in its scope.
        let place = unit.place_of(pid, mount).inspect_err(|_| drop(unit.stop_if_empty()))?;
        let made = Self::open_at(hierarchy, place.clone())?.unwrap_or(Self::unmade(hierarchy, place));
        let mut group = Self { everywhere: true, unit: Some(unit.clone()), ..made };
        // systemd put it into its own trees only.
        match group.make(&settings).and_then(|()| group.join(pid)) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The unit's name shall be free again when this is told; the first failure is the one to tell.
                let _ = group.kill().and_then(|()| group.remove());
                Err(error)
            }
        }
    }

    /// Whether a group could be made at a place for a new container: one that is there must have no processes.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::FoundFrozen`].
    pub fn check_unused(hierarchy: &Hierarchy, place: &Place) -> Result<()> {
        Self::unmade(hierarchy, place.clone()).refuse_used()
    }

    fn unmade(hierarchy: &Hierarchy, place: Place) -> Self {
        let hierarchy = hierarchy.clone();
        let (v1, made) = (Vec::new(), Vec::new());
        Self { place, hierarchy, unified: None, v1, made, everywhere: false, unit: None }
    }

    /// Undoes the making of a group that nobody is in yet.
    fn unmake(&self) {
        because(Chapter::CleanUp, "what was made for this container goes again, since it cannot start");
        for directory in self.made.iter().rev() {
            let _ = remove_directory(directory);
        }
    }

    /// A group that is there is somebody else's if it has processes, and of no use if it is frozen.
    fn refuse_used(&self) -> Result<()> {
        for mount in self.hierarchy.v1().iter().chain(self.hierarchy.unified()) {
            let path = self.place.in_tree(mount);
            if !exists(&path) {
                continue;
            }
            let count = crate::processes::of(&path)?.len();
            if count > 0 {
                return Err(Error::NotEmpty { path, count });
            }
            if crate::processes::is_told_to_freeze(&path)? {
                return Err(Error::FoundFrozen { path });
            }
        }
        Ok(())
    }

    /// Where the group is, for [`Group::open_described`].
    pub fn description(&self) -> Description {
        let v1 = self.v1.iter().flat_map(|directory| {
            directory.controllers.iter().map(|controller| (controller.clone(), directory.path.clone()))
        });
        let unified = self.unified.iter().map(|unified| (String::new(), unified.path.clone()));
        Description {
            place: self.place.clone(),
            unit: self.unit.clone(),
            directories: v1.chain(unified).collect(),
        }
    }

    /// Finds a group by its description, in those trees that it was in; none if it is gone.
    pub fn open_described(hierarchy: &Hierarchy, description: &Description) -> Result<Option<Self>> {
        let Some(mut group) = Self::open_at(hierarchy, description.place.clone())? else { return Ok(None) };
        let was_in = |controller: &String| description.directories.contains_key(controller);
        group.v1.retain(|directory| directory.controllers.iter().any(was_in));
        group.unified.take_if(|_| !was_in(&String::new()));
        group.everywhere = true;
        group.unit = description.unit.clone();
        Ok((group.unified.is_some() || !group.v1.is_empty()).then_some(group))
    }

    /// Finds a group that [`Group::create`] made; none if it is gone.
    pub fn open(hierarchy: &Hierarchy, parent: Option<&str>, id: &str) -> Result<Option<Self>> {
        match Place::find(hierarchy, parent, id)? {
            Some(place) => Self::open_at(hierarchy, place),
            None => Ok(None),
        }
    }

    /// Finds a group that was made at this place; none if it is gone.
    pub fn open_at(hierarchy: &Hierarchy, place: Place) -> Result<Option<Self>> {
        let unified = match hierarchy.unified().map(|mount| Unified::open(place.in_tree(mount))) {
            Some(Ok(unified)) => Some(unified),
            Some(Err(Error::Read { errno: Errno::NOENT, .. })) | None => None,
            Some(Err(error)) => return Err(error),
        };
        let mut v1: Vec<V1Directory> = hierarchy
            .v1()
            .iter()
            .map(|mount| V1Directory { path: place.in_tree(mount), controllers: mount.controllers.clone() })
            .filter(|directory| exists(&directory.path))
            .collect();
        // Joined first and looked into for processes: who puts one into all trees may be killed in between.
        let tracker = hierarchy.v1_tracker().map(|mount| &mount.controllers);
        v1.sort_by_key(|directory| Some(&directory.controllers) != tracker);
        let found = unified.is_some() || !v1.is_empty();
        Ok(found.then(|| Self { unified, v1, ..Self::unmade(hierarchy, place) }))
    }

    /// Puts the device rules of `limits` into force, where there is a tree of version 2; on version 1 alone they are already.
    pub fn limit_devices(&self, limits: &Limits) -> Result<()> {
        match &self.unified {
            Some(unified) if !limits.devices.is_empty() => limit_devices(unified, limits),
            _ => Ok(()),
        }
    }

    /// The group's directory of version 2, to give to clone3(2) with `CLONE_INTO_CGROUP`; none where there is only version 1.
    pub fn v2_directory(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|unified| unified.descriptor.as_fd())
    }

    /// Puts a process that was born into [`Group::v2_directory`] into the group's other trees: nothing to do on version 2.
    pub fn join(&self, pid: u32) -> Result<()> {
        self.v1.iter().try_for_each(|directory| enter(&directory.path, pid))
    }

    /// Puts a process that was born elsewhere into the group, in all trees.
    pub fn join_everywhere(&self, pid: u32) -> Result<()> {
        if let Some(unified) = &self.unified {
            match (enter(&unified.path, pid), &self.unit) {
                // From a login's session only systemd may move a user's process below that user's systemd.
                (Err(Error::Join { source, .. }), Some(unit)) if source.errno() == Errno::ACCESS => {
                    unit.attach(pid)?;
                }
                (entered, _) => entered?,
            }
        }
        self.join(pid)
    }

    /// Changes the limits of a group that has processes. What is not given stays; device rules replace those there are.
    pub fn update(&mut self, limits: &Limits) -> Result<()> {
        let hierarchy = self.hierarchy.clone();
        let mut settings = setting::settings(&hierarchy, limits)?;
        self.check_usage(limits)?;
        if let Some(unit) = &self.unit {
            unit.change(limits)?;
        }
        self.enable(&controllers_of(&settings, &hierarchy, Version::V2))?;
        let entered = self.v1.len();
        self.make_v1(&settings, false)?;
        self.order_for_update(&mut settings)?;
        if self.unified.is_some() || limits.devices.is_empty() {
            self.apply(&settings)?;
        } else {
            // Lists are replaced line by line, beginning with nothing: no process shall be refused what it has before and after.
            self.while_frozen(|| self.apply(&settings))?;
        }
        self.replace_devices(limits)?;
        let Some(new) = self.v1.get(entered..) else { return Ok(()) };
        // A tree that the group was not in until now: its processes come after, until none is left outside.
        for directory in new {
            crate::processes::move_all(self, directory)?;
        }
        Ok(())
    }

    /// Refuses limits that the group is beyond already, if that was asked for; version 1 does so by itself.
    fn check_usage(&self, limits: &Limits) -> Result<()> {
        let memory = &limits.memory;
        let Some((directory, Version::V2)) =
            self.directory_of("memory").filter(|_| memory.check_before_update)
        else {
            return Ok(());
        };
        let usage = match read(&directory.join("memory.current")) {
            // Nothing was limited until now, so nothing is known.
            Err(Error::Read { errno: Errno::NOENT, .. }) => return Ok(()),
            other => other?.trim().parse::<u64>().unwrap_or(0),
        };
        for (what, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
            if let Some(limit) = limit.filter(|limit| *limit > 0 && limit.unsigned_abs() <= usage) {
                return Err(Error::BelowUsage { what, limit, usage });
            }
        }
        Ok(())
    }

    /// Puts device rules into the place of those that [`Group::limit_devices`] or an earlier update made. In between both hold, so that
    /// nothing is allowed that neither allows.
    fn replace_devices(&self, limits: &Limits) -> Result<()> {
        let Some(unified) = self.unified.as_ref().filter(|_| !limits.devices.is_empty()) else {
            return Ok(());
        };
        let name = unified.path.display().to_string();
        let group = unified.descriptor.as_fd();
        let failed = |source| devices_failed(limits, source);
        let old = kernel::bpf::own_device_programs(group, &name).map_err(failed)?;
        limit_devices(unified, limits)?;
        because(
            Chapter::Limits,
            "a device must be allowed by each program of its group, so the one before goes",
        );
        old.iter()
            .try_for_each(|program| kernel::bpf::detach_device_program(group, program.as_fd(), &name))
            .map_err(failed)
    }

    /// Removes the group and the groups that its processes made below it, after [`Group::kill`].
    ///
    /// # Errors
    /// [`Error::InUse`] if it still has processes. A group that is gone is no error.
    pub fn remove(&self) -> Result<()> {
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        because(Chapter::CleanUp, "a group without processes is only a directory, and goes as one");
        for directory in self.directories() {
            self.remove_tree(directory)?;
        }
        if self.place.has_usual_parent() {
            because(
                Chapter::CleanUp,
                "the groups' common parent goes with the last of them; while it has others the kernel keeps it",
            );
            for directory in self.directories().filter_map(Path::parent) {
                let _ = remove_directory(directory);
            }
        }
        Ok(())
    }

    /// Every directory of the group, in all trees.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        let unified = self.unified.iter().map(|unified| unified.path.as_path());
        self.v1.iter().map(|directory| directory.path.as_path()).chain(unified)
    }

    /// The directory with a controller's files, if the group is in that controller's tree.
    pub(crate) fn directory_of(&self, controller: &str) -> Option<(&Path, Version)> {
        if let Some(mount) = self.hierarchy.v1_with(controller) {
            let own = self.v1.iter().find(|directory| directory.controllers == mount.controllers);
            return own.map(|directory| (directory.path.as_path(), Version::V1));
        }
        self.unified.as_ref().map(|unified| (unified.path.as_path(), Version::V2))
    }

    /// The directory whose list of processes is the group's.
    pub(crate) fn tracker(&self) -> &Path {
        self.unified
            .as_ref()
            .map(|unified| unified.path.as_path())
            .or(self.v1.first().map(|first| first.path.as_path()))
            .unwrap_or(Path::new("/"))
    }

    fn make(&mut self, settings: &[Setting]) -> Result<()> {
        self.make_unified(settings)?;
        self.make_v1(settings, true)?;
        self.apply(settings)
    }

    fn make_unified(&mut self, settings: &[Setting]) -> Result<()> {
        let Some(mount) = self.hierarchy.unified().cloned() else { return Ok(()) };
        let wanted = controllers_of(settings, &self.hierarchy, Version::V2);
        for attempt in 1.. {
            let made = self.enable(&wanted).and_then(|()| self.make_in(&mount));
            match made {
                Ok(path) => {
                    self.unified = Some(Unified::open(path)?);
                    // Another container's end may have removed the parent in between, and a new one hands nothing down. With a
                    // group in it, it stays.
                    self.enable(&wanted)?;
                    // systemd hands down what it knows.
                    if self.everywhere && self.unit.is_none() {
                        self.enable_all(&mount)?;
                    }
                    break;
                }
                Err(error) if attempt < ATTEMPTS && is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the group's directories in those trees of version 1 that the settings need, and on a machine with nothing else in the
    /// one that tracks processes. For a runtime, in all that can be written.
    fn make_v1(&mut self, settings: &[Setting], new: bool) -> Result<()> {
        let hierarchy = self.hierarchy.clone();
        let tracker = hierarchy.v1_tracker().filter(|_| new && hierarchy.unified().is_none());
        let wanted = settings
            .iter()
            .filter_map(|setting| Some((hierarchy.v1_with(setting.controller)?, setting.option)));
        let is_there = |mount: &&Mount| new && self.everywhere && is_writable(&self.place.base_in(mount));
        let all: Vec<&Mount> = hierarchy.v1().iter().filter(is_there).collect();
        let implied = tracker.into_iter().chain(all).map(|mount| (mount, "--cgroup-parent"));
        for (mount, option) in implied.chain(wanted) {
            if self.v1.iter().any(|directory| directory.controllers == mount.controllers) {
                continue;
            }
            // Version 2 may have been delegated to us alone.
            if !exists(&self.place.base_in(mount)) {
                let reason = "systemd makes no groups in that controller's tree";
                let is_systemds = is_systemd() && !is_user();
                return Err(match is_systemds {
                    true => Error::NotInV1 { option, reason },
                    false => no_delegation(option, &hierarchy),
                });
            }
            let path = self.make_in_v1(mount).map_err(|error| not_delegated(error, option, &hierarchy))?;
            self.v1.push(V1Directory { path, controllers: mount.controllers.clone() });
            if mount.controllers.iter().any(|controller| controller == "cpuset") {
                self.fill_cpusets(mount)?;
            }
        }
        Ok(())
    }

    fn make_in_v1(&mut self, mount: &Mount) -> Result<PathBuf> {
        let mut attempt = 1;
        loop {
            match self.make_in(mount) {
                Err(error) if attempt < ATTEMPTS && is_gone(&error) => attempt += 1,
                other => return other,
            }
        }
    }

    /// Makes the group's directory in one tree, and those above it that are missing.
    fn make_in(&mut self, mount: &Mount) -> Result<PathBuf> {
        self.make_parents(mount)?;
        let path = self.place.in_tree(mount);
        because(
            Chapter::Limits,
            "a directory in this tree is a group: what is written to its files holds for its processes",
        );
        match make_directory(&path) {
            Ok(()) => {
                self.made.push(path.clone());
                Ok(path)
            }
            Err(error) if error.errno() == Errno::EXIST && self.everywhere => Ok(path),
            Err(error) if error.errno() == Errno::EXIST => Err(Error::Exists { path }),
            Err(error) => Err(Error::Make(error)),
        }
    }

    fn make_parents(&mut self, mount: &Mount) -> Result<()> {
        let parents = self.parents(mount);
        // The last one is there only if all are.
        if parents.last().is_none_or(|last| exists(last)) {
            return Ok(());
        }
        because(Chapter::Limits, "the groups of all containers stand in one, apart from everything else");
        for parent in parents.into_iter().skip_while(|parent| exists(parent)) {
            match make_directory(&parent) {
                Ok(()) => self.made.push(parent),
                Err(error) if error.errno() == Errno::EXIST => {}
                Err(error) => return Err(Error::Make(error)),
            }
        }
        Ok(())
    }

    /// The directories between the group we were given and the container's, topmost first.
    fn parents(&self, mount: &Mount) -> Vec<PathBuf> {
        let base = self.place.base_in(mount);
        let mut parents: Vec<PathBuf> = self
            .place
            .below
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
            .map(|parent| base.join(parent))
            .collect();
        parents.reverse();
        parents
    }

    /// Has the group's parents hand these controllers down, so that the group gets their files.
    fn enable(&mut self, wanted: &[(&'static str, &'static str)]) -> Result<()> {
        let Some(mount) = self.hierarchy.unified().filter(|_| !wanted.is_empty()).cloned() else {
            return Ok(());
        };
        let base = self.place.base_in(&mount);
        let available = read(&base.join("cgroup.controllers"))?;
        for (controller, option) in wanted {
            if !available.split_whitespace().any(|name| name == *controller) {
                let delegated = !self.place.base.as_os_str().is_empty();
                return Err(Error::NoController { option, controller, directory: base, delegated });
            }
        }
        self.make_parents(&mount)?;
        for directory in [base.clone()].into_iter().chain(self.parents(&mount)) {
            hand_down(&directory, wanted, directory == base && !self.place.base.as_os_str().is_empty())?;
        }
        Ok(())
    }

    /// Has the group's parents hand down every controller that they have, so that it is counted. What cannot be handed down is left.
    fn enable_all(&self, mount: &Mount) -> Result<()> {
        for directory in [self.place.base_in(mount)].into_iter().chain(self.parents(mount)) {
            hand_down_all(&directory)?;
        }
        Ok(())
    }

    /// Version 1 gives new cpusets no processors and no memory, and lets no process into one without.
    fn fill_cpusets(&self, mount: &Mount) -> Result<()> {
        because(
            Chapter::Limits,
            "a new cpuset of version 1 is empty, and no process can enter it before it has processors and memory",
        );
        for directory in self.parents(mount).into_iter().chain([self.place.in_tree(mount)]) {
            let Some(parent) = directory.parent() else { continue };
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if read(&directory.join(file))?.trim().is_empty() {
                    let value = read(&parent.join(file))?.trim().to_owned();
                    write_control(&directory.join(file), &value).map_err(|source| Error::Set {
                        option: "--cpuset-cpus",
                        value,
                        source,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// In version 1 memory and swap together may at no moment be less than memory: what grows goes first.
    fn order_for_update(&self, settings: &mut [Setting]) -> Result<()> {
        let position = |file: &str| settings.iter().position(|setting| setting.files[0] == file);
        let (Some(limit), Some(both)) =
            (position("memory.limit_in_bytes"), position("memory.memsw.limit_in_bytes"))
        else {
            return Ok(());
        };
        let Some((directory, _)) = self.directory_of("memory") else { return Ok(()) };
        let current = match read(&directory.join("memory.memsw.limit_in_bytes")) {
            Err(Error::Read { errno: Errno::NOENT, .. }) => return Ok(()),
            other => other?,
        };
        let number =
            |text: &str| text.trim().parse::<i64>().ok().filter(|value| *value >= 0).unwrap_or(i64::MAX);
        if number(&settings[both].values[0]) > number(&current) {
            settings.swap(limit, both);
        }
        Ok(())
    }

    /// Writes all settings. Those of `cpu` depend on each other (a burst fits its quota, an idle group takes no weight), which way round
    /// depends on the values there were: what is refused is tried again after the others, as long as that helps.
    fn apply(&self, settings: &[Setting]) -> Result<()> {
        let mut left: Vec<&Setting> = settings.iter().collect();
        loop {
            let tried = left.len();
            let mut refused = Vec::new();
            let mut first = None;
            for setting in left {
                match self.apply_one(setting) {
                    Err(error) if setting.controller == "cpu" && is_invalid(&error) => {
                        refused.push(setting);
                        first.get_or_insert(error);
                    }
                    other => other?,
                }
            }
            match first {
                None => return Ok(()),
                Some(error) if refused.len() == tried => return Err(error),
                Some(_) => left = refused,
            }
        }
    }

    fn apply_one(&self, setting: &Setting) -> Result<()> {
        let option = setting.option;
        let Some((directory, _)) = self.directory_of(setting.controller) else {
            let directory = self.tracker().to_owned();
            return Err(Error::NoController {
                option,
                controller: setting.controller,
                directory,
                delegated: false,
            });
        };
        because(Chapter::Limits, setting.why);
        for (at, file) in setting.files.iter().enumerate() {
            let Some(value) = setting.values.get(at).or(setting.values.first()) else { continue };
            match write_control(&directory.join(file), value) {
                Err(error) if error.errno() == Errno::NOENT => {}
                Err(error) if error.errno() == Errno::BUSY && file == "memory.limit_in_bytes" => {
                    let number =
                        |file| Ok::<_, Error>(read(&directory.join(file))?.trim().parse().unwrap_or(0));
                    let (usage, peak) =
                        (number("memory.usage_in_bytes")?, number("memory.max_usage_in_bytes")?);
                    return Err(Error::MemoryInUse { limit: value.clone(), usage, peak });
                }
                other => return other.map_err(|source| Error::Set { option, value: value.clone(), source }),
            }
        }
        match setting.files.last() {
            Some(file) if !setting.optional => Err(Error::NotOffered { option, file: directory.join(file) }),
            _ => Ok(()),
        }
    }

    fn remove_tree(&self, directory: &Path) -> Result<()> {
        match remove_directory(directory) {
            Err(error) if error.errno() == Errno::BUSY => {}
            Err(error) if error.errno() != Errno::NOENT => return Err(Error::Remove(error)),
            _ => return Ok(()),
        }
        for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.remove_tree(&entry.path())?;
            }
        }
        let processes = crate::processes::of(directory)?;
        if !processes.is_empty() {
            return Err(Error::InUse { path: directory.to_owned(), processes });
        }
        match remove_directory(directory) {
            Err(error) if error.errno() != Errno::NOENT => Err(Error::Remove(error)),
            _ => Ok(()),
        }
    }
}

impl Unified {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        match rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(descriptor) => Ok(Self { path, descriptor }),
            Err(errno) => Err(Error::Read { path, errno }),
        }
    }
}

/// What happens where no group can be made: without limits there is none, with one it is said that it cannot hold.
fn refuse_or_none(
    hierarchy: &Hierarchy,
    settings: &[Setting],
    limits: &Limits,
    with_parent: bool,
    refusal: Option<Refusal>,
) -> Result<Option<Group>> {
    let devices = (!limits.devices.is_empty()).then_some("device rules");
    let first = settings.iter().find(|setting| !setting.optional).map(|setting| setting.option);
    match (first.or(devices).or(with_parent.then_some("--cgroup-parent")), refusal) {
        (None, _) => Ok(None),
        (Some(option), None) => Err(no_delegation(option, hierarchy)),
        (Some(option), Some(source)) => Err(Error::NoScope { option, user: is_user(), source }),
    }
}

fn is_user() -> bool {
    !rustix::process::geteuid().is_root()
}

fn no_delegation(option: &'static str, hierarchy: &Hierarchy) -> Error {
    let user = is_user();
    let v2 = matches!(hierarchy, Hierarchy::V2 { .. });
    Error::NotDelegated { option, systemd: is_systemd(), user, v2 }
}

/// A refusal by the file system means that the tree is not ours.
fn not_delegated(error: Error, option: &'static str, hierarchy: &Hierarchy) -> Error {
    match &error {
        Error::Make(source) if matches!(source.errno(), Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            no_delegation(option, hierarchy)
        }
        _ => error,
    }
}

fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Set { source, .. } if source.errno() == Errno::INVAL)
}

/// Whether a parent was removed by another process while we were at it.
fn is_gone(error: &Error) -> bool {
    let errno = match error {
        Error::Make(source) | Error::Set { source, .. } => source.errno(),
        Error::Read { errno, .. } => *errno,
        _ => return false,
    };
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

/// The controllers of one version that the settings are about, each with the first option that needs it.
fn controllers_of(
    settings: &[Setting],
    hierarchy: &Hierarchy,
    version: Version,
) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&'static str, &'static str)> = Vec::new();
    for setting in settings {
        let of_version = !setting.controller.is_empty() && hierarchy.version(setting.controller) == version;
        if of_version && !found.iter().any(|(controller, _)| *controller == setting.controller) {
            found.push((setting.controller, setting.option));
        }
    }
    found
}

/// Enables controllers for the groups below a directory; `ours` if it was delegated to us with the processes in it.
fn hand_down(directory: &Path, wanted: &[(&'static str, &'static str)], ours: bool) -> Result<()> {
    let file = directory.join("cgroup.subtree_control");
    let enabled = read(&file)?;
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(controller, _)| !enabled.split_whitespace().any(|name| name == *controller))
        .map(|(controller, _)| format!("+{controller}"))
        .collect();
    let Some((_, option)) = wanted.first().filter(|_| !missing.is_empty()) else { return Ok(()) };
    if has_own_processes(directory)? {
        if !ours {
            return Err(Error::Occupied { directory: directory.to_owned() });
        }
        crate::processes::move_aside(directory)?;
    }
    let value = missing.join(" ");
    because(
        Chapter::Limits,
        "a group has a controller's files only if each group above it hands the controller down",
    );
    write_control(&file, &value).map_err(|source| match source.errno() {
        // Somebody entered it just now.
        Errno::BUSY | Errno::OPNOTSUPP => Error::Occupied { directory: directory.to_owned() },
        _ => Error::Set { option, value, source },
    })
}

/// Enables all controllers that there are for the groups below a directory, as far as the kernel lets us.
fn hand_down_all(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.subtree_control");
    let (available, enabled) = (read(&directory.join("cgroup.controllers"))?, read(&file)?);
    let is_missing = |name: &&str| !enabled.split_whitespace().any(|other| other == *name);
    let missing: Vec<String> =
        available.split_whitespace().filter(is_missing).map(|name| format!("+{name}")).collect();
    if missing.is_empty() || has_own_processes(directory)? {
        return Ok(());
    }
    because(
        Chapter::Limits,
        "whoever asks for the container's statistics finds those of every controller that the kernel has",
    );
    if write_control(&file, &missing.join(" ")).is_err() {
        // One that is in use elsewhere, as the realtime scheduler can be, shall not take the others away.
        for one in missing {
            let _ = write_control(&file, &one);
        }
    }
    Ok(())
}

/// Whether a group that is no tree's root has processes of its own. The kernel refuses to enable most controllers then; with the
/// others (pids, cpu, cpuset) it does worse: it takes the group for one of threads, and no process can enter those below.
fn has_own_processes(directory: &Path) -> Result<bool> {
    Ok(exists(&directory.join("cgroup.type")) && !read(&directory.join("cgroup.procs"))?.is_empty())
}

fn devices_failed(limits: &Limits, source: kernel::Error) -> Error {
    Error::Set { option: "device rules", value: format!("{} rules", limits.devices.len()), source }
}

fn limit_devices(unified: &Unified, limits: &Limits) -> Result<()> {
    because(
        Chapter::Limits,
        "the kernel asks this program at every mknod and open of a device; the file's mode alone would let root use any disk",
    );
    let failed = |source| devices_failed(limits, source);
    let program = kernel::bpf::load_device_program(&devices::program(&limits.devices)?).map_err(failed)?;
    let name = unified.path.display().to_string();
    kernel::bpf::attach_device_program(unified.descriptor.as_fd(), program.as_fd(), &name).map_err(failed)
}

fn exists(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}

fn enter(directory: &Path, pid: u32) -> Result<()> {
    because(Chapter::Limits, "from here on this process and all its children count in this group");
    enter_directory(directory, pid)
}

/// Puts a process into a group, for the reason given last.
pub(crate) fn enter_directory(directory: &Path, pid: u32) -> Result<()> {
    write_control(&directory.join("cgroup.procs"), &pid.to_string())
        .map_err(|source| Error::Join { pid, source })
}
