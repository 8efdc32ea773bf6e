//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container.

use std::net::IpAddr;

use super::machine::Machine;
use crate::spec::{Choice, Spec};

/// The files in the container's directory and where they appear.
pub(super) const PLACES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// How many digits of the id are the host name when none is given.
const DIGITS: usize = 12;

/// What docker writes before the container's own lines.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
                           ::1\tlocalhost ip6-localhost ip6-loopback\n\
                           fe00::\tip6-localnet\n\
                           ff00::\tip6-mcastprefix\n\
                           ff02::1\tip6-allnodes\n\
                           ff02::2\tip6-allrouters\n";

/// The container's host name: the given one, the host's where that or its network is shared, else the beginning of the id.
pub(super) fn hostname(spec: &Spec, machine: &Machine, id: &str) -> String {
    let shared = spec.isolation.uts == Choice::Host || spec.isolation.network == Choice::Host;
    match &spec.names.hostname {
        Some(name) => name.clone(),
        None if shared => machine.hostname.clone(),
        None => id.get(..DIGITS).unwrap_or(id).to_owned(),
    }
}

/// Names in the container's directory, and contents.
pub(super) fn all(spec: &Spec, machine: &Machine, hostname: &str) -> Vec<(String, String)> {
    let contents =
        [format!("{hostname}\n"), hosts(spec, machine, hostname), resolv_conf(spec, &machine.resolv_conf)];
    PLACES.iter().zip(contents).map(|((name, _), text)| ((*name).to_owned(), text)).collect()
}

fn hosts(spec: &Spec, machine: &Machine, hostname: &str) -> String {
    let mut text = match spec.isolation.network {
        Choice::Host if machine.hosts.is_empty() || machine.hosts.ends_with('\n') => machine.hosts.clone(),
        Choice::Host => format!("{}\n", machine.hosts),
        // Programs that look up their own name find it, though there is no other address.
        _ => format!("{LOCAL_HOSTS}127.0.1.1\t{}\n", own_names(spec, hostname)),
    };
    for (name, address) in &spec.names.hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

fn own_names(spec: &Spec, hostname: &str) -> String {
    match &spec.names.domainname {
        Some(domain) => format!("{hostname}.{domain} {hostname}"),
        None => hostname.to_owned(),
    }
}

/// The host's file with what was asked instead. A server on the host's own loopback cannot be reached from another network.
fn resolv_conf(spec: &Spec, host: &str) -> String {
    let names = &spec.names;
    let reachable = |address: &str| {
        spec.isolation.network == Choice::Host
            || address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
    };
    let of_host = |wanted: &'static [&'static str]| {
        host.lines().filter_map(move |line| {
            let (key, words) = line.split_once(char::is_whitespace)?;
            wanted.contains(&key).then(|| (key.to_owned(), words.trim().to_owned()))
        })
    };
    let one = |key: &str, words: &[String]| vec![(key.to_owned(), words.join(" "))];
    let mut lines: Vec<(String, String)> = match names.dns.as_slice() {
        [] => of_host(&["nameserver"]).filter(|(_, address)| reachable(address)).collect(),
        servers => servers.iter().map(|server| ("nameserver".to_owned(), server.clone())).collect(),
    };
    lines.extend(match names.dns_search.as_slice() {
        [] => of_host(&["search", "domain"]).collect(),
        [dot] if dot == "." => Vec::new(),
        domains => one("search", domains),
    });
    lines.extend(match names.dns_options.as_slice() {
        [] => of_host(&["options"]).collect(),
        words => one("options", words),
    });
    lines.into_iter().map(|(key, words)| format!("{key} {words}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Names;

    const HOST: &str = "# made\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch lan\noptions edns0\n";

    #[test]
    fn name_servers() {
        let mut spec = Spec::default();
        assert_eq!(resolv_conf(&spec, HOST), "nameserver 10.0.0.1\nsearch lan\noptions edns0\n");
        spec.isolation.network = Choice::Host;
        assert!(resolv_conf(&spec, HOST).starts_with("nameserver 127.0.0.53\n"));
        spec.names = Names {
            dns: vec!["9.9.9.9".to_owned()],
            dns_search: vec![".".to_owned()],
            dns_options: vec!["ndots:2".to_owned()],
            ..Names::default()
        };
        assert_eq!(resolv_conf(&spec, HOST), "nameserver 9.9.9.9\noptions ndots:2\n");
    }

    #[test]
    fn own_name_and_extra_names() {
        let mut spec = Spec::default();
        spec.names.hosts.push(("db".to_owned(), "10.0.0.7".to_owned()));
        let machine = Machine { hosts: "127.0.0.1 host".to_owned(), ..Machine::default() };
        let text = hosts(&spec, &machine, "box");
        assert!(text.ends_with("127.0.1.1\tbox\n10.0.0.7\tdb\n"), "{text}");
        spec.isolation.network = Choice::Host;
        assert_eq!(hosts(&spec, &machine, "box"), "127.0.0.1 host\n10.0.0.7\tdb\n");
    }
}
