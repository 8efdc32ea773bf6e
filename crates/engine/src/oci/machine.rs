//! What a configuration depends on beyond what was asked: facts of the machine and of the user.

use std::path::PathBuf;

use runtime::spec::Device;

use super::{devices, ids};
use crate::error::Result;
use crate::spec::{Choice, Spec};

/// The facts. What is not needed for the container asked for is left empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    /// Who asks.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The machine's own name.
    pub hostname: String,
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Ranges of user ids that are this user's to map: first id and count.
    pub subordinate_uids: Vec<(u32, u32)>,
    /// The same for groups.
    pub subordinate_gids: Vec<(u32, u32)>,
    /// Whether newuidmap and newgidmap are here.
    pub has_map_helpers: bool,
    /// What each processor tells about its temperature.
    pub thermal_throttles: Vec<PathBuf>,
    /// Whether the host shows its message queues at /dev/mqueue.
    pub shows_queues: bool,
    /// All device nodes.
    pub devices: Vec<Device>,
}

impl Machine {
    /// Looks at this machine.
    pub fn look(spec: &Spec) -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let system = rustix::system::uname();
        let mut machine = Self {
            uid,
            gid: rustix::process::getegid().as_raw(),
            hostname: system.nodename().to_string_lossy().into_owned(),
            // A machine may well have neither.
            hosts: fs_err::read_to_string("/etc/hosts").unwrap_or_default(),
            resolv_conf: fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            thermal_throttles: thermal_throttles(),
            shows_queues: std::path::Path::new("/dev/mqueue").exists(),
            ..Self::default()
        };
        if uid != 0 || spec.isolation.user == Choice::Private {
            machine.subordinate_uids = ids::ranges("/etc/subuid", uid);
            machine.subordinate_gids = ids::ranges("/etc/subgid", uid);
            machine.has_map_helpers = ids::has_map_helpers();
        }
        if spec.powers.privileged {
            machine.devices = devices::nodes_of("/dev".as_ref(), "/dev".as_ref())?;
        }
        Ok(machine)
    }
}

fn thermal_throttles() -> Vec<PathBuf> {
    let of = |number| PathBuf::from(format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle"));
    let is_here = |path: &PathBuf| path.parent().is_some_and(std::path::Path::exists);
    (0..).map(of).take_while(is_here).filter(|path| path.exists()).collect()
}
