//! Control groups: limits, statistics, freeze and kill of a group, the same on v2, hybrid and v1.
//!
//! A container gets one group, `coracle/<id>`, directly below the hierarchy's root or below the group that was
//! delegated to the user; never below the group of whoever called. A limit is enforced or refused, never dropped:
//! [`table_markdown`] says which is which.
//!
//! ```no_run
//! use cgroup::{Group, Hierarchy, Limits};
//!
//! let hierarchy = Hierarchy::detect()?;
//! let limits = Limits { pids: Some(20), ..Limits::default() };
//! if let Some(group) = Group::create(&hierarchy, None, "example", &limits)? {
//!     // clone3 with group.v2_directory(), then:
//!     group.join(1234)?;
//!     group.kill()?;
//!     group.remove()?;
//! }
//! # Ok::<(), cgroup::Error>(())
//! ```
//!
//! Every write goes through the crate `kernel` and is recorded with a sentence on why. Where systemd is pid 1, it
//! writes only inside a scope that systemd delegated: [`Place::choose`] asks for one that holds all containers, [`Unit`] is one for a single
//! container as an OCI runtime with the systemd driver makes it, and nothing else here speaks to systemd.

#![forbid(unsafe_code)]

mod dbus;
mod detailed;
mod devices;
mod error;
mod group;
mod hierarchy;
mod limits;
mod place;
mod processes;
mod properties;
mod scope;
mod setting;
mod statistics;
mod subgroup;
mod table;
mod unit;

pub use detailed::{
    BlockIoUse, Counter, CpuUse, CpusetUse, Detailed, MemoryUse, PidsUse, Stall, Stalls, Transfer,
};
pub use devices::{Access, DeviceKind, DeviceRule};
pub use error::{Error, Result};
pub use group::{Description, Group};
pub use hierarchy::{Hierarchy, Mount};
pub use limits::{
    BlockIo, Cpu, DeviceRate, DeviceWeight, HugepageLimit, Limits, Memory, Network, NetworkPriority,
    RdmaLimit,
};
pub use place::{Choice, Place};
pub use scope::Refusal;
pub use statistics::{Pressure, Statistics};
pub use subgroup::Subgroup;
pub use table::table_markdown;
pub use unit::Unit;
