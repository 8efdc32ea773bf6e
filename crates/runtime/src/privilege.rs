//! Giving privileges up, in the one order that works.

use kernel::identity::{self, CapabilitySets};
use kernel::record::{Chapter, because};

use crate::capability::{CAPABILITIES, capability_set};
use crate::error::{Error, InStep as _, Result};
use crate::spec::{Capabilities, User};

/// The container's sets as bits, less what this process does not have to give: a specification may list more than a nested or
/// restricted starter holds, and runc ignores those too.
#[derive(Debug, Clone, Copy)]
pub struct Sets {
    bounding: u64,
    permitted: u64,
    effective: u64,
    inheritable: u64,
    ambient: u64,
}

impl Sets {
    /// From the names of a specification; none keeps all that this process has.
    pub fn new(capabilities: Option<&Capabilities>) -> Result<Self> {
        let held = identity::capabilities().in_step("cannot read this process's capabilities")?.permitted;
        let Some(named) = capabilities else {
            let all = u64::MAX;
            return Ok(Self { bounding: all, permitted: held, effective: held, inheritable: 0, ambient: 0 });
        };
        // Names that this version does not know are in no set, and told when the configuration is checked.
        let set_of = |names: &[String]| capability_set(names.iter().map(String::as_str));
        Ok(Self {
            bounding: set_of(&named.bounding),
            permitted: set_of(&named.permitted) & held,
            effective: set_of(&named.effective) & held,
            inheritable: set_of(&named.inheritable) & held,
            ambient: set_of(&named.ambient) & held,
        })
    }

    /// The bounding set, which is what the seccomp profile is chosen by.
    pub fn bounding(&self) -> u64 {
        self.bounding
    }
}

/// Drops what the container may never get back: bounding set first, while CAP_SETPCAP is still held.
pub fn drop_bounding(sets: &Sets) -> Result<()> {
    because(
        Chapter::Process,
        "a capability outside the bounding set can never be had again, whatever is executed",
    );
    for number in 0..64 {
        let keep = sets.bounding & (1 << number) != 0;
        if !identity::in_bounding(number) {
            if number as usize >= CAPABILITIES.len() {
                break;
            }
            continue;
        }
        if !keep {
            identity::drop_bounding(number).in_step("cannot drop capabilities")?;
        }
    }
    Ok(())
}

/// Becomes the user, keeping the permitted set across the change so that [`set`] can cut it to size.
pub fn become_user(user: &User, set_groups: bool) -> Result<()> {
    const STEP: &str = "cannot become the container's user";
    because(Chapter::Process, "the process takes the user and groups it was asked to run as");
    identity::keep_capabilities(true).in_step(STEP)?;
    if set_groups {
        identity::set_supplementary_groups(&user.additional_gids).in_step(STEP)?;
    } else if let Some(id) = user.additional_gids.iter().find(|id| **id != user.gid) {
        return Err(Error::UnmappedId { kind: "group", id: *id });
    }
    let unmapped = |kind, id| {
        move |source: kernel::Error| match source.errno() {
            rustix::io::Errno::INVAL => Error::UnmappedId { kind, id },
            _ => Error::Step { step: STEP, source },
        }
    };
    identity::set_group(user.gid).map_err(unmapped("group", user.gid))?;
    identity::set_user(user.uid).map_err(unmapped("user", user.uid))?;
    identity::keep_capabilities(false).in_step(STEP)
}

/// Cuts the capability sets to what the container gets.
pub fn set(sets: &Sets) -> Result<()> {
    const STEP: &str = "cannot set the container's capabilities";
    because(Chapter::Process, "of root's powers the process keeps only these");
    let kept = CapabilitySets {
        effective: sets.effective & sets.permitted,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
    };
    identity::set_capabilities(kept).in_step(STEP)?;
    // One that is not inheritable cannot be ambient: configurations ask for it all the same (`runc spec` does), and get none.
    let ambient = sets.ambient & sets.permitted & sets.inheritable;
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        identity::raise_ambient(number).in_step(STEP)?;
    }
    Ok(())
}
