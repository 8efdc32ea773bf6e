//! Names of images as people write them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The registry that a name without a host means, as everywhere.
const DEFAULT_HOST: &str = "docker.io";
/// The name space of that registry's own images, left out when people write them.
const OFFICIAL: &str = "library/";
/// The distribution specification's limit on a name with its host, in bytes.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A parsed name. The host and `library/` are filled in, so equal images have equal names; [`fmt::Display`] leaves
/// them out again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and path, for example `docker.io/library/debian`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag as written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The whole name with the host, for example `docker.io/library/debian:12`.
    pub fn canonical(&self) -> String {
        self.with_name(&self.name)
    }

    /// This reference with the tag `latest` where neither tag nor digest was written.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The name people write: without the default host and `library/`, as far as that is read back as the same name.
    pub fn repository(&self) -> &str {
        let path = self.name.strip_prefix(DEFAULT_HOST).and_then(|rest| rest.strip_prefix('/'));
        let means_this = |short: &&str| full_name(short).is_ok_and(|full| full == self.name);
        let shorter = [path.and_then(|path| path.strip_prefix(OFFICIAL)), path];
        shorter.into_iter().flatten().find(means_this).unwrap_or(&self.name)
    }

    fn with_name(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_name(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason| Error::BadReference { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "a tag is up to 128 letters, digits, '_', '.', '-', and begins with no '.' or '-'",
            ));
        }
        let name = full_name(name).map_err(bad)?;
        Ok(Self { name, tag: tag.map(str::to_owned), digest })
    }
}

/// Checks host and path and fills in what was left out.
fn full_name(name: &str) -> std::result::Result<String, &'static str> {
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path.to_owned()),
        Some(_) => (DEFAULT_HOST, name.to_owned()),
        None if Digest::from_hex(name).is_some() => {
            return Err("64 hexadecimal digits are an image's id, not a name");
        }
        None => (DEFAULT_HOST, name.to_owned()),
    };
    let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
    let path = if host == DEFAULT_HOST && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path };
    if !path.split('/').all(is_component) {
        return Err("a name is lower-case letters and digits, with single '.', '_', '-' or '/' between them");
    }
    let full = format!("{host}/{path}");
    if full.len() > NAME_MAX {
        return Err("a name has at most 255 characters");
    }
    if !host_is_valid(host) {
        return Err("the host before the first '/' is no host name or address with an optional port");
    }
    Ok(full)
}

/// Whether the part before the first slash is a host: it has a dot or a port, or is `localhost`.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn host_is_valid(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", port.strip_prefix(':').or((!port.is_empty()).then_some("x")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(label)
        && port
            .is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`: the distribution specification.
fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes
            .split(alphanumeric)
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|byte| *byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// Entry point for fuzzing: parses `data` and checks that what was accepted is read back as the same name.
pub fn fuzz_reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    for written in [reference.canonical(), reference.to_string()] {
        assert_eq!(written.parse::<Reference>().ok().as_ref(), Some(&reference), "{written}");
    }
    assert!(!reference.name.split('/').any(|part| part == ".." || part.is_empty() || part.starts_with(':')));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_is_left_out_and_leaves_it_out_again() {
        for (written, canonical, shown) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("index.docker.io/app", "docker.io/library/app", "app"),
            ("localhost/app:x", "localhost/app:x", "localhost/app:x"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("a__b--c.d", "docker.io/library/a__b--c.d", "a__b--c.d"),
        ] {
            let reference: Reference = written.parse().unwrap();
            assert_eq!((reference.canonical().as_str(), reference.to_string().as_str()), (canonical, shown));
            fuzz_reference(written.as_bytes());
        }
        assert_eq!("a".parse::<Reference>().unwrap().or_latest().to_string(), "a:latest");
        let pinned = format!("a:1@{}", Digest::of(b""));
        assert_eq!(pinned.parse::<Reference>().unwrap().or_latest().to_string(), pinned);
    }

    /// Found by fuzzing: what is left out must not make another name of the rest, or an image's id.
    #[test]
    fn leaves_nothing_out_that_is_needed() {
        let hexadecimal = format!("docker.io/library/{}", "0".repeat(64));
        for (written, shown) in [
            ("docker.io/a.b/c", "docker.io/a.b/c"),
            ("docker.io/localhost/c", "docker.io/localhost/c"),
            ("docker.io/library/a/b", "library/a/b"),
            (hexadecimal.as_str(), hexadecimal.strip_prefix("docker.io/").unwrap()),
        ] {
            assert_eq!(written.parse::<Reference>().unwrap().to_string(), shown);
            fuzz_reference(written.as_bytes());
        }
    }

    #[test]
    fn refuses_what_is_no_name() {
        let long = "a".repeat(256);
        let id = "a".repeat(64);
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "A",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:.x",
            "a@",
            "a@sha256:1",
            "a b",
            "a:b c",
            "host:x/a",
            "host:/a",
            "host:65536/a",
            "host:99999999999999999999/a",
            "ho_st.x/a",
            "ü",
            "a:5000/",
            &long,
            &id,
            "[x]:1/a",
            "[::1]x/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
