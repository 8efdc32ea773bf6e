//! One call in words.

use kernel::record::{Arg, Event};

/// What a call did: `before` and `after` are the same for calls that differ in their object only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What is done.
    pub before: String,
    /// To what.
    pub item: String,
    /// How.
    pub after: String,
}

impl Words {
    /// An act that stands by itself.
    pub fn plain(text: String) -> Self {
        Self { before: text, item: String::new(), after: String::new() }
    }
}

pub fn argument(event: &Event, place: usize) -> Option<&Arg> {
    event.args.get(place)
}

/// A number or descriptor among the arguments.
pub fn number(event: &Event, place: usize) -> Option<i64> {
    match argument(event, place)? {
        Arg::Int(value) => Some(*value),
        Arg::Fd(value, _) => Some((*value).into()),
        Arg::Flags(value, _) => Some(*value as i64),
        _ => None,
    }
}

/// A string among the arguments; empty where it is none.
pub fn text_of(event: &Event, place: usize) -> String {
    match argument(event, place) {
        Some(Arg::Str(text)) => text.clone(),
        _ => String::new(),
    }
}

/// What a descriptor among the arguments refers to.
pub fn fd_name(event: &Event, place: usize) -> String {
    match argument(event, place) {
        Some(Arg::Fd(_, name)) => name.clone(),
        _ => String::new(),
    }
}

/// A directory descriptor and a path, as one name.
pub fn target(event: &Event, place: usize) -> String {
    let (directory, path) = (fd_name(event, place), text_of(event, place + 1));
    match (directory.as_str(), path.as_str()) {
        (name, "") => name.to_owned(),
        ("working directory", path) => path.to_owned(),
        (name, path) => format!("{name}/{path}"),
    }
}

/// `NOSUID|NODEV` → nosuid, nodev; in the words of mount(8).
pub fn flags(arg: Option<&Arg>) -> Vec<String> {
    let Some(Arg::Flags(_, names)) = arg else { return Vec::new() };
    let word = |name: &str| match name {
        "RDONLY" => "ro".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    names.split('|').filter(|name| !name.is_empty()).map(word).collect()
}

/// A field of a structure among the arguments.
pub fn field<'a>(event: &'a Event, place: usize, name: &str) -> Option<&'a Arg> {
    match argument(event, place)? {
        Arg::Struct(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

/// What a mount_setattr sets and clears.
pub fn attributes(event: &Event) -> Vec<String> {
    let mut words = flags(field(event, 3, "attr_set"));
    words.extend(flags(field(event, 3, "attr_clr")).into_iter().map(|name| format!("not {name}")));
    words.extend(flags(field(event, 3, "propagation")));
    words
}

/// The longest path that is shown whole, and that of the kernel's own files, where each part tells something.
const LONGEST_PATH: usize = 40;
const LONGEST_KERNEL_PATH: usize = 57;

/// A text with ids of 64 digits cut to 12, as in the tables, and a long path cut at its front.
pub fn short(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        out.push_str(&rest[..start]);
        let run = rest[start..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len() - start);
        let digits = &rest[start..start + run];
        match run {
            64 => out.extend([&digits[..12], "…"]),
            _ => out.push_str(digits),
        }
        rest = &rest[start + run..];
    }
    out.push_str(rest);
    shorten_path(out)
}

fn shorten_path(path: String) -> String {
    let length = path.chars().count();
    let is_kernels = path.starts_with("/sys/") || path.starts_with("/proc/");
    let longest = if is_kernels { LONGEST_KERNEL_PATH } else { LONGEST_PATH };
    if !path.starts_with('/') || length <= longest {
        return path;
    }
    let cuts = path.match_indices('/').map(|(at, _)| at);
    let mut tails = cuts.skip(1).map(|at| &path[at..]);
    match tails.find(|tail| tail.chars().count() < longest) {
        Some(tail) => format!("…{tail}"),
        None => path,
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", short(text))
}

/// Any call.
pub fn of(event: &Event) -> Words {
    let plain = |text: String| Words::plain(text);
    let series = |before: &str, item: String, after: &str| Words {
        before: before.to_owned(),
        item,
        after: after.to_owned(),
    };
    match event.call.as_str() {
        "clone" => plain(format!("{}, in this one's memory until it executes", clone(event))),
        "clone3" => plain(clone(event)),
        "unshare" => plain(format!("leave for {}", namespaces(argument(event, 0)))),
        "setns" => plain(format!("enter the namespace {}", fd_name(event, 0))),
        "sethostname" | "setdomainname" => plain(quoted(&text_of(event, 0))),
        "write" => plain(format!("{} to {}", quoted(&text_of(event, 1)), short(&fd_name(event, 0)))),
        "mkdirat" => series("make ", short(&text_of(event, 1)), ""),
        "unlinkat" => series("remove ", short(&text_of(event, 1)), ""),
        "sendto" => plain("netlink message RTM_NEWLINK: device lo, IFF_UP".to_owned()),
        "sendmsg" => {
            plain(format!("ask systemd: {}", argument(event, 1).map_or(String::new(), ToString::to_string)))
        }
        "mount" => plain(mount(event)),
        "umount2" => plain(format!("take {} out of the tree, with all below it", quoted(&text_of(event, 0)))),
        "chroot" => plain(format!("{} becomes this process's root", quoted(&text_of(event, 0)))),
        "pivot_root" => plain(format!(
            "{} becomes /, the old root goes to {}",
            quoted(&text_of(event, 0)),
            quoted(&text_of(event, 1))
        )),
        "open_tree" => open_tree(event),
        "mount_setattr" => plain(format!("{}: {}", short(&target(event, 0)), attributes(event).join(", "))),
        "mknodat" => series("make ", node(event), ""),
        "seccomp" => plain(seccomp(event)),
        "bpf" => plain(bpf(event)),
        "prctl" => prctl(event),
        "capset" => plain(capset(event)),
        "setresuid" => plain(format!("user {}", number(event, 0).unwrap_or(-1))),
        "setresgid" => plain(format!("group {}", number(event, 0).unwrap_or(-1))),
        "setgroups" => plain(groups(event)),
        "execve" => plain(program(text_of(event, 0), argument(event, 1), argument(event, 2))),
        "execveat" => plain(program(fd_name(event, 0), argument(event, 2), argument(event, 3))),
        "pidfd_send_signal" | "kill" => {
            plain(format!("signal {} to process {}", number(event, 1).unwrap_or(0), event.args[0]))
        }
        _ => plain(event.args.iter().map(|arg| short(&arg.to_string())).collect::<Vec<_>>().join(", ")),
    }
}

/// `a new pid namespace`, `new mount, uts, ipc namespaces`.
fn namespaces(arg: Option<&Arg>) -> String {
    let Some(Arg::Flags(_, names)) = arg else { return String::new() };
    let word = |name: &str| match name {
        "NEWNS" => Some("mount".to_owned()),
        "NEWNET" => Some("network".to_owned()),
        other => other.strip_prefix("NEW").map(str::to_ascii_lowercase),
    };
    let kinds: Vec<String> = names.split('|').filter_map(word).collect();
    match kinds.as_slice() {
        [] => String::new(),
        [one] => format!("a new {one} namespace"),
        many => format!("new {} namespaces", many.join(", ")),
    }
}

fn clone(event: &Event) -> String {
    let flags = field(event, 0, "flags");
    let names = match flags {
        Some(Arg::Flags(_, names)) => names.as_str(),
        _ => "",
    };
    let mut parts = match event.result {
        pid if pid >= 0 => vec![format!("process {pid}")],
        _ => vec!["a process".to_owned()],
    };
    let kinds = namespaces(flags);
    if !kinds.is_empty() {
        parts.push(format!("in {kinds}"));
    }
    if names.contains("INTO_CGROUP") {
        parts.push("born in its control group".to_owned());
    }
    if names.contains("PARENT") {
        parts.push("a child of the monitor".to_owned());
    }
    parts.join(", ")
}

fn mount(event: &Event) -> String {
    let (source, place, kind) = (text_of(event, 0), text_of(event, 1), text_of(event, 2));
    let mut options = flags(argument(event, 3));
    match kind.as_str() {
        "" if source.is_empty() => {
            let all = options.len();
            options.retain(|flag| flag != "rec");
            let below = if options.len() < all { " and every mount below it" } else { "" };
            format!("{}{below}: {}", short(&place), options.join(", "))
        }
        "" => format!("{} on {} ({})", short(&source), short(&place), options.join(", ")),
        kind => {
            options.extend(Some(short(&text_of(event, 4))).filter(|data| !data.is_empty()));
            format!("{kind} {} on {} ({})", short(&source), short(&place), options.join(", "))
        }
    }
}

fn open_tree(event: &Event) -> Words {
    let how = flags(argument(event, 2));
    let below = if how.iter().any(|flag| flag == "recursive") { ", with all mounts below" } else { "" };
    let verb = if how.iter().any(|flag| flag == "clone") { "copy the mount at" } else { "open" };
    Words { before: format!("{verb} "), item: short(&target(event, 0)), after: below.to_owned() }
}

/// `null (c 1:3, 0666)`.
fn node(event: &Event) -> String {
    let (mode, device) = (number(event, 2).unwrap_or(0) as u32, number(event, 3).unwrap_or(0) as u64);
    let kind = match mode & 0o170_000 {
        0o020_000 => "c",
        0o060_000 => "b",
        _ => "p",
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    format!("{} ({kind} {major}:{minor}, {:04o})", text_of(event, 1), mode & 0o7777)
}

fn seccomp(event: &Event) -> String {
    match field(event, 2, "len") {
        Some(Arg::Int(count)) => format!("filter every system call by a program of {count} instructions"),
        _ => "filter every system call".to_owned(),
    }
}

fn bpf(event: &Event) -> String {
    match (field(event, 1, "insn_cnt"), field(event, 1, "target_fd")) {
        (Some(count), _) => format!("check and load a device program of {count} instructions"),
        (_, Some(Arg::Fd(_, group))) => match argument(event, 0) {
            Some(Arg::Flags(_, name)) if name == "BPF_PROG_DETACH" => {
                format!("detach the program before from {}", short(group))
            }
            _ => format!("attach the program to {}", short(group)),
        },
        _ => event.args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// `NET_ADMIN` for 12.
pub fn capability(number: i64) -> String {
    let name = usize::try_from(number).ok().and_then(|number| runtime::CAPABILITIES.get(number));
    name.map_or(format!("capability {number}"), |name| name.trim_start_matches("CAP_").to_owned())
}

fn prctl(event: &Event) -> Words {
    let name = match argument(event, 0) {
        Some(Arg::Flags(_, name)) => name.as_str(),
        _ => "",
    };
    let series = |before: &str, value: Option<i64>| Words {
        before: before.to_owned(),
        item: capability(value.unwrap_or(-1)),
        after: String::new(),
    };
    match name {
        "PR_CAPBSET_DROP" => series("out of the bounding set: ", number(event, 1)),
        "PR_CAP_AMBIENT" => series("into the ambient set: ", number(event, 2)),
        _ => {
            let values = event.args[1..].iter().map(ToString::to_string).collect::<Vec<_>>();
            Words::plain(format!("{name} {}", values.join(" ")))
        }
    }
}

fn capset(event: &Event) -> String {
    let set = |name| match field(event, 1, name) {
        Some(Arg::Flags(bits, _)) => *bits,
        _ => 0,
    };
    let names = |bits: u64| match bits {
        0 => "nothing".to_owned(),
        bits => {
            let names = (0..64).filter(|number| bits & (1 << number) != 0).map(capability);
            names.collect::<Vec<_>>().join(", ")
        }
    };
    let (effective, permitted, inheritable) = (set("effective"), set("permitted"), set("inheritable"));
    let mut parts = match effective == permitted {
        true => vec![format!("effective and permitted: {}", names(effective))],
        false => {
            vec![format!("effective: {}", names(effective)), format!("permitted: {}", names(permitted))]
        }
    };
    parts.push(format!("inheritable: {}", names(inheritable)));
    parts.join("; ")
}

fn groups(event: &Event) -> String {
    match argument(event, 1) {
        Some(Arg::List(groups)) if !groups.is_empty() => format!("further groups {}", groups.join(", ")),
        _ => "no further groups".to_owned(),
    }
}

fn program(file: String, argv: Option<&Arg>, environment: Option<&Arg>) -> String {
    let argv: Vec<String> = match argv {
        Some(Arg::List(items)) => items.iter().map(|item| quoted(item)).collect(),
        _ => Vec::new(),
    };
    let count = environment.map_or(String::new(), ToString::to_string);
    format!("become {}: [{}], {count} in its environment", short(&file), argv.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_long_paths_are_shortened() {
        let id = "ab12".repeat(16);
        assert_eq!(short(&id), "ab12ab12ab12…");
        assert_eq!(
            short(&format!("/sys/fs/cgroup/pids/coracle/{id}/pids.max")),
            "/sys/fs/cgroup/pids/coracle/ab12ab12ab12…/pids.max"
        );
        let long = format!("/{}/layers/fs", "x".repeat(60));
        assert_eq!(short(&long), "…/layers/fs");
        assert_eq!(short("/proc"), "/proc");
    }

    #[test]
    fn an_unknown_call_is_shown_with_its_arguments() {
        let event = Event {
            actor: kernel::record::Actor::Monitor,
            chapter: kernel::record::Chapter::Limits,
            call: "newcall".to_owned(),
            args: vec![Arg::Int(1), Arg::Str("x".to_owned())],
            result: 0,
            start_ns: 0,
            duration_ns: 0,
            why: String::new(),
        };
        assert_eq!(of(&event), Words::plain("1, \"x\"".to_owned()));
    }
}
