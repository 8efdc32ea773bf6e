//! Namespaces: a new one, the host's, another container's.

use runtime::spec::TimeOffset;

use super::{Result, invalid, unsupported};
use crate::spec::Choice;

/// The forms that all namespaces share.
fn choice(text: &str) -> Option<Choice> {
    match text {
        "private" => Some(Choice::Private),
        "host" => Some(Choice::Host),
        _ => {
            let name = text.strip_prefix("container:").filter(|name| !name.is_empty())?;
            Some(Choice::Container(name.to_owned()))
        }
    }
}

/// `--pid`.
pub fn pid(text: &str) -> Result<Choice> {
    let accepted = "private, host and container:NAME";
    choice(text).ok_or_else(|| invalid("--pid", text, "no such PID namespace", accepted))
}

/// `--ipc`: the namespace, and whether `/dev/shm` is left out (`none`).
///
/// `shareable` is the same as `private`: any container of one user may be joined.
pub fn ipc(text: &str) -> Result<(Choice, bool)> {
    match text {
        "none" => Ok((Choice::Private, true)),
        "shareable" => Ok((Choice::Private, false)),
        _ => {
            let accepted = "private, shareable, none (no /dev/shm), host and container:NAME";
            let choice =
                choice(text).ok_or_else(|| invalid("--ipc", text, "no such IPC namespace", accepted));
            Ok((choice?, false))
        }
    }
}

/// `--uts` and `--cgroupns`.
fn own_or_hosts(option: &'static str, text: &str) -> Result<Choice> {
    match choice(text) {
        Some(choice @ (Choice::Private | Choice::Host)) => Ok(choice),
        _ => Err(invalid(option, text, "no such namespace", "private and host")),
    }
}

/// `--uts`.
pub fn uts(text: &str) -> Result<Choice> {
    own_or_hosts("--uts", text)
}

/// `--cgroupns`.
pub fn cgroupns(text: &str) -> Result<Choice> {
    own_or_hosts("--cgroupns", text)
}

/// `--userns`: the namespace, and whether the caller keeps its ids in it (`keep-id`).
pub fn userns(text: &str) -> Result<(Choice, bool)> {
    match text {
        "auto" => Ok((Choice::Private, false)),
        "keep-id" => Ok((Choice::Private, true)),
        _ => {
            let accepted = "host, private, auto (the same) and keep-id";
            match choice(text) {
                Some(choice @ (Choice::Private | Choice::Host)) => Ok((choice, false)),
                _ => Err(invalid("--userns", text, "no such user namespace", accepted)),
            }
        }
    }
}

/// `--network`.
pub fn network(text: &str) -> Result<Choice> {
    const FORMS: &str =
        "--network none (only a loopback device), --network host, or --network container:NAME";
    match text {
        "none" => Ok(Choice::Private),
        "host" => Ok(Choice::Host),
        _ => match choice(text) {
            Some(choice @ Choice::Container(_)) => Ok(choice),
            _ if text.is_empty() || text.starts_with("container:") => {
                Err(invalid("--network", text, "no such network", "none, host and container:NAME"))
            }
            _ => Err(unsupported(
                "--network",
                text,
                "this version has no bridges and no networks of its own",
                Some(FORMS),
            )),
        },
    }
}

/// `--time-offset CLOCK=[+-]SECONDS[.FRACTION][s|m|h|d]`: how far a clock inside is ahead of the host's. See time_namespaces(7).
pub fn time_offset(text: &str) -> Result<(String, TimeOffset)> {
    let accepted = "monotonic=TIME and boottime=TIME, where TIME is seconds or has a suffix s, m, h or d: \
                    boottime=+3600s, monotonic=-10, boottime=1.5d";
    let wrong = |reason: &str| invalid("--time-offset", text, reason, accepted);
    let (clock, time) = text.split_once('=').ok_or_else(|| wrong("it names no clock"))?;
    if !matches!(clock, "monotonic" | "boottime") {
        return Err(wrong("only these two clocks can be shifted; the time of day is the same everywhere"));
    }
    let nanoseconds = nanoseconds(time).ok_or_else(|| wrong("not a time"))?;
    let secs = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).map_err(|_| wrong("too far"))?;
    Ok((clock.to_owned(), TimeOffset { secs, nanosecs: nanoseconds.rem_euclid(1_000_000_000) as u32 }))
}

fn nanoseconds(text: &str) -> Option<i128> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (number, unit) = match rest.char_indices().next_back()? {
        (end, 's') => (&rest[..end], 1),
        (end, 'm') => (&rest[..end], 60),
        (end, 'h') => (&rest[..end], 3600),
        (end, 'd') => (&rest[..end], 86_400),
        _ => (rest, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 12) || !digits(fraction, 9) {
        return None;
    }
    let scale = 10_i128.pow(9 - fraction.len() as u32);
    let value = whole.parse::<i128>().ok()? * 1_000_000_000 + fraction.parse::<i128>().ok()? * scale;
    Some(sign * value * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        assert_eq!(pid("host").unwrap(), Choice::Host);
        assert_eq!(pid("container:web").unwrap(), Choice::Container("web".to_owned()));
        assert!(pid("container:").is_err() && pid("none").is_err());
        assert_eq!(ipc("none").unwrap(), (Choice::Private, true));
        assert_eq!(ipc("shareable").unwrap(), (Choice::Private, false));
        assert!(uts("container:web").is_err() && uts("").is_err());
        assert_eq!(cgroupns("private").unwrap(), Choice::Private);
        assert_eq!(userns("keep-id").unwrap(), (Choice::Private, true));
        assert!(userns("keep-id:uid=1").is_err() && userns("container:web").is_err());
    }

    #[test]
    fn networks() {
        assert_eq!(network("none").unwrap(), Choice::Private);
        assert_eq!(network("host").unwrap(), Choice::Host);
        assert_eq!(network("container:web").unwrap(), Choice::Container("web".to_owned()));
        let refused = network("bridge").unwrap_err().to_string();
        assert!(refused.contains("--network bridge cannot be honoured"), "{refused}");
        assert!(network("").is_err() && network("private").is_err());
    }

    #[test]
    fn clocks() {
        let offset = |text| time_offset(text).map(|(_, offset)| (offset.secs, offset.nanosecs)).ok();
        assert_eq!(offset("boottime=+3600s"), Some((3600, 0)));
        assert_eq!(offset("monotonic=-10"), Some((-10, 0)));
        assert_eq!(offset("monotonic=-1.5"), Some((-2, 500_000_000)));
        assert_eq!(offset("boottime=1.5d"), Some((129_600, 0)));
        assert_eq!(offset("boottime=2h"), Some((7200, 0)));
        for wrong in [
            "boottime",
            "boottime=",
            "realtime=1",
            "boottime=1y",
            "boottime=--1",
            "boottime=1.",
            "boottime=é",
        ] {
            assert_eq!(offset(wrong), None, "{wrong}");
        }
    }
}
