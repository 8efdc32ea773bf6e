//! A socket to which a runtime sends a descriptor: a console's master, or a filter's listener.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// What came: the bytes and the descriptors.
pub struct Message {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

pub struct Socket {
    message: mpsc::Receiver<Message>,
}

impl Socket {
    /// Listens at a path and takes one message of the first that connects.
    pub fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (sender, message) = mpsc::channel();
        // Left waiting if nobody connects: it ends with the process.
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let _ = sender.send(receive(&stream));
        });
        Self { message }
    }

    #[track_caller]
    pub fn take(self) -> Message {
        self.message.recv_timeout(Duration::from_secs(10)).expect("no message came")
    }
}

fn receive(stream: &UnixStream) -> Message {
    let mut bytes = vec![0; 65_536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let length = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    bytes.truncate(length);
    let messages = control.drain();
    let descriptors = messages.filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Message { bytes, descriptors: descriptors.flatten().collect() }
}

/// Reads a terminal's master until the other side is closed or a text is there.
#[track_caller]
pub fn read_until(master: OwnedFd, text: &str) -> String {
    rustix::io::ioctl_fionbio(&master, true).unwrap();
    let mut file = std::fs::File::from(master);
    let (start, mut all, mut part) = (Instant::now(), String::new(), [0; 4096]);
    while !all.contains(text) {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain for {text:?} in {all:?}");
        match file.read(&mut part) {
            Ok(0) => break,
            Ok(length) => all += &String::from_utf8_lossy(&part[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            // The other side is closed.
            Err(_) => break,
        }
    }
    all
}
