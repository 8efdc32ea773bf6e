//! Messages to the kernel's network stack: netlink(7), rtnetlink(7).

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::raw::check;
use crate::record::{self, Arg, act};
use crate::{Error, Result};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const RTM_NEWLINK: u16 = 16;
/// The loopback device is the first one of every network namespace.
const LOOPBACK_INDEX: i32 = 1;

const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCLUSIVE: u16 = 0x600;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// The length of struct nlmsghdr.
const HEADER: usize = 16;

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

/// The devices and addresses of one network namespace: the one that the process was in when this was opened.
#[derive(Debug)]
pub struct Route {
    socket: OwnedFd,
}

/// An address of a device, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix_length: u8,
    scope: u8,
    flags: u32,
    /// Type and value of struct rtattr, without the flags and what is known of the address's age.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Whether it was set by somebody, to stay: not one that the network gave for a time.
    pub fn is_permanent(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0
    }

    /// Whether it is valid everywhere (`RT_SCOPE_UNIVERSE`), not on this link or machine only.
    pub fn is_global(&self) -> bool {
        self.scope == 0
    }
}

impl Route {
    /// `socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)`, in this process's network namespace.
    pub fn open() -> Result<Self> {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map(|socket| Self { socket })
            .map_err(|errno| Error::new("socket", "netlink route", errno))
    }

    /// A device's number by its name; none if there is no such device.
    pub fn index_of(&self, name: &str) -> Result<Option<u32>> {
        match rustix::net::netdevice::name_to_index(&self.socket, name) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::new("ioctl", name, errno)),
        }
    }

    /// All addresses of a device, by one RTM_GETADDR dump.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let failed = |errno| Error::new("netlink", format!("addresses of device {index}"), errno);
        // struct ifaddrmsg of zeroes is all families; the device is picked here, as older kernels do not.
        let request = message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0; 8], &[]);
        send(&self.socket, &request, SendFlags::empty()).map_err(failed)?;
        let mut found = Vec::new();
        let mut answer = vec![0; 1 << 16];
        loop {
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty()).map_err(failed)?;
            for (kind, body) in messages(&answer[..length]) {
                match kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => return Err(failed(error_of(body).unwrap_or(Errno::BADMSG))),
                    RTM_NEWADDR => found.extend(address(body, index)),
                    _ => {}
                }
            }
        }
    }

    /// Moves a device to the network namespace `to`, where it has the name `name`, by one RTM_NEWLINK message. It goes down, and loses
    /// its addresses.
    pub fn move_device(&self, index: u32, name: &str, to: BorrowedFd<'_>) -> Result<()> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let namespace = to.as_raw_fd().to_ne_bytes().to_vec();
        let attributes = [(IFLA_NET_NS_FD, namespace), (IFLA_IFNAME, text)];
        let words = format!("device {index} becomes {name} of another network namespace");
        self.change(&message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link(index, 0), &attributes), words)
    }

    /// Gives a device an address, by one RTM_NEWADDR message.
    pub fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        let [a, b, c, d] = index.to_ne_bytes();
        let body = [address.family, address.prefix_length, 0, address.scope, a, b, c, d];
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE_EXCLUSIVE;
        let words = format!("an address of device {index}, prefix length {}", address.prefix_length);
        self.change(&message(RTM_NEWADDR, flags, &body, &address.attributes), words)
    }

    /// Brings a device up, by one RTM_NEWLINK message.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let body = link(index, libc::IFF_UP as u32);
        self.change(
            &message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &body, &[]),
            format!("device {index} up"),
        )
    }

    /// Sends a message that changes something, and waits for the kernel's answer.
    fn change(&self, message: &[u8], words: String) -> Result<()> {
        let failed = |errno| Error::new("sendto", format!("netlink: {words}"), errno);
        let args = || {
            let zero = || Arg::Int(0);
            let socket = Arg::Fd(self.socket.as_raw_fd(), "netlink route".to_owned());
            vec![socket, Arg::Words(words.clone()), Arg::Int(message.len() as i64), zero(), zero(), zero()]
        };
        act("sendto", args, |sent| *sent as i64, || send(&self.socket, message, SendFlags::empty()))
            .map_err(failed)?;
        acknowledged(&self.socket).map_err(failed)
    }
}

/// struct ifinfomsg of a device, with these flags to set.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&flags.to_ne_bytes());
    body
}

/// struct nlmsghdr, a body, and struct rtattr with each attribute, all on 4-byte boundaries.
fn message(kind: u16, flags: u16, body: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(body);
    for (kind, value) in attributes {
        bytes.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// Type and body of each message in what one recv(2) gave.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut list = Vec::new();
    while let Some((header, _)) = bytes.split_at_checked(HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(whole) = bytes.get(HEADER..length) else { break };
        list.push((u16::from_ne_bytes([header[4], header[5]]), whole));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    list
}

/// The number in the body of an NLMSG_ERROR, unless it says that all is well.
fn error_of(body: &[u8]) -> Option<Errno> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    (code != 0).then(|| Errno::from_raw_os_error(-code))
}

/// The address in the body of an RTM_NEWADDR, if it is one of this device.
fn address(body: &[u8], index: u32) -> Option<Address> {
    /// Local end, other end, broadcast; the label is the device's name, which changes.
    const KEPT: [u16; 3] = [1, 2, 4];
    let (head, mut rest) = body.split_at_checked(8)?;
    if u32::from_ne_bytes(head[4..].try_into().ok()?) != index {
        return None;
    }
    let (mut flags, mut attributes) = (u32::from(head[2]), Vec::new());
    while let Some((header, _)) = rest.split_at_checked(4) {
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let (kind, Some(value)) = (u16::from_ne_bytes([header[2], header[3]]), rest.get(4..length)) else {
            break;
        };
        if kind == IFA_FLAGS {
            flags = u32::from_ne_bytes(value.try_into().ok()?);
        } else if KEPT.contains(&kind) {
            attributes.push((kind, value.to_vec()));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Address { family: head[0], prefix_length: head[1], scope: head[3], flags, attributes })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let attributes = [(1, vec![10, 0, 0, 1]), (3, b"eth0\0".to_vec()), (IFA_FLAGS, vec![0x80, 0, 0, 0])];
        let [a, b, c, d] = 7_u32.to_ne_bytes();
        let mut bytes = message(RTM_NEWADDR, 0, &[2, 24, 0, 0, a, b, c, d], &attributes);
        bytes.extend(message(NLMSG_DONE, 0, &[0; 4], &[]));
        let read = messages(&bytes);
        assert_eq!(read.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [RTM_NEWADDR, NLMSG_DONE]);
        let found = address(read[0].1, 7).unwrap();
        assert!(found.is_permanent() && found.is_global());
        assert_eq!((found.prefix_length, found.attributes), (24, vec![(1, vec![10, 0, 0, 1])]));
        assert_eq!(address(read[0].1, 8), None);
    }

    #[test]
    fn what_is_cut_short_is_not_read() {
        let whole = message(RTM_NEWADDR, 0, &[0; 8], &[(1, vec![1, 2, 3, 4])]);
        for length in 0..whole.len() {
            assert!(messages(&whole[..length]).is_empty(), "{length}");
            let _ = address(&whole[..length], 0);
        }
    }
}
