//! Giving privileges up, in the one order that works.

use kernel::identity::{self, CapabilitySets};
use kernel::record::{Chapter, because};

use crate::capability::{self, CAPABILITIES};
use crate::error::{Error, InStep as _, Result};
use crate::request::Request;
use crate::spec::{Capabilities, User};

/// What a specification that another engine wrote means, which is not what coracle's own means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// No sets keep what this process has; an unknown name is an error, as a user typed it.
    Own,
    /// As runc reads it: no sets are empty ones; an unknown name gives nothing, of which the command line has warned.
    Runcs,
}

impl Reading {
    /// How a request's specification is to be read.
    pub fn of(request: &Request) -> Self {
        if request.oci.is_some() { Self::Runcs } else { Self::Own }
    }
}

/// The bits of a list of names, bit n for capability number n.
fn mask(names: &[String], reading: Reading) -> Result<u64> {
    names.iter().try_fold(0, |mask, name| match capability::number(name) {
        Some(number) => Ok(mask | 1 << number),
        None if reading == Reading::Runcs => Ok(mask),
        None => Err(Error::Configuration {
            what: "capability",
            value: name.clone(),
            reason: "not one that this version knows".to_owned(),
        }),
    })
}

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
    /// The sets of a process, by their names; `reading` says what it means that there are none.
    pub fn new(capabilities: Option<&Capabilities>, reading: Reading) -> Result<Self> {
        let held = identity::capabilities().in_step("cannot read this process's capabilities")?.permitted;
        let nothing = Capabilities::default();
        let named = match (capabilities, reading) {
            (Some(named), _) => named,
            (None, Reading::Runcs) => &nothing,
            (None, Reading::Own) => {
                let all = u64::MAX;
                return Ok(Self {
                    bounding: all,
                    permitted: held,
                    effective: held,
                    inheritable: 0,
                    ambient: 0,
                });
            }
        };
        let of = |names| mask(names, reading);
        Ok(Self {
            bounding: of(&named.bounding)?,
            permitted: of(&named.permitted)? & held,
            effective: of(&named.effective)? & held,
            inheritable: of(&named.inheritable)? & held,
            ambient: of(&named.ambient)? & held,
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

/// Gives up the groups of whoever started this, for those of the user.
fn set_groups_of(user: &User, may_set: bool) -> Result<()> {
    use rustix::io::Errno;
    let more = user.additional_gids.iter().find(|id| **id != user.gid).copied();
    if !may_set {
        return more.map_or(Ok(()), |id| Err(Error::NoMoreGroups { id }));
    }
    let Err(source) = identity::set_supplementary_groups(&user.additional_gids) else { return Ok(()) };
    match (source.errno(), more) {
        // A user namespace of another's making, where it was given up for the right to map groups: there is no way.
        (Errno::PERM, None) => Ok(()),
        (Errno::PERM, Some(id)) => Err(Error::NoMoreGroups { id }),
        (Errno::INVAL, _) => {
            let is_unmapped = |id: &&u32| identity::set_supplementary_groups(&[**id]).is_err();
            let id = user.additional_gids.iter().find(is_unmapped).copied().unwrap_or(user.gid);
            Err(Error::UnmappedId { kind: "group", id })
        }
        _ => Err(Error::Step { step: STEP, source }),
    }
}

const STEP: &str = "cannot become the container's user";

/// Becomes the user, keeping the permitted set across the change so that [`set`] can cut it to size.
pub fn become_user(user: &User, set_groups: bool) -> Result<()> {
    because(Chapter::Process, "the process takes the user and groups it was asked to run as");
    identity::keep_capabilities(true).in_step(STEP)?;
    set_groups_of(user, set_groups)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(names: &[&str], reading: Reading) -> Result<Sets> {
        let bounding = names.iter().map(|name| (*name).to_owned()).collect();
        Sets::new(Some(&Capabilities { bounding, ..Capabilities::default() }), reading)
    }

    #[test]
    fn no_sets_are_empty_to_runc_and_everything_to_our_own_engine() {
        let none = Sets::new(None, Reading::Runcs).unwrap();
        assert_eq!((none.bounding, none.permitted, none.effective), (0, 0, 0));
        assert_eq!(Sets::new(None, Reading::Own).unwrap().bounding, u64::MAX);
    }

    #[test]
    fn an_unknown_name_gives_nothing_where_another_engine_wrote_it() {
        assert_eq!(bits(&["CAP_KILL", "CAP_NOPE"], Reading::Runcs).unwrap().bounding, 1 << 5);
        let told = bits(&["CAP_KILL", "CAP_NOPE"], Reading::Own).unwrap_err().to_string();
        assert!(told.contains("CAP_NOPE"), "{told}");
    }
}
