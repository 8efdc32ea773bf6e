//! The little of D-Bus that asking systemd takes: method calls to a peer at the other end of a socket, with no bus in between, their
//! replies, and the signals that come by. Source: the D-Bus Specification, "Message Protocol" and "Authentication Protocol".
//!
//! Why not a crate: those that are not async bring older versions of crates that we have, and `unsafe` of their own, for forty times
//! these lines. What comes in is read by checked steps alone, so that bytes which are no message are an error and never a panic.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};

use crate::scope::Refusal;

/// Longer messages are not for us: the format allows 128 MiB, and systemd's answers have some hundred bytes.
const MOST_BYTES: usize = 1 << 20;
/// The header up to and with the length of its fields.
const FIXED: usize = 16;
/// The line that ends the authentication may be this long.
const LONGEST_LINE: usize = 1024;

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// What ENOENT is called.
const NOT_FOUND: &str = "org.freedesktop.DBus.Error.FileNotFound";

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A value of a property, of the kinds that systemd takes here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Flag(bool),
    Number(u64),
    Numbers(&'a [u32]),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

/// Arguments as they are marshalled. Numbers are little-endian, as the message's first byte says.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    signature: String,
}

/// An array that is being written: where its length stands, and where its first element begins.
struct Array {
    length: usize,
    start: usize,
}

impl Body {
    /// Adds an argument of type `s`.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.put_text(text);
        self
    }

    /// Adds an argument of type `b`.
    pub(crate) fn flag(mut self, flag: bool) -> Self {
        self.signature.push('b');
        self.put_number(u32::from(flag));
        self
    }

    /// Adds an argument of type `au`.
    pub(crate) fn numbers(mut self, numbers: &[u32]) -> Self {
        self.signature += "au";
        self.put_numbers(numbers);
        self
    }

    /// Adds an argument of type `a(sv)`.
    pub(crate) fn properties(mut self, properties: &[(&str, Value<'_>)]) -> Self {
        self.signature += "a(sv)";
        let array = self.begin_array(8);
        for (name, value) in properties {
            self.align(8);
            self.put_text(name);
            self.put_variant(value);
        }
        self.end_array(&array);
        self
    }

    /// Adds an empty argument of type `a(sa(sv))`: no other units to make along.
    pub(crate) fn no_more_units(mut self) -> Self {
        self.signature += "a(sa(sv))";
        let array = self.begin_array(8);
        self.end_array(&array);
        self
    }

    fn put_variant(&mut self, value: &Value<'_>) {
        match value {
            Value::Text(text) => {
                self.put_signature("s");
                self.put_text(text);
            }
            Value::Flag(flag) => {
                self.put_signature("b");
                self.put_number(u32::from(*flag));
            }
            Value::Number(number) => {
                self.put_signature("t");
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.put_signature("au");
                self.put_numbers(numbers);
            }
            Value::Bytes(bytes) => {
                self.put_signature("ay");
                let array = self.begin_array(1);
                self.bytes.extend(bytes);
                self.end_array(&array);
            }
            Value::Pairs(pairs) => {
                self.put_signature("a(ss)");
                let array = self.begin_array(8);
                for (first, second) in pairs {
                    self.align(8);
                    self.put_text(first);
                    self.put_text(second);
                }
                self.end_array(&array);
            }
        }
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn put_number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_text(&mut self, text: &str) {
        self.put_number(text.len() as u32);
        self.bytes.extend(text.bytes().chain([0]));
    }

    fn put_signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.bytes().chain([0]));
    }

    fn put_numbers(&mut self, numbers: &[u32]) {
        let array = self.begin_array(4);
        numbers.iter().for_each(|number| self.put_number(*number));
        self.end_array(&array);
    }

    fn begin_array(&mut self, alignment: usize) -> Array {
        self.put_number(0);
        let length = self.bytes.len() - 4;
        self.align(alignment);
        Array { length, start: self.bytes.len() }
    }

    /// Fills in the length, which does not count what aligns the first element.
    fn end_array(&mut self, array: &Array) {
        let length = (self.bytes.len() - array.start) as u32;
        self.bytes[array.length..array.length + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Who is called, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) name: &'a str,
}

/// The bytes of a method call.
fn method_call(serial: u32, method: &Method<'_>, body: &Body) -> Vec<u8> {
    let mut message = Body::default();
    message.bytes.extend([b'l', METHOD_CALL, 0, 1]);
    message.put_number(body.bytes.len() as u32);
    message.put_number(serial);
    let fields = message.begin_array(8);
    let named = [
        (1, "o", method.path),
        (2, "s", method.interface),
        (3, "s", method.name),
        (6, "s", method.destination),
    ];
    for (code, kind, text) in named {
        message.align(8);
        message.bytes.push(code);
        message.put_signature(kind);
        message.put_text(text);
    }
    message.align(8);
    message.bytes.push(8);
    message.put_signature("g");
    message.put_signature(&body.signature);
    message.end_array(&fields);
    message.align(8);
    message.bytes.extend(&body.bytes);
    message.bytes
}

/// A message that came, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    kind: u8,
    big_endian: bool,
    reply_to: u32,
    member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// How many bytes the message has whose first 16 are these; none if that is too many, or these begin no message.
    fn length(fixed: &[u8; FIXED]) -> Option<usize> {
        let mut reader = Reader { bytes: fixed, at: 4, big_endian: is_big_endian(fixed[0])? };
        let body = reader.number()? as usize;
        reader.number()?;
        let fields = reader.number()? as usize;
        let header = (FIXED.checked_add(fields)?).checked_next_multiple_of(8)?;
        header.checked_add(body).filter(|length| *length <= MOST_BYTES)
    }

    /// Takes a whole message apart.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let big_endian = is_big_endian(*bytes.first()?)?;
        let mut reader = Reader { bytes, at: FIXED - 4, big_endian };
        let end = FIXED.checked_add(reader.number()? as usize)?;
        let mut message = Self { kind: *bytes.get(1)?, big_endian, ..Self::default() };
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            match (reader.signature()?.as_str(), code) {
                ("u", 5) => message.reply_to = reader.number()?,
                ("u", _) => drop(reader.number()?),
                ("s", 3) => message.member = reader.text()?,
                ("s", 4) => message.error = reader.text()?,
                ("s" | "o", _) => drop(reader.text()?),
                ("g", 8) => message.signature = reader.signature()?,
                ("g", _) => drop(reader.signature()?),
                // The specification has no fields of other types.
                _ => return None,
            }
        }
        reader.align(8)?;
        message.body = bytes.get(reader.at..)?.to_vec();
        Some(message)
    }

    /// Whether its first argument is a list without elements.
    pub(crate) fn is_empty_list(&self) -> bool {
        self.signature.starts_with('a') && self.body.starts_with(&[0; 4])
    }

    /// The arguments, texts and numbers as text; those after one of another type are left out.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut reader = Reader { bytes: &self.body, at: 0, big_endian: self.big_endian };
        let argument = |kind| match kind {
            's' | 'o' => reader.text(),
            'u' => reader.number().map(|number| number.to_string()),
            _ => None,
        };
        self.signature.chars().map_while(argument).collect()
    }
}

fn is_big_endian(mark: u8) -> Option<bool> {
    match mark {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

/// Reads what is marshalled. Every step gives none beyond the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        let big_endian = self.big_endian;
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        (self.byte()? == 0).then_some(text)
    }
}

/// A connection to a program that speaks D-Bus on a socket of its own.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    path: PathBuf,
    serial: u32,
    deadline: Instant,
    patience: Duration,
    /// Signals that came while a reply was waited for.
    signals: Vec<Message>,
}

impl Connection {
    /// Connects and says who we are. All that follows has to be done after `patience`.
    pub(crate) fn open(path: &Path, patience: Duration) -> Result<Self, Refusal> {
        let unreachable = |errno| Refusal::Unreachable { socket: path.to_owned(), errno };
        let address = SocketAddrUnix::new(path).map_err(unreachable)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(unreachable)?;
        // A listener that accepts nobody lets us wait to connect, too.
        set_socket_timeout(&socket, Timeout::Send, Some(patience)).map_err(unreachable)?;
        connect(&socket, &address).map_err(unreachable)?;
        let deadline = Instant::now() + patience;
        let mut connection =
            Self { socket, path: path.to_owned(), serial: 0, deadline, patience, signals: Vec::new() };
        connection.authenticate()?;
        Ok(connection)
    }

    /// EXTERNAL: the peer asks the kernel who we are, and we say the same.
    fn authenticate(&mut self) -> Result<(), Refusal> {
        let uid = crate::scope::outer_uid().to_string();
        let hexadecimal: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(
            format!("\0AUTH EXTERNAL {hexadecimal}\r\nBEGIN\r\n").as_bytes(),
            "who this is, AUTH EXTERNAL",
        )?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < LONGEST_LINE {
            line.extend(self.receive(1)?);
        }
        if line.starts_with(b"OK ") {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        Err(Refusal::Refused { method: "AUTH".to_owned(), text })
    }

    /// Calls a method and waits for its reply; `words` say what for, in the record of acts.
    pub(crate) fn call(&mut self, method: &Method<'_>, body: &Body, words: &str) -> Result<Message, Refusal> {
        self.serial += 1;
        self.send(&method_call(self.serial, method, body), words)?;
        loop {
            let message = self.next()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == self.serial => return Ok(message),
                ERROR if message.reply_to == self.serial => {
                    let text = message.arguments().into_iter().next().unwrap_or_default();
                    return Err(match message.error.as_str() {
                        UNIT_EXISTS => Refusal::Exists,
                        NOT_FOUND => Refusal::Missing { text },
                        NO_SUCH_UNIT => Refusal::NoUnit { text },
                        name => {
                            let text = if text.is_empty() { name.to_owned() } else { text };
                            Refusal::Refused { method: method.name.to_owned(), text }
                        }
                    });
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal of this name whose arguments are these; one that came before counts, too.
    pub(crate) fn wait_for(
        &mut self,
        member: &str,
        is_it: impl Fn(&[String]) -> bool,
    ) -> Result<Vec<String>, Refusal> {
        let mut waiting = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match waiting.next() {
                Some(message) => message,
                None => self.next()?,
            };
            let arguments = message.arguments();
            if message.kind == SIGNAL && message.member == member && is_it(&arguments) {
                return Ok(arguments);
            }
        }
    }

    fn next(&mut self) -> Result<Message, Refusal> {
        let mut bytes = self.receive(FIXED)?;
        let fixed = bytes.as_slice().try_into().ok();
        let length = fixed.and_then(Message::length).ok_or(Refusal::Unreadable)?;
        bytes.extend(self.receive(length.saturating_sub(FIXED))?);
        Message::parse(&bytes).ok_or(Refusal::Unreadable)
    }

    fn send(&self, bytes: &[u8], words: &str) -> Result<(), Refusal> {
        let to = self.path.display().to_string();
        kernel::socket::tell(&self.socket, bytes, &to, words).map_err(|error| self.failed(error.errno()))
    }

    /// Receives exactly so many bytes.
    fn receive(&self, length: usize) -> Result<Vec<u8>, Refusal> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            let left = self.deadline.saturating_duration_since(Instant::now());
            // A time-out of zero would be none.
            let left = left.max(Duration::from_millis(1));
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))
                .map_err(|errno| self.failed(errno))?;
            match recv(&self.socket, &mut bytes[filled..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(self.failed(Errno::CONNRESET)),
                Ok((count, _)) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        Ok(bytes)
    }

    fn failed(&self, errno: Errno) -> Refusal {
        match errno {
            Errno::AGAIN => Refusal::Silent { seconds: self.patience.as_secs() },
            errno => Refusal::Unreachable { socket: self.path.clone(), errno },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'_> = Method { destination: "d.e", path: "/p", interface: "i.f", name: "Name" };

    #[test]
    fn a_call_is_marshalled_as_the_specification_says() {
        let body = Body::default().text("abc").numbers(&[7]).properties(&[("B", Value::Flag(true))]);
        assert_eq!(body.signature, "saua(sv)");
        let expected: &[u8] = b"\x03\0\0\0abc\0\
            \x04\0\0\0\x07\0\0\0\
            \x10\0\0\0\0\0\0\0\x01\0\0\0B\0\x01b\0\0\0\0\x01\0\0\0";
        // The variant's signature stands unaligned behind the name, its value on the next multiple of four.
        assert_eq!(body.bytes, expected, "{:x?}", body.bytes);
        let call = method_call(5, &METHOD, &body);
        assert_eq!(&call[..12], b"l\x01\0\x01\x28\0\0\0\x05\0\0\0");
        assert_eq!(call.len() % 8, 0);
        let read = Message::parse(&call).unwrap();
        assert_eq!((read.kind, read.member.as_str(), read.signature.as_str()), (1, "Name", "saua(sv)"));
        assert_eq!(read.body, expected);
        assert_eq!(Message::length(call[..FIXED].try_into().unwrap()), Some(call.len()));
    }

    #[test]
    fn lists_of_bytes_and_pairs_are_marshalled() {
        let pairs = vec![("a".to_owned(), "r".to_owned()), ("b".to_owned(), "w".to_owned())];
        let body = Body::default().flag(true).properties(&[
            ("C", Value::Bytes(vec![3, 1])),
            ("D", Value::Pairs(pairs)),
            ("E", Value::Pairs(Vec::new())),
        ]);
        assert_eq!(body.signature, "ba(sv)");
        // Elements of an array of structures stand on multiples of eight, of an array of bytes anywhere.
        let expected: &[u8] = b"\x01\0\0\0\x68\0\0\0\
            \x01\0\0\0C\0\x02ay\0\0\0\x02\0\0\0\x03\x01\0\0\0\0\0\0\
            \x01\0\0\0D\0\x05a(ss)\0\0\0\0\x1e\0\0\0\0\0\0\0\
            \x01\0\0\0a\0\0\0\x01\0\0\0r\0\0\0\x01\0\0\0b\0\0\0\x01\0\0\0w\0\0\0\
            \x01\0\0\0E\0\x05a(ss)\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(body.bytes, expected, "{:x?}", body.bytes);
    }

    #[test]
    fn arguments_are_read_until_one_of_another_type() {
        let body = Body::default().text("/job/1").text("unit").numbers(&[1]).text("never");
        let message = Message::parse(&method_call(1, &METHOD, &body)).unwrap();
        assert_eq!(message.arguments(), ["/job/1", "unit"]);
    }

    #[test]
    fn a_big_endian_message_is_read() {
        let mut message =
            b"B\x02\0\x01\0\0\0\x08\0\0\0\x01\0\0\0\x0f\x05\x01u\0\0\0\0\x07\x08\x01g\0\x01s\0\0".to_vec();
        message.extend(b"\0\0\0\x03abc\0");
        let read = Message::parse(&message).unwrap();
        assert_eq!((read.reply_to, read.arguments()), (7, vec!["abc".to_owned()]));
        assert_eq!(Message::length(message[..FIXED].try_into().unwrap()), Some(message.len()));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_and_no_panic() {
        let body = Body::default().text("coracle.scope").properties(&[("PIDs", Value::Numbers(&[1, 2]))]);
        let whole = method_call(1, &METHOD, &body);
        for at in 0..whole.len() {
            for value in [0, 1, 8, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Some(message) = Message::parse(&changed) {
                    message.arguments();
                }
                let _ = changed[..FIXED].try_into().ok().and_then(Message::length);
            }
            if let Some(message) = Message::parse(&whole[..at]) {
                message.arguments();
            }
        }
        assert_eq!(Message::parse(b""), None);
        assert_eq!(Message::length(b"l\x02\0\x01\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(Message::length(b"x\x02\0\x01\0\0\0\0\0\0\0\0\0\0\0\0"), None);
    }
}
