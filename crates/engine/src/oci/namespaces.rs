//! Which namespaces a container gets: new ones, another container's, or the host's.

use std::path::PathBuf;

use runtime::spec::{Namespace, NamespaceKind};

use super::Places;
use super::ids::{self, Maps};
use super::machine::Machine;
use crate::error::Result;
use crate::options::unsupported;
use crate::spec::{Choice, Isolation, Spec};

/// The namespaces, and what mounts need to know of them.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Those that are not the host's.
    pub namespaces: Vec<Namespace>,
    /// The maps of a new user namespace.
    pub ids: Maps,
    /// A user namespace may mount the kernel's file systems only for other namespaces that belong to it.
    pub may_mount_proc: bool,
    /// The same for `/sys`, which shows the network namespace's devices.
    pub may_mount_sys: bool,
    /// The same for POSIX message queues.
    pub may_mount_queues: bool,
    /// Whether the network namespace is new.
    pub has_own_network: bool,
}

impl Plan {
    pub fn new(spec: &Spec, machine: &Machine, places: &Places<'_>) -> Result<Self> {
        let isolation = &spec.isolation;
        let user = user_namespace(isolation, machine)?;
        let mut wanted = vec![
            (NamespaceKind::User, &user),
            (NamespaceKind::Pid, &isolation.pid),
            (NamespaceKind::Network, &isolation.network),
            (NamespaceKind::Ipc, &isolation.ipc),
            (NamespaceKind::Uts, &isolation.uts),
            (NamespaceKind::Mount, &Choice::Private),
            (NamespaceKind::Cgroup, &isolation.cgroup),
        ];
        if !isolation.time_offsets.is_empty() {
            wanted.push((NamespaceKind::Time, &Choice::Private));
        }
        let namespaces = wanted.into_iter().filter_map(|(kind, choice)| namespace(kind, choice, places));
        let ids = match &user {
            Choice::Private => ids::maps(isolation, machine)?,
            // The other container belongs to the same user, who has only one way to map ids. What this one leaves behind is
            // removed through such a map when the other is gone.
            Choice::Container(_) => ids::maps(&Isolation::default(), machine)?,
            _ => Maps::default(),
        };
        let may_mount = |choice: &Choice| match (&user, choice) {
            (Choice::Host, _) | (_, Choice::Private | Choice::Default) => true,
            (Choice::Container(name), Choice::Container(other)) => name == other,
            _ => false,
        };
        Ok(Self {
            may_mount_proc: may_mount(&isolation.pid),
            may_mount_sys: may_mount(&isolation.network),
            may_mount_queues: may_mount(&isolation.ipc),
            has_own_network: matches!(isolation.network, Choice::Private | Choice::Default),
            namespaces: namespaces.collect::<Result<_>>()?,
            ids,
        })
    }

    /// Whether a group has a number inside.
    pub fn has_group(&self, gid: u32) -> bool {
        let maps = &self.ids.gids;
        maps.is_empty() || maps.iter().any(|map| gid >= map.container_id && gid - map.container_id < map.size)
    }
}

/// The user namespace, never [`Choice::Default`].
///
/// An ordinary user cannot do without: only in one may it make the others, and it may share another container's only from within that
/// container's.
fn user_namespace(isolation: &Isolation, machine: &Machine) -> Result<Choice> {
    let is_root = machine.uid == 0;
    let shared = [&isolation.network, &isolation.ipc, &isolation.pid];
    let joined = shared.into_iter().find(|choice| matches!(choice, Choice::Container(_)));
    match (&isolation.user, joined) {
        (Choice::Host, _) if !is_root => {
            let reason = "an ordinary user may make the other namespaces only inside a user namespace";
            Err(unsupported("--userns", "host", reason, Some("leave it out, or run as root")).into())
        }
        (Choice::Default, _) if is_root => Ok(Choice::Host),
        (Choice::Default, Some(joined)) => Ok(joined.clone()),
        (Choice::Default, None) => Ok(Choice::Private),
        (choice, _) => Ok(choice.clone()),
    }
}

fn namespace(kind: NamespaceKind, choice: &Choice, places: &Places<'_>) -> Option<Result<Namespace>> {
    let name = match choice {
        Choice::Host => return None,
        Choice::Private | Choice::Default => return Some(Ok(Namespace { kind, path: None })),
        Choice::Container(name) => name,
    };
    let path = |pid| PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file_name()));
    Some((places.joined)(name).map(|pid| Namespace { kind, path: Some(path(pid)) }))
}
