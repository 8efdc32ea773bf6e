//! Host names into addresses, from `/etc/hosts` and the name servers of `/etc/resolv.conf`.
//!
//! The C library's way there loads libraries that a static program does not have, so this one asks by itself: hosts(5),
//! resolv.conf(5), RFC 1035.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// More name servers are not asked: resolv.conf(5).
const SERVERS_MAX: usize = 3;

/// How names become addresses here.
#[derive(Debug)]
pub(super) struct Names {
    hosts: String,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with this many dots is asked for as it is first.
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Names {
    /// As this machine's files say. Files that are not there say nothing.
    pub(super) fn of_this_machine() -> Self {
        let read = |path| fs_err::read_to_string(path).unwrap_or_default();
        Self::new(read(HOSTS), &read(RESOLV_CONF))
    }

    fn new(hosts: String, resolv_conf: &str) -> Self {
        let mut names = Self {
            hosts,
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => names.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => names.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| names.option(word)),
                _ => {}
            }
        }
        names.servers.truncate(SERVERS_MAX);
        if names.servers.is_empty() {
            names.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        names
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.dots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The addresses of a host, those first that there is a route to. The error says who was asked.
    pub(super) fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let mut found = self.in_hosts(host);
        // RFC 6761: never asked of anybody.
        if found.is_empty() && is_localhost(host) {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if found.is_empty() {
            found = self.of_servers(host)?;
        }
        found.sort_by_key(|address| !has_route(*address));
        Ok(found)
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for line in self.hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    fn of_servers(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut failure = None;
        for name in self.candidates(host) {
            match self.ask_all(&name) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let servers: Vec<String> = self.servers.iter().map(|server| server.ip().to_string()).collect();
        let servers = servers.join(", ");
        Err(match failure {
            Some(error) => {
                io::Error::new(error.kind(), format!("no name server answers ({servers}): {error}"))
            }
            None => io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no host of that name (asked {servers})"),
            ),
        })
    }

    /// The full names that `host` may mean, in the order in which they are tried.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(full) = host.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{host}.{}", domain.trim_matches('.'))).collect();
        let at = if host.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(at, host.to_owned());
        names
    }

    /// What the first server that answers knows of a full name; empty where it says that there is no such name.
    fn ask_all(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut failure = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..self.attempts {
            for server in &self.servers {
                match ask(*server, name, self.timeout) {
                    Ok(found) => return Ok(found),
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }
}

fn server(word: &str) -> Option<SocketAddr> {
    // A scope, as in fe80::1%eth0, cannot be said to the standard library by name.
    word.parse::<IpAddr>().ok().map(|address| (address, DNS_PORT).into())
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Connecting a datagram socket sends nothing and fails where no packet could go.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 443))).is_ok()
}

/// Asks one server for both kinds of addresses at once.
fn ask(server: SocketAddr, name: &str, timeout: Duration) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Only this server's answers are received then.
    socket.connect(server)?;
    let mut waiting = Vec::new();
    for kind in [TYPE::AAAA, TYPE::A] {
        let question = Query::new(name, kind)?;
        socket.send(&question.bytes)?;
        waiting.push(question);
    }
    let deadline = Instant::now() + timeout;
    let (mut found, mut buffer, mut failure) = (Vec::new(), [0; 1500], None);
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            failure = Some(io::ErrorKind::TimedOut.into());
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        // What is not an answer to a question of ours may come from anybody.
        let Some(at) = waiting.iter().position(|query| query.is_answered_by(&buffer[..count])) else {
            continue;
        };
        let query = waiting.swap_remove(at);
        let addresses = match answer(&buffer[..count]) {
            Ok(Answer::Addresses(addresses)) => Ok(addresses),
            Ok(Answer::TooLong) => query.ask_by_tcp(server, timeout),
            Err(error) => Err(error),
        };
        match addresses {
            Ok(addresses) => found.extend(addresses),
            Err(error) => failure = Some(error),
        }
    }
    found.sort_by_key(IpAddr::is_ipv4);
    // One kind of address is enough: there are servers that know no other.
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

struct Query {
    id: u16,
    name: String,
    bytes: Vec<u8>,
}

enum Answer {
    Addresses(Vec<IpAddr>),
    /// It is to be asked for by TCP.
    TooLong,
}

impl Query {
    fn new(name: &str, kind: TYPE) -> io::Result<Self> {
        let mut id = [0; 2];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        let id = u16::from_ne_bytes(id);
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let qname = Name::new(name).map_err(malformed)?;
        packet.questions.push(Question::new(qname, kind.into(), CLASS::IN.into(), false));
        Ok(Self { id, name: name.to_owned(), bytes: packet.build_bytes_vec().map_err(malformed)? })
    }

    fn is_answered_by(&self, bytes: &[u8]) -> bool {
        Packet::parse(bytes).is_ok_and(|packet| {
            packet.id() == self.id
                && packet.has_flags(PacketFlag::RESPONSE)
                && packet
                    .questions
                    .first()
                    .is_none_or(|asked| asked.qname.to_string().eq_ignore_ascii_case(&self.name))
        })
    }

    fn ask_by_tcp(&self, server: SocketAddr, timeout: Duration) -> io::Result<Vec<IpAddr>> {
        let mut stream = TcpStream::connect_timeout(&server, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        // No question is longer than a name may be.
        stream.write_all(&(self.bytes.len() as u16).to_be_bytes())?;
        stream.write_all(&self.bytes)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut bytes)?;
        match answer(&bytes)? {
            Answer::Addresses(addresses) if self.is_answered_by(&bytes) => Ok(addresses),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question")),
        }
    }
}

/// The addresses in an answer; none where the name or that kind of address does not exist.
fn answer(bytes: &[u8]) -> io::Result<Answer> {
    let packet = Packet::parse(bytes).map_err(malformed)?;
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(Answer::TooLong);
    }
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        other => return Err(io::Error::other(format!("the name server says {other:?}"))),
    }
    // A server that was asked to recurse has put the whole chain of aliases in.
    Ok(Answer::Addresses(
        packet
            .answers
            .iter()
            .filter_map(|record| match &record.rdata {
                RData::A(v4) => Some(Ipv4Addr::from(v4.address).into()),
                RData::AAAA(v6) => Some(Ipv6Addr::from(v6.address).into()),
                _ => None,
            })
            .collect(),
    ))
}

fn malformed(error: simple_dns::SimpleDnsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;
    use std::net::TcpListener;

    #[test]
    fn files_are_read_as_their_manual_pages_say() {
        let names = Names::new(
            "127.0.0.1 localhost\n10.1.2.3\tregistry.test Registry # registry.other\n::7 registry\n"
                .to_owned(),
            "nameserver 10.0.0.1\nnameserver fe80::1\nsearch a.test b.test.\noptions ndots:2 timeout:1 attempts:9 rotate\n",
        );
        assert_eq!(names.addresses("REGISTRY").unwrap().len(), 2);
        assert_eq!(names.addresses("registry.test").unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert!(names.in_hosts("registry.other").is_empty());
        assert_eq!(names.servers, ["10.0.0.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!((names.timeout.as_secs(), names.attempts), (1, 5));
        assert_eq!(names.candidates("x.y"), ["x.y.a.test", "x.y.b.test", "x.y"]);
        assert_eq!(names.candidates("x.y.z"), ["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]);
        assert_eq!(names.candidates("x."), ["x"]);
    }

    #[test]
    fn addresses_and_localhost_are_asked_of_nobody() {
        let names = Names::new(String::new(), "nameserver 192.0.2.1");
        assert_eq!(names.addresses("[::1]").unwrap(), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        assert_eq!(names.addresses("10.9.8.7").unwrap(), ["10.9.8.7".parse::<IpAddr>().unwrap()]);
        assert!(names.addresses("app.localhost").unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    /// A name server that answers what `respond` makes of each question, by both protocols on one port.
    fn serve(respond: fn(Packet<'_>, bool) -> Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&respond(Packet::parse(&buffer[..count]).unwrap(), false), from);
            }
        });
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut bytes = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut bytes).unwrap();
                let answer = respond(Packet::parse(&bytes).unwrap(), true);
                stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        address
    }

    fn names(server: SocketAddr) -> Names {
        Names { servers: vec![server], timeout: Duration::from_secs(2), ..Names::new(String::new(), "") }
    }

    fn reply(question: &Packet<'_>, address: Option<u32>) -> Vec<u8> {
        let mut reply = Packet::new_reply(question.id());
        let asked = question.questions[0].clone();
        if let (Some(address), true) = (address, asked.qtype == TYPE::A.into()) {
            let record = ResourceRecord::new(asked.qname.clone(), CLASS::IN, 60, RData::A(A { address }));
            reply.answers.push(record);
        }
        reply.questions.push(asked);
        reply.build_bytes_vec().unwrap()
    }

    #[test]
    fn a_name_server_is_asked() {
        let server = serve(|question, _| reply(&question, Some(0x0a00_0005)));
        assert_eq!(
            names(server).addresses("registry.test").unwrap(),
            ["10.0.0.5".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn an_answer_that_is_too_long_comes_by_tcp() {
        let server = serve(|question, by_tcp| {
            let mut bytes = reply(&question, by_tcp.then_some(0x0a00_0006));
            if !by_tcp {
                bytes[2] |= 2;
            }
            bytes
        });
        assert_eq!(
            names(server).addresses("registry.test").unwrap(),
            ["10.0.0.6".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn a_name_that_is_not_there_is_said_with_who_was_asked() {
        let server = serve(|question, _| {
            let mut bytes = reply(&question, None);
            bytes[3] |= 3;
            bytes
        });
        let error = names(server).addresses("nosuch.test").unwrap_err();
        assert_eq!(error.to_string(), "there is no host of that name (asked 127.0.0.1)");
    }

    #[test]
    fn a_forged_answer_is_not_taken() {
        let server = serve(|question, _| {
            let mut bytes = reply(&question, Some(0x0606_0606));
            bytes[0] ^= 1;
            bytes
        });
        let names = Names { timeout: Duration::from_millis(300), attempts: 1, ..names(server) };
        assert!(
            names.addresses("registry.test").unwrap_err().to_string().starts_with("no name server answers")
        );
    }
}
