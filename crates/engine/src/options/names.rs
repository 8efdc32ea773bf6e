//! Names: of the container, of hosts, of signals, of kernel parameters.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;

use runtime::config::{is_ipc_parameter, is_network_parameter};

use super::{Result, invalid, status, unsupported};

/// `--name`, as docker: letters, digits, `_`, `.` and `-`, the first one a letter or digit, at least two.
pub fn container_name(text: &str) -> Result<String> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let accepted = "2 to 255 letters, digits, _, . and -, the first one a letter or a digit";
    if name.len() > 255 {
        let reason = format!("a name has at most 255 characters, this one has {}", name.chars().count());
        return Err(invalid("--name", text, reason, accepted));
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    match name.as_bytes() {
        [first, rest @ ..]
            if first.is_ascii_alphanumeric() && !rest.is_empty() && rest.iter().all(|byte| inner(*byte)) =>
        {
            Ok(name.to_owned())
        }
        _ => Err(invalid("--name", text, "not a name for a container", accepted)),
    }
}

/// `--hostname`.
pub fn hostname(text: &str) -> Result<String> {
    host("--hostname", text)
}

/// `--domainname`.
pub fn domainname(text: &str) -> Result<String> {
    host("--domainname", text)
}

/// The kernel keeps 64 bytes of a host or domain name, see sethostname(2).
fn host(option: &'static str, text: &str) -> Result<String> {
    let accepted = "1 to 64 letters, digits, -, _ and ., the first one a letter or a digit";
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && text.len() <= 64 && text.bytes().all(valid) {
        Ok(text.to_owned())
    } else {
        Err(invalid(option, text, "not a host name", accepted))
    }
}

/// `--add-host NAME:ADDRESS`, or with `=`.
pub fn add_host(text: &str) -> Result<(String, String)> {
    let wrong = |reason: &str| {
        invalid("--add-host", text, reason, "NAME:ADDRESS and NAME=ADDRESS, for example db:10.0.0.7")
    };
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| wrong("it has no address"))?;
    if name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || letter == '#') {
        return Err(wrong("not a host name"));
    }
    if address == "host-gateway" {
        let reason = "without a network of its own a container has no gateway";
        return Err(unsupported("--add-host", text, reason, Some("name an address, or use --network host")));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| wrong("not an address"))?;
    Ok((name.to_owned(), address.to_string()))
}

/// `--dns`.
pub fn dns(text: &str) -> Result<String> {
    let address: std::result::Result<IpAddr, _> = text.trim().parse();
    address
        .map(|address| address.to_string())
        .map_err(|_| invalid("--dns", text, "not an address", "IPv4 and IPv6 addresses, for example 9.9.9.9"))
}

/// `--dns-search`; `.` is no search domain at all.
pub fn dns_search(text: &str) -> Result<String> {
    word("--dns-search", text, "domain names, and . for none")
}

/// `--dns-option`.
pub fn dns_option(text: &str) -> Result<String> {
    word("--dns-option", text, "options of resolv.conf(5), for example ndots:2")
}

fn word(option: &'static str, text: &str, accepted: &str) -> Result<String> {
    let strange = |letter: char| letter.is_whitespace() || letter.is_control();
    match text.is_empty() || text.contains(strange) {
        true => Err(invalid(option, text, "not a single word", accepted)),
        false => Ok(text.to_owned()),
    }
}

/// `--cidfile`: a file in a directory that is there, which is better said before the container runs than after.
pub fn cid_file(path: &OsStr) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // With the dot it is looked into, which a file does not bear.
    directory.map_or(Ok(()), |directory| status("--cidfile", &directory.join(".")).map(drop))?;
    Ok(path)
}

/// The kernel parameter that is a container's domain name, see uts_namespaces(7).
pub const DOMAIN_NAME: &str = "kernel.domainname";

/// `--sysctl NAME=VALUE`: only what belongs to a namespace, as anything else would be the host's.
pub fn sysctl(text: &str) -> Result<(String, String)> {
    const ACCEPTED: &str = "NAME=VALUE with a name below net., fs.mqueue., kernel.shm or kernel.msg, or kernel.sem or kernel.domainname";
    let wrong = |reason: &str| invalid("--sysctl", text, reason, ACCEPTED);
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("it has no value"))?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    let parts = name.split(['.', '/']);
    if !name.bytes().all(valid) || parts.clone().count() < 2 || parts.clone().any(str::is_empty) {
        return Err(wrong("not the name of a kernel parameter"));
    }
    let name = name.replace('/', ".");
    if name == "kernel.hostname" {
        let instead = "name it by the option: --hostname NAME";
        return Err(unsupported(
            "--sysctl",
            text,
            "a container's host name has an option of its own",
            Some(instead),
        ));
    }
    if name == DOMAIN_NAME {
        let value = host("--sysctl", value).map_err(|_| wrong("not a domain name"))?;
        return Ok((name, value));
    }
    if !is_network_parameter(&name) && !is_ipc_parameter(&name) {
        return Err(wrong(
            "this parameter is not one of a namespace: it would be changed for the whole machine",
        ));
    }
    if value.is_empty() || value.contains(['\0', '\n']) {
        return Err(wrong("not a value"));
    }
    Ok((name, value.to_owned()))
}

/// `--stop-signal` and `stop --signal`: its number.
pub fn stop_signal(option: &'static str, text: &str) -> Result<i32> {
    let accepted = "names with or without SIG (TERM, SIGQUIT, RTMIN+3) and numbers from 1 to 64";
    kernel::signal::number(text).ok_or_else(|| invalid(option, text, "no such signal", accepted))
}

/// `--stop-timeout` and `stop --time` in seconds; -1 waits for ever and is the largest number there is.
pub fn stop_timeout(option: &'static str, text: &str) -> Result<u32> {
    match text {
        "-1" => Ok(u32::MAX),
        _ => text.parse().map_err(|_| {
            invalid(option, text, "not a number of seconds", "whole seconds, -1 to wait for ever")
        }),
    }
}

/// `-w`: absolute.
pub fn working_directory(text: &str) -> Result<PathBuf> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(PathBuf::from(text)),
        false => {
            let accepted = "absolute paths inside the container, for example /srv";
            Err(invalid("--workdir", text, "not an absolute path", accepted))
        }
    }
}

/// `--platform`.
pub fn platform(text: &str) -> Result<image::Platform> {
    let accepted = "os/architecture[/variant], for example linux/arm64";
    text.parse().map_err(|error: image::Error| invalid("--platform", text, error.to_string(), accepted))
}

/// When the registry is asked for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// If it is not here.
    #[default]
    Missing,
    /// Each time: a newer one may have its name now.
    Always,
    /// Not at all.
    Never,
}

/// `--pull`.
pub fn pull(text: &str) -> Result<Pull> {
    match text {
        "missing" => Ok(Pull::Missing),
        "always" => Ok(Pull::Always),
        "never" => Ok(Pull::Never),
        _ => Err(invalid("--pull", text, "no such policy", "missing, always and never")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_and_hosts() {
        assert_eq!(container_name("/web-1.a_b").unwrap(), "web-1.a_b");
        for wrong in ["", "a", "-a", "a b", "a/b", ".a", "é1", &"x".repeat(256)] {
            assert!(container_name(wrong).is_err(), "{wrong}");
        }
        let error = container_name(&"x".repeat(300)).unwrap_err();
        assert!(error.to_string().ends_with("at most 255 characters, this one has 300"), "{error}");
        assert_eq!(hostname("container").unwrap(), "container");
        assert!(hostname(&"x".repeat(65)).is_err() && hostname("").is_err() && hostname("a b").is_err());
        assert!(domainname("example.org").is_ok() && domainname("-x").is_err());
    }

    #[test]
    fn addresses() {
        assert_eq!(add_host("db:10.0.0.7").unwrap(), ("db".to_owned(), "10.0.0.7".to_owned()));
        assert_eq!(add_host("db:::1").unwrap().1, "::1");
        assert_eq!(add_host("db=[fe80::1]").unwrap().1, "fe80::1");
        for wrong in ["db", "db:", ":1.2.3.4", "db:300.0.0.1", "a b:1.2.3.4", "db:host-gateway"] {
            assert!(add_host(wrong).is_err(), "{wrong}");
        }
        assert!(dns("9.9.9.9").is_ok() && dns("dns.example").is_err());
        assert!(dns_search(".").is_ok() && dns_search("a b").is_err() && dns_option("ndots:2").is_ok());
    }

    #[test]
    fn parameters_of_namespaces_only() {
        assert_eq!(sysctl("net.ipv4.ip_forward=1").unwrap().0, "net.ipv4.ip_forward");
        assert_eq!(sysctl("net/core/somaxconn=9").unwrap().0, "net.core.somaxconn");
        assert_eq!(sysctl("kernel.domainname=lan").unwrap(), (DOMAIN_NAME.to_owned(), "lan".to_owned()));
        let error = sysctl("kernel.hostname=box").unwrap_err();
        assert!(error.advice().unwrap().contains("--hostname"), "{error:?}");
        assert!(sysctl("kernel.shmmax=1").is_ok() && sysctl("fs.mqueue.msg_max=5").is_ok());
        for wrong in [
            "kernel.core_pattern=x",
            "vm.swappiness=1",
            "kernel.domainname=a b",
            "net.ipv4.ip_forward",
            "net./../kernel.core_pattern=x",
            "net..x=1",
            "net=1",
            "=1",
            "net.a=",
        ] {
            assert!(sysctl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_file_of_an_id_has_a_directory() {
        for path in ["id", "./id", "/tmp/id"] {
            assert_eq!(cid_file(path.as_ref()).unwrap(), PathBuf::from(path));
        }
        for wrong in ["/nonexistent/id", "/etc/passwd/id"] {
            let error = cid_file(wrong.as_ref()).unwrap_err();
            let directory = wrong.strip_suffix("id").unwrap_or(wrong);
            assert!(error.to_string().contains(&format!("--cidfile names: {directory}")), "{error}");
            assert!(error.advice().unwrap().starts_with("make the directory"), "{error:?}");
        }
    }

    #[test]
    fn signals_and_the_rest() {
        assert_eq!(
            (stop_signal("--stop-signal", "QUIT").unwrap(), stop_signal("--stop-signal", "sigterm").unwrap()),
            (3, 15)
        );
        assert!(
            stop_signal("--stop-signal", "SIGNONE").is_err() && stop_signal("--stop-signal", "65").is_err()
        );
        assert_eq!(
            (stop_timeout("--stop-timeout", "10").unwrap(), stop_timeout("--stop-timeout", "-1").unwrap()),
            (10, u32::MAX)
        );
        assert!(stop_timeout("--stop-timeout", "soon").is_err());
        assert!(working_directory("/srv").is_ok() && working_directory("srv").is_err());
        assert_eq!(platform("linux/arm64").unwrap().architecture, "arm64");
        assert!(pull("missing").is_ok() && pull("always").is_ok() && pull("often").is_err());
    }
}
