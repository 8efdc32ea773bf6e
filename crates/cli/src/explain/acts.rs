//! Calls joined to what a reader takes for one act: the seven calls of a mount, the 26 of a bounding set.

use kernel::record::{Actor, Arg, Event};

use super::words::{self, Words, argument, fd_name, number, short, text_of};

/// Two names that are longer together do not fit into their column.
const MOST_NAMES: usize = 20;

/// One or more consecutive calls of one process that do one thing, for one reason.
#[derive(Debug)]
pub struct Act<'a> {
    /// Who did it.
    pub actor: Actor,
    /// Why, as recorded: no capital, no full stop.
    pub why: &'a str,
    /// The error number of the call that failed, if one did.
    pub failed: Option<i64>,
    names: Vec<(&'a str, usize)>,
    words: Words,
    items: Vec<String>,
    took_ns: u64,
}

impl<'a> Act<'a> {
    fn new(calls: &[&'a Event], words: Words) -> Self {
        let (first, item) = (calls[0], words.item.clone());
        let mut names: Vec<(&str, usize)> = Vec::new();
        for event in calls {
            add_name(&mut names, &event.call, 1);
        }
        Self {
            actor: first.actor,
            why: &first.why,
            failed: calls.iter().find(|event| event.result < 0).map(|event| -event.result),
            names,
            words,
            items: vec![item],
            took_ns: calls.iter().map(|event| event.duration_ns).sum(),
        }
    }

    /// Takes in an act that differs in the object only: one more capability, one more hidden path.
    fn absorb(&mut self, other: &Self) -> bool {
        let alike = (self.actor, self.why, &self.words.before, &self.words.after)
            == (other.actor, other.why, &other.words.before, &other.words.after);
        let alike = alike && !other.words.item.is_empty() && self.failed.is_none() && other.failed.is_none();
        if alike {
            self.items.extend(other.items.iter().cloned());
            self.took_ns += other.took_ns;
            for (name, count) in &other.names {
                add_name(&mut self.names, name, *count);
            }
        }
        alike
    }

    /// What was done, with which arguments.
    pub fn words(&self) -> String {
        format!("{}{}{}", self.words.before, self.items.join(", "), self.words.after)
    }

    /// The calls it took: `prctl ×26`, `fsopen…move_mount ×5`.
    pub fn calls(&self) -> String {
        let count: usize = self.names.iter().map(|(_, count)| count).sum();
        match self.names.as_slice() {
            [(name, 1)] => (*name).to_owned(),
            [(name, _)] => format!("{name} ×{count}"),
            [(first, _), .., (last, _)] if first.len() + last.len() < MOST_NAMES => {
                format!("{first}…{last} ×{count}")
            }
            [(first, _), ..] => format!("{first}… ×{count}"),
            [] => String::new(),
        }
    }

    /// How long the calls took; an execve that succeeds has no end.
    pub fn time(&self) -> String {
        if self.took_ns == 0 { String::new() } else { super::time(self.took_ns) }
    }
}

fn add_name<'a>(names: &mut Vec<(&'a str, usize)>, name: &'a str, count: usize) {
    match names.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum += count,
        None => names.push((name, count)),
    }
}

/// The acts of one chapter.
pub fn fold<'a>(events: &[&'a Event]) -> Vec<Act<'a>> {
    let mut acts: Vec<Act<'a>> = Vec::new();
    let mut rest = events;
    while !rest.is_empty() {
        let (count, words) = new_mount(rest)
            .or_else(|| bind(rest))
            .or_else(|| attach(rest))
            .unwrap_or_else(|| (1, words::of(rest[0])));
        let (calls, after) = rest.split_at(count);
        let act = Act::new(calls, words);
        if !acts.last_mut().is_some_and(|last| last.absorb(&act)) {
            acts.push(act);
        }
        rest = after;
    }
    acts
}

/// The events at the start of `events` that belong to the first one: same process, same reason, all successful.
fn together<'a, 'b>(events: &'b [&'a Event]) -> &'b [&'a Event] {
    let first = events[0];
    let belongs = |event: &&Event| event.actor == first.actor && event.why == first.why && event.result >= 0;
    &events[..events.iter().take_while(|event| belongs(event)).count()]
}

/// fsopen, fsconfig…, fsmount and, where it follows, move_mount: `mount proc on /proc (nosuid, nodev, noexec)`.
fn new_mount(events: &[&Event]) -> Option<(usize, Words)> {
    let calls = together(events);
    let kind = text_of(calls.first().filter(|event| event.call == "fsopen")?, 0);
    // Between them a layer may be opened and its owners shifted.
    let describes =
        |event: &&&Event| matches!(event.call.as_str(), "fsconfig" | "open_tree" | "mount_setattr");
    let settings = calls[1..].iter().take_while(describes).count();
    let fsmount = calls.get(settings + 1).filter(|event| event.call == "fsmount")?;
    let moved = calls.get(settings + 2).filter(|event| event.call == "move_mount");
    let moved = moved.filter(|event| number(event, 0) == Some(fsmount.result));
    let place = moved.map(|event| words::target(event, 2));
    // /sys/fs/cgroup/cpu says that it is cpu's.
    let last = place.as_deref().and_then(|place| place.rsplit('/').next()).unwrap_or("");
    let said =
        |option: &String| option == last || option.strip_prefix("name=").is_some_and(|name| name == last);
    let mut options: Vec<String> = calls[1..=settings]
        .iter()
        .filter_map(|event| setting(event, &kind))
        .filter(|option| !said(option))
        .collect();
    options.extend(words::flags(argument(fsmount, 2)));
    let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
    Some(match place {
        Some(place) => {
            (settings + 3, Words { before: format!("mount {kind} on "), item: short(&place), after: options })
        }
        None => (settings + 2, Words::plain(format!("make a mount of {kind}, still detached{options}"))),
    })
}

/// `size=64m` of an fsconfig; nothing where it says no more than the kind does.
fn setting(event: &Event, kind: &str) -> Option<String> {
    if event.call != "fsconfig" {
        return words::attributes(event).contains(&"idmap".to_owned()).then(|| "shifted owners".to_owned());
    }
    let key = text_of(event, 2);
    match argument(event, 3) {
        Some(Arg::Str(value)) if key == "source" && (value == kind || value == "cgroup") => None,
        Some(Arg::Str(value)) => Some(format!("{key}={}", short(value))),
        _ if key.is_empty() => None,
        _ => Some(match argument(event, 4) {
            Some(Arg::Fd(_, name)) => format!("{key}={}", short(name)),
            _ => key,
        }),
    }
}

/// open_tree and move_mount with what stands around them: `bind /dev/null on /proc/keys`.
fn bind(events: &[&Event]) -> Option<(usize, Words)> {
    let calls = together(events);
    let opened = calls.first().filter(|event| event.call == "open_tree")?;
    let of_tree = |event: &&&Event, call| event.call == call && number(event, 0) == Some(opened.result);
    let before = calls[1..].iter().take_while(|event| of_tree(event, "mount_setattr")).count();
    let moved = calls.get(before + 1).filter(|event| of_tree(event, "move_mount"))?;
    let after = calls[before + 2..].iter().take_while(|event| of_tree(event, "mount_setattr")).count();
    let count = before + 2 + after;
    let changes = calls[..count].iter().filter(|event| event.call == "mount_setattr");
    let options: Vec<String> = changes.flat_map(|event| words::attributes(event)).collect();
    let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
    let (source, target) = (words::target(opened, 0), words::target(moved, 2));
    let before =
        if source == target { "bind to itself ".to_owned() } else { format!("bind {} on ", short(&source)) };
    Some((count, Words { before, item: short(&target), after: options }))
}

/// move_mount of a tree that was opened before, and what is changed of it then: `attach …/hosts at /etc/hosts (private)`.
fn attach(events: &[&Event]) -> Option<(usize, Words)> {
    let moved = events.first().filter(|event| event.call == "move_mount")?;
    let is_same = |event: &&&Event| event.call == "mount_setattr" && number(event, 0) == number(moved, 0);
    let changes = together(events).iter().skip(1).take_while(is_same).count();
    let options: Vec<String> =
        events[1..=changes].iter().flat_map(|event| words::attributes(event)).collect();
    let after = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
    let item = format!("{} at {}", short(&fd_name(moved, 0)), short(&words::target(moved, 2)));
    Some((1 + changes, Words { before: "attach ".to_owned(), item, after }))
}
