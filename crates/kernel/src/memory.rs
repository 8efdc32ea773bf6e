//! Where a process's memory comes from on a machine with several nodes: numa(7).

#![allow(unsafe_code)]

use crate::raw::check;
use crate::record::{Arg, act};
use crate::scheduling::bit_mask;
use crate::{Error, Result};

/// `set_mempolicy(mode, nodemask, maxnode)`: the policy of this thread and of all it starts, execve included. See set_mempolicy(2).
///
/// `mode` is one of `MPOL_…`, or-ed with `MPOL_F_…`. `name` is shown. Nodes that the process may not use, and those given to a mode that
/// takes none, are `EINVAL`; so is a mode that this kernel does not know.
pub fn set_policy(mode: u32, name: &str, nodes: &[u32]) -> Result<()> {
    let mask = bit_mask(nodes);
    // The kernel reads one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { mask.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { mask.as_ptr() };
    let args = || {
        let list = nodes.iter().map(u32::to_string).collect();
        vec![Arg::Flags(mode.into(), name.to_owned()), Arg::List(list), Arg::Int(bits as i64)]
    };
    let set = || {
        // SAFETY: the pointer is null with length 0, or to a live slice that holds that many bits less one, which is what is read.
        check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
    };
    act("set_mempolicy", args, |_| 0, set)
        .map_err(|errno| Error::new("set_mempolicy", format!("{name} of nodes {nodes:?}"), errno))?;
    Ok(())
}
