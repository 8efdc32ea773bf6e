//! Who the container's process is: names looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! The C library's getpwnam would load the host's name service modules into this process; these two files are read
//! here instead, after the container's root has become the root. See passwd(5), group(5).

use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};
use crate::spec::User;

/// Names beyond this are not read: no honest passwd file is longer.
const MOST_BYTES: usize = 4 << 20;

/// The greatest user and group id, as docker has it: more would be negative for programs that take ids for signed.
pub(crate) const MOST_ID: u32 = i32::MAX as u32;

/// Reads an id; none for what is no number, and for one that is too large.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MOST_ID)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Who a process is, and where it is at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Numeric ids.
    pub user: User,
    /// The home directory of the passwd entry, `/` without one.
    pub home: String,
}

/// The name of a user in `/etc/passwd`, if there is one.
pub(crate) fn name_of(uid: u32) -> Result<Option<String>> {
    let passwd = read_regular(Path::new("/etc/passwd"))?;
    Ok(passwd_entries(&passwd).find(|entry| entry.uid == uid).map(|entry| entry.name.to_owned()))
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
    })
}

/// Name, id and members of each group.
fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, id(fields.nth(1)?)?, fields.next().unwrap_or("")))
    })
}

/// Looks up `typed` (`name`, `uid`, `name:group`, `uid:gid`; none keeps `given`) in the root this process is in.
///
/// A number that is in no file is taken as it is; a name that is in no file is an error, as docker has it.
pub fn identify(typed: Option<&str>, given: &User) -> Result<Identity> {
    resolve(typed, given, &read_regular(Path::new("/etc/passwd"))?, &read_regular(Path::new("/etc/group"))?)
}

fn resolve(typed: Option<&str>, given: &User, passwd: &str, group: &str) -> Result<Identity> {
    let mut user = given.clone();
    let Some(typed) = typed.filter(|typed| !typed.is_empty()) else {
        let home = passwd_entries(passwd).find(|entry| entry.uid == user.uid).map_or("/", |entry| entry.home);
        return Ok(Identity { home: home_or_root(home), user });
    };
    let (name, group_name) = match typed.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (typed, None),
    };
    let number = id(name);
    let entry = passwd_entries(passwd).find(|entry| entry.name == name || Some(entry.uid) == number);
    (user.uid, user.gid) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(number)) => (number, 0),
        (None, None) if name.is_empty() => (0, 0),
        (None, None) if is_number(name) => {
            return Err(Error::IdRange { kind: "user", typed: name.to_owned() });
        }
        (None, None) => return Err(Error::UnknownUser { name: name.to_owned() }),
    };
    match group_name {
        Some(wanted) => user.gid = group_id(wanted, group)?,
        None => {
            let member = entry.as_ref().map_or("", |entry| entry.name);
            let belongs = |members: &str| !member.is_empty() && members.split(',').any(|one| one == member);
            for (_, id, _) in group_entries(group).filter(|(.., members)| belongs(members)) {
                if !user.additional_gids.contains(&id) {
                    user.additional_gids.push(id);
                }
            }
        }
    }
    // A process could drop a group that stands nowhere else, and with it what that group is denied (CVE-2022-36109).
    user.additional_gids.retain(|id| *id != user.gid);
    user.additional_gids.insert(0, user.gid);
    Ok(Identity { home: home_or_root(entry.map_or("/", |entry| entry.home)), user })
}

fn group_id(wanted: &str, group: &str) -> Result<u32> {
    let found = group_entries(group).find(|(name, ..)| *name == wanted).map(|(_, id, _)| id);
    found.or_else(|| id(wanted)).ok_or_else(|| match is_number(wanted) {
        true => Error::IdRange { kind: "group", typed: wanted.to_owned() },
        false => Error::UnknownGroup { name: wanted.to_owned() },
    })
}

/// Group ids for `--group-add`: names are looked up, numbers taken as they are.
pub fn group_ids(names: &[String]) -> Result<Vec<u32>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let group = read_regular(Path::new("/etc/group"))?;
    names.iter().map(|name| group_id(name, &group)).collect()
}

fn home_or_root(home: &str) -> String {
    if home.is_empty() { "/".to_owned() } else { home.to_owned() }
}

/// The text of a regular file; empty when there is none. An image may have put a FIFO or a device there, which must not
/// make us wait.
fn read_regular(path: &Path) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(String::new()) };
    let failed = |errno: rustix::io::Errno| std::io::Error::other(format!("{}: {errno}", path.display()));
    let status = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile
        || status.st_size as usize > MOST_BYTES
    {
        return Ok(String::new());
    }
    let mut bytes = vec![0; status.st_size as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::read(&file, &mut bytes[filled..]).map_err(failed)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv/web:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\naudio:x:29:other,web\nlogs:x:4:web\n";

    fn ids(typed: &str) -> (u32, u32, Vec<u32>, String) {
        let found = resolve(Some(typed), &User::default(), PASSWD, GROUP).unwrap();
        (found.user.uid, found.user.gid, found.user.additional_gids, found.home)
    }

    #[test]
    fn finds_users_as_docker_does() {
        assert_eq!(ids("web"), (33, 34, vec![34, 29, 4], "/srv/web".to_owned()));
        assert_eq!(ids("33"), (33, 34, vec![34, 29, 4], "/srv/web".to_owned()));
        assert_eq!(ids("web:audio"), (33, 29, vec![29], "/srv/web".to_owned()));
        assert_eq!(ids("1000"), (1000, 0, vec![0], "/".to_owned()));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![1000], "/".to_owned()));
        assert_eq!(ids(":34"), (0, 34, vec![34], "/".to_owned()));
    }

    #[test]
    fn refuses_numbers_that_are_no_ids() {
        let refuse = |typed: &str, passwd: &str| {
            resolve(Some(typed), &User::default(), passwd, "g:x:4294967295:\n").unwrap_err().to_string()
        };
        assert_eq!(refuse("4294967295", PASSWD), "user id 4294967295 is out of range");
        assert_eq!(refuse("2147483648", PASSWD), "user id 2147483648 is out of range");
        assert_eq!(refuse("99999999999999999999", PASSWD), "user id 99999999999999999999 is out of range");
        assert_eq!(refuse("1:4294967295", PASSWD), "group id 4294967295 is out of range");
        // No line for such an id counts.
        let told = refuse("a", "a:x:4294967295:0::/:/bin/sh\na:x:0:4294967295::/:/bin/sh\n");
        assert_eq!(told, "user \"a\" is not in the container's /etc/passwd");
        assert_eq!(refuse("0:g", PASSWD), "group \"g\" is not in the container's /etc/group");
        assert_eq!(ids("2147483647").0, 2_147_483_647);
    }

    #[test]
    fn refuses_names_that_are_not_there() {
        let unknown = resolve(Some("nobody"), &User::default(), PASSWD, GROUP).unwrap_err();
        assert_eq!(unknown.to_string(), "user \"nobody\" is not in the container's /etc/passwd");
        let group = resolve(Some("web:none"), &User::default(), PASSWD, GROUP).unwrap_err();
        assert_eq!(group.to_string(), "group \"none\" is not in the container's /etc/group");
    }
}
