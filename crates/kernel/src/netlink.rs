//! Messages to the kernel's network stack: netlink(7), rtnetlink(7).

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::raw::check;
use crate::record::{self, Arg, act};
use crate::{Error, Result};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const RTM_NEWLINK: u16 = 16;
/// The loopback device is the first one of every network namespace.
const LOOPBACK_INDEX: i32 = 1;

/// Brings the loopback device of this network namespace up, by one RTM_NEWLINK message.
pub fn loopback_up() -> Result<()> {
    let failed = |errno| Error::new("sendto", "netlink: loopback device up", errno);
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket: OwnedFd =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let message = link_up(LOOPBACK_INDEX);
    let args = || {
        vec![
            Arg::Fd(socket.as_raw_fd(), "netlink route".to_owned()),
            link_up_fields(),
            Arg::Int(message.len() as i64),
            Arg::Int(0),
            Arg::Int(0),
            Arg::Int(0),
        ]
    };
    act(
        "sendto",
        args,
        |sent| *sent,
        || {
            // SAFETY: pointer and length describe one live array; no address is given, so the message goes to the kernel.
            check(unsafe {
                libc::syscall(libc::SYS_sendto, socket.as_raw_fd(), message.as_ptr(), message.len(), 0, 0, 0)
            })
        },
    )
    .map_err(failed)?;
    acknowledged(&socket).map_err(failed)
}

/// struct nlmsghdr and struct ifinfomsg that set IFF_UP on a device.
fn link_up(index: i32) -> [u8; 32] {
    let up = libc::IFF_UP as u32;
    let mut message = [0; 32];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &32_u32.to_ne_bytes());
    put(4, &RTM_NEWLINK.to_ne_bytes());
    put(6, &(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    put(20, &index.to_ne_bytes());
    put(24, &up.to_ne_bytes());
    put(28, &up.to_ne_bytes());
    message
}

/// The message of [`link_up`] for the record.
fn link_up_fields() -> Arg {
    record::numbers(&[
        ("nlmsg_len", 32),
        ("nlmsg_type", RTM_NEWLINK.into()),
        ("nlmsg_flags", (NLM_F_REQUEST | NLM_F_ACK).into()),
        ("nlmsg_seq", 0),
        ("nlmsg_pid", 0),
        ("ifi_family", 0),
        ("ifi_type", 0),
        ("ifi_index", LOOPBACK_INDEX as u64),
        ("ifi_flags", libc::IFF_UP as u64),
        ("ifi_change", libc::IFF_UP as u64),
    ])
}

/// Reads the kernel's answer: an NLMSG_ERROR whose number is 0 for success.
fn acknowledged(socket: &OwnedFd) -> std::result::Result<(), Errno> {
    let mut answer = [0_u8; 256];
    let (length, _) = recv(socket, &mut answer[..], RecvFlags::empty())?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    if length < 20 || kind != NLMSG_ERROR {
        return Err(Errno::BADMSG);
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(-code)),
    }
}
