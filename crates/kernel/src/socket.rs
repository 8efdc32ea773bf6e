//! Local sockets that carry messages and descriptors between coracle's own processes: unix(7), SOCK_SEQPACKET.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

use crate::record::{Arg, act};
use crate::{Error, Result};

/// The most descriptors one message carries.
const MOST_FDS: usize = 4;

/// A pair of connected sockets that keep message borders. See socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::new("socketpair", "a local socket", errno))
}

/// Sends one message with up to 4 descriptors. A peer that is gone is `EPIPE`, never a signal. See sendmsg(2).
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new("sendmsg", "too many descriptors for one message", Errno::INVAL));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("sendmsg", "a local socket", errno)),
        }
    }
}

/// Waits for a message and gives its length; 0 when the peer is gone. It stays to be received.
fn length_of_next(socket: impl AsFd) -> Result<usize> {
    loop {
        match recv(&socket, &mut [0; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(Error::new("recv", "a local socket", errno)),
        }
    }
}

/// Sends bytes to another program by a connected stream, all of them, recorded with what they say in `words`. A peer that is gone is
/// `EPIPE`, never a signal. See sendmsg(2).
///
/// The error names the peer, `to`.
pub fn tell(socket: impl AsFd, bytes: &[u8], to: &str, words: &str) -> Result<()> {
    let args = || vec![Arg::Fd(socket.as_fd().as_raw_fd(), to.to_owned()), Arg::Words(words.to_owned())];
    let send_all = || {
        let mut sent = 0;
        while sent < bytes.len() {
            let mut control = SendAncillaryBuffer::default();
            match sendmsg(&socket, &[IoSlice::new(&bytes[sent..])], &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(sent)
    };
    act("sendmsg", args, |sent| *sent as i64, send_all).map_err(|errno| Error::new("sendmsg", to, errno))?;
    Ok(())
}

/// Receives one message and its descriptors; none when the peer is gone. See recvmsg(2).
pub fn receive(socket: impl AsFd) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let failed = |errno| Error::new("recvmsg", "a local socket", errno);
    // Asked first how long it is: room for the longest would cost each process 16 pages.
    let mut bytes = vec![0; length_of_next(&socket)?];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            // A peer that ended with messages unread is told of first, and once; its own last words are still there.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(failed(errno)),
        }
    };
    if received.flags.intersects(rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC) {
        return Err(failed(Errno::MSGSIZE));
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_messages_and_descriptors_and_tells_the_end() {
        let (a, b) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&a, b"take this", &[writer.as_fd()]).unwrap();
        drop(writer);
        let (bytes, mut fds) = receive(&b).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (&b"take this"[..], 1));
        rustix::io::write(fds.remove(0), b"x").unwrap();
        let mut buffer = [0; 4];
        assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 1);
        drop(a);
        assert!(receive(&b).unwrap().is_none());
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_that_names_it() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        tell(&a, b"hello", "the other end", "a greeting").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&b, &mut buffer).unwrap(), 5);
        drop(b);
        let error = tell(&a, b"hello", "the other end", "a greeting").unwrap_err();
        assert_eq!(error.errno(), Errno::PIPE);
        assert!(error.to_string().contains("the other end"), "{error}");
    }

    #[test]
    fn last_words_of_a_peer_that_did_not_listen_are_heard() {
        let (a, b) = pair().unwrap();
        send(&a, b"go", &[]).unwrap();
        send(&b, b"failed", &[]).unwrap();
        drop(b);
        assert_eq!(receive(&a).unwrap().unwrap().0, b"failed");
        assert!(receive(&a).unwrap().is_none());
    }
}
