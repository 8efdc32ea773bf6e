//! `--filter NAME=VALUE`, as docker and podman have it.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::time;

/// What was given, with the names of those that the command has.
#[derive(Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads `NAME=VALUE` of each option; one that is not in `names` is refused.
    pub fn parse(given: &[String], names: &[&str]) -> Result<Self, Error> {
        let mut filters = Vec::new();
        for text in given {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| refused(text, "it is not NAME=VALUE".to_owned(), names))?;
            // `label!=x` is a filter of its own.
            let name = name.trim().to_ascii_lowercase();
            if !names.contains(&name.as_str()) {
                return Err(refused(text, format!("there is no filter \"{name}\" here"), names));
            }
            filters.push((name, value.trim().to_owned()));
        }
        Ok(Self(filters))
    }

    /// The values of a filter.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a filter is given.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// A filter that is true or false; the last one counts.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.values(name).last() else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => Ok(Some(true)),
            "false" | "0" | "f" => Ok(Some(false)),
            _ => Err(Error::new(
                format!("cannot use the filter \"{name}={value}\""),
                Some("it is neither true nor false".to_owned()),
                Some(format!("give --filter {name}=true or {name}=false")),
            )),
        }
    }

    /// Before when something must have been made (`until`), in seconds since 1970: the earliest of those given.
    pub fn until(&self, now: u64) -> Result<Option<u64>, Error> {
        let read = |text: &str| {
            moment(text, now).ok_or_else(|| {
                Error::new(
                    format!("cannot use the filter \"until={text}\""),
                    Some("it is neither a time nor a duration".to_owned()),
                    Some(
                        "give for example until=24h, until=2026-01-31 or until=2026-01-31T12:00:00Z"
                            .to_owned(),
                    ),
                )
            })
        };
        let times = self.values("until").map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(times.into_iter().min())
    }

    /// Whether something with these labels has all of `label` and none of `label!`.
    pub fn accepts_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|known| known == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").all(has) && !self.values("label!").any(has)
    }

    /// Whether something made then is older than `until`; what does not say when is.
    pub fn accepts_created(until: Option<u64>, created: Option<&str>) -> bool {
        match (until, created.and_then(time::seconds)) {
            (Some(until), Some(created)) => created < until,
            _ => true,
        }
    }
}

fn refused(text: &str, cause: String, names: &[&str]) -> Error {
    let advice = format!("filters here: {}", names.join(", "));
    Error::new(format!("cannot use the filter \"{text}\""), Some(cause), Some(advice))
}

/// Seconds since 1970 of a time, or of now less a duration as Go writes it (`1h30m`).
fn moment(text: &str, now: u64) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds >= 0.0).then_some(seconds as u64);
    }
    if let Some(duration) = duration(text) {
        return Some(now.saturating_sub(duration as u64));
    }
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    time::seconds(&whole)
}

/// Seconds of `1h30m`, `90s`, `1.5h`.
fn duration(text: &str) -> Option<f64> {
    let (mut total, mut rest) = (0.0, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|letter: char| letter.is_ascii_digit());
        let unit_end = unit_end.map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                "us" | "µs" => 0.000_001,
                "ns" => 0.000_000_001,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(total)
}

/// Whether a text is as a pattern says: `*` and `?` stand for anything but a slash, `[a-z]` for one letter.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    matches(&pattern, &text)
}

fn matches(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            let reach = text.iter().position(|letter| *letter == '/').unwrap_or(text.len());
            (0..=reach).any(|skipped| matches(rest, &text[skipped..]))
        }
        (['?', rest @ ..], [letter, after @ ..]) => *letter != '/' && matches(rest, after),
        (['[', rest @ ..], [letter, after @ ..]) => {
            let Some(end) = rest.iter().skip(1).position(|letter| *letter == ']').map(|at| at + 1) else {
                return false;
            };
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let (negated, set) = match set {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            in_set(set, *letter) != negated && matches(rest, after)
        }
        ([expected, rest @ ..], [letter, after @ ..]) => expected == letter && matches(rest, after),
        _ => false,
    }
}

fn in_set(set: &[char], letter: char) -> bool {
    match set {
        [] => false,
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&letter) || in_set(rest, letter),
        [one, rest @ ..] => *one == letter || in_set(rest, letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_docker_s() {
        for (pattern, text, expected) in [
            ("busy*", "busybox", true),
            ("busy*", "library/busybox", false),
            ("*/busybox", "library/busybox", true),
            ("b?sy[a-c]ox", "busybox", true),
            ("b[^u]sybox", "busybox", false),
            ("*:latest", "a:latest", true),
            ("*", "a/b", false),
            ("a", "ab", false),
            ("[", "[", false),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn times_are_moments_or_durations() {
        for (text, expected) in [
            ("1h30m", Some(100_000 - 5400)),
            ("90s", Some(100_000 - 90)),
            ("1.5h", Some(100_000 - 5400)),
            ("12", Some(12)),
            ("1970-01-02", Some(86_400)),
            ("1970-01-02T00:01", Some(86_460)),
            ("1970-01-02T00:01:00Z", Some(86_460)),
            ("yesterday", None),
            ("5x", None),
            ("", None),
        ] {
            assert_eq!(moment(text, 100_000), expected, "{text}");
        }
    }

    #[test]
    fn labels_are_asked_for_or_refused() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let accepts = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filters::parse(&texts, &["label", "label!"]).map(|filters| filters.accepts_labels(&labels)).ok()
        };
        assert_eq!(accepts(&["label=a"]), Some(true));
        assert_eq!(accepts(&["label=a=1", "label!=b"]), Some(true));
        assert_eq!(accepts(&["label=a=2"]), Some(false));
        assert_eq!(accepts(&["label!=a"]), Some(false));
        assert_eq!(accepts(&["colour=red"]), None);
        assert_eq!(accepts(&["label"]), None);
    }
}
