//! What `run --explain` prints: the record of the acts that made a container, for people or as JSON.
//!
//! The record is [`kernel::record`]'s: made by the very functions that make the calls. Here it is only told: in chapters, each act in
//! words, acts with one reason under one sentence. The JSON form has every call as it was made.

mod acts;
mod words;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use kernel::record::{Actor, Arg, Chapter, Event, Log};
use serde::Serialize;

use self::acts::{Act, fold};
pub use self::words::{capability, short};

/// The form of `--explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Chapters and sentences for people.
    Text,
    /// One line, one JSON document, with every call as it was made.
    Json,
}

/// Columns of the text form.
const WIDTH: usize = 110;
/// The shortest text that counts as a secret; shorter ones are in every number.
const SHORTEST_SECRET: usize = 4;
const REDACTED: &str = "[redacted]";

/// Prints the record to standard error, after all that the container printed there. No `secrets` appear in it.
pub fn print(log: &Log, form: Form, secrets: &[&str]) {
    let mut events = in_order(log.events());
    redact(&mut events, secrets);
    let processes = processes(&events, std::process::id());
    let stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let printed = match form {
        Form::Text => text(&events, &processes, &Style::new(colour)),
        // The container's last line may have no end.
        Form::Json => format!("\n{}\n", json(&events, &processes)),
    };
    // Nobody is left to tell when standard error is closed.
    let _ = stderr.lock().write_all(printed.as_bytes());
}

/// One of coracle's processes, by its number on the host.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Process {
    actor: Actor,
    pid: i64,
}

/// Who was which process: the command line knows its own number, each other one is what the first clone of its maker returned. The
/// further ones of the command line and the monitor are helpers.
fn processes(events: &[Event], own: u32) -> Vec<Process> {
    let mut found = vec![Process { actor: Actor::CommandLine, pid: own.into() }];
    let has_intermediate = events.iter().any(|event| event.actor == Actor::Intermediate);
    for maker in [Actor::CommandLine, Actor::Monitor, Actor::Intermediate] {
        let made = match maker {
            Actor::CommandLine => Actor::Monitor,
            Actor::Monitor if has_intermediate => Actor::Intermediate,
            _ => Actor::Container,
        };
        let mut clones =
            events.iter().filter(|event| event.actor == maker && event.call.starts_with("clone"));
        if let Some(event) = clones.next().filter(|event| event.result > 0) {
            found.push(Process { actor: made, pid: event.result });
        }
        if matches!(maker, Actor::CommandLine | Actor::Monitor) {
            let helpers = clones.filter(|event| event.result > 0);
            found.extend(helpers.map(|event| Process { actor: Actor::Helper, pid: event.result }));
        }
    }
    found
}

/// A call is recorded when it has returned, so the monitor's first act may stand before the clone that made it. These two share a clock;
/// the container's may be shifted.
fn in_order(mut events: Vec<Event>) -> Vec<Event> {
    let of_host = |event: &Event| matches!(event.actor, Actor::CommandLine | Actor::Monitor);
    let places: Vec<usize> = (0..events.len()).filter(|place| of_host(&events[*place])).collect();
    let mut sorted: Vec<Event> = places.iter().map(|place| events[*place].clone()).collect();
    sorted.sort_by_key(|event| event.start_ns);
    for (place, event) in places.into_iter().zip(sorted) {
        events[place] = event;
    }
    events
}

/// Takes the secrets out of all arguments. The environment is never in them; but who passes a secret by `-e` may name it in the command
/// too.
fn redact(events: &mut [Event], secrets: &[&str]) {
    let mut secrets: Vec<&str> =
        secrets.iter().copied().filter(|secret| secret.len() >= SHORTEST_SECRET).collect();
    // A secret that contains another one goes first.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for event in events {
        event.args.iter_mut().for_each(|arg| redact_arg(arg, &secrets));
    }
}

fn redact_arg(arg: &mut Arg, secrets: &[&str]) {
    let clean = |text: &mut String| {
        for secret in secrets.iter().filter(|secret| !REDACTED.contains(**secret)) {
            if text.contains(secret) {
                *text = text.replace(secret, REDACTED);
            }
        }
    };
    match arg {
        Arg::Int(_) | Arg::Flags(..) => {}
        Arg::Str(text) | Arg::Words(text) | Arg::Fd(_, text) => clean(text),
        Arg::List(items) => items.iter_mut().for_each(clean),
        Arg::Struct(fields) => fields.iter_mut().for_each(|(_, value)| redact_arg(value, secrets)),
    }
}

fn json(events: &[Event], processes: &[Process]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        version: u32,
        processes: &'a [Process],
        events: &'a [Event],
    }
    // Numbers, strings and lists only: nothing that cannot be written as JSON.
    serde_json::to_string(&Document { version: 1, processes, events }).unwrap_or_default()
}

/// Escape sequences, or nothing where they would be noise.
struct Style {
    heading: &'static str,
    why: &'static str,
    call: &'static str,
    faint: &'static str,
    failed: &'static str,
    off: &'static str,
}

impl Style {
    fn new(colour: bool) -> Self {
        match colour {
            true => Self {
                heading: "\x1b[1;36m",
                why: "\x1b[33m",
                call: "\x1b[1m",
                faint: "\x1b[2m",
                failed: "\x1b[1;31m",
                off: "\x1b[0m",
            },
            false => Self { heading: "", why: "", call: "", faint: "", failed: "", off: "" },
        }
    }
}

const CHAPTERS: [(Chapter, &str, &str); 5] = [
    (Chapter::Namespaces, "Namespaces", "what the process sees as its own"),
    (Chapter::Limits, "Limits", "how much of the machine it may use"),
    (Chapter::RootFileSystem, "Root file system", "the files it finds"),
    (Chapter::Process, "Process", "who it is and what it may do"),
    (Chapter::CleanUp, "Clean-up", "what is undone at the end"),
];

fn text(events: &[Event], processes: &[Process], style: &Style) -> String {
    let mut out = String::new();
    for (chapter, title, subtitle) in CHAPTERS {
        let of_chapter: Vec<&Event> = events.iter().filter(|event| event.chapter == chapter).collect();
        if of_chapter.is_empty() {
            continue;
        }
        let sum = format!("{}, {}", counted(of_chapter.len(), "call"), time(total(&of_chapter)));
        heading(&mut out, title, subtitle, &sum, style);
        let mut why = "";
        let acts = fold(&of_chapter);
        for act in &acts {
            if act.why != why {
                why = act.why;
                sentence(&mut out, why, style);
            }
            line(&mut out, act, style);
        }
    }
    summary(&mut out, events, processes, style);
    out
}

fn total(events: &[&Event]) -> u64 {
    events.iter().map(|event| event.duration_ns).sum()
}

fn heading(out: &mut String, title: &str, subtitle: &str, sum: &str, style: &Style) {
    let used = title.chars().count() + subtitle.chars().count() + sum.chars().count() + 12;
    let rule = "─".repeat(WIDTH.saturating_sub(used));
    let Style { heading, faint, off, .. } = style;
    let _ = writeln!(out, "\n{heading}── {title}{off} {faint}── {subtitle} {rule} {sum} ──{off}");
}

/// `one call makes …` → `  One call makes … .`
fn sentence(out: &mut String, why: &str, style: &Style) {
    let mut letters = why.chars();
    // An option, a call or a file at the start is written as it is.
    let is_a_name = why.split(' ').next().is_some_and(|word| word.contains(['-', '_', '/']));
    let capital = letters.next().map(|first| if is_a_name { first } else { first.to_ascii_uppercase() });
    let sentence: String = capital.into_iter().chain(letters).chain(['.']).collect();
    for (number, part) in wrap(&sentence, WIDTH - 4).into_iter().enumerate() {
        let _ = writeln!(out, "{}{}{part}{}", if number == 0 { "\n  " } else { "  " }, style.why, style.off);
    }
}

/// Widths of the columns: who, call; then come words and the time.
const WHO: usize = 13;
const CALL: usize = 25;
const TIME: usize = 9;
const WORDS: usize = WIDTH - 4 - WHO - CALL - TIME - 2;

fn line(out: &mut String, act: &Act<'_>, style: &Style) {
    let mut words = act.words();
    if let Some(errno) = act.failed {
        let _ = write!(words, " — failed: {}", std::io::Error::from_raw_os_error(errno as i32));
    }
    let Style { call, faint, off, .. } = style;
    let tone = if act.failed.is_some() { style.failed } else { "" };
    let end = if tone.is_empty() { "" } else { off };
    for (number, part) in wrap(&words, WORDS).into_iter().enumerate() {
        let padding = " ".repeat(WORDS.saturating_sub(part.chars().count()));
        let _ = match number {
            0 => {
                let (who, calls, time) = (who(act.actor), act.calls(), act.time());
                writeln!(
                    out,
                    "    {faint}{who:<WHO$}{off}{call}{calls:<CALL$}{off}{tone}{part}{end}{padding}  {faint}{time:>TIME$}{off}"
                )
            }
            _ => writeln!(out, "    {:WHO$}{:CALL$}{tone}{part}{end}", "", ""),
        };
    }
}

fn who(actor: Actor) -> &'static str {
    match actor {
        Actor::CommandLine => "command line",
        Actor::Monitor => "monitor",
        Actor::Intermediate => "intermediate",
        Actor::Container => "container",
        Actor::Helper => "helper",
    }
}

fn summary(out: &mut String, events: &[Event], processes: &[Process], style: &Style) {
    let all: Vec<&Event> = events.iter().collect();
    let sum = format!("{}, {}", counted(all.len(), "call"), time(total(&all)));
    heading(out, "Total", "who did how much", &sum, style);
    let _ = writeln!(out);
    for actor in [Actor::CommandLine, Actor::Monitor, Actor::Intermediate, Actor::Container, Actor::Helper] {
        let own: Vec<&Event> = events.iter().filter(|event| event.actor == actor).collect();
        if own.is_empty() {
            continue;
        }
        let pid = processes.iter().find(|process| process.actor == actor);
        let pid = pid.map_or(String::new(), |process| format!("process {}", process.pid));
        let calls = counted(own.len(), "call");
        let took = time(total(&own));
        let _ = writeln!(out, "    {:<WHO$}{pid:<CALL$}{calls:<WORDS$}  {took:>TIME$}", who(actor));
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `1 µs`, `676 µs`, `1.19 ms`.
fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns.div_ceil(1_000)),
        _ => format!("{}.{:02} ms", ns / 1_000_000, ns % 1_000_000 / 10_000),
    }
}

/// Breaks at spaces into lines of at most `width` characters; a word that is longer is cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let Some(last) = lines.last_mut() else { break };
            let used = last.chars().count() + usize::from(!last.is_empty());
            if used + word.len() <= width {
                if !last.is_empty() {
                    last.push(' ');
                }
                last.extend(word.drain(..));
            } else if last.is_empty() {
                last.extend(word.drain(..width));
                lines.push(String::new());
            } else {
                lines.push(String::new());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(actor: Actor, call: &str, args: Vec<Arg>, result: i64) -> Event {
        Event {
            actor,
            chapter: Chapter::Process,
            call: call.to_owned(),
            args,
            result,
            start_ns: 1,
            duration_ns: 2_000,
            why: "for a test".to_owned(),
        }
    }

    #[test]
    fn secrets_are_taken_out_of_every_kind_of_argument() {
        let secret = || "pass hunter2!".to_owned();
        let args = vec![
            Arg::Str(secret()),
            Arg::List(vec![secret()]),
            Arg::Fd(3, secret()),
            Arg::Words(secret()),
            Arg::Struct(vec![("name".to_owned(), Arg::Str(secret()))]),
        ];
        let mut events = [event(Actor::Container, "execve", args, 0)];
        redact(&mut events, &["hunter2!", "abc", "2!"]);
        assert!(!json(&events, &[]).contains("hunter2"));
        assert_eq!(events[0].args[0], Arg::Str("pass [redacted]".to_owned()));
    }

    #[test]
    fn knows_each_process_by_the_clone_that_made_it() {
        let clone = |actor, pid| event(actor, "clone3", Vec::new(), pid);
        let events = [clone(Actor::CommandLine, 11), clone(Actor::Monitor, 12), clone(Actor::Monitor, 13)];
        let pids =
            |events: &[Event]| processes(events, 10).iter().map(|p| (p.actor, p.pid)).collect::<Vec<_>>();
        let (first, second) = ((Actor::CommandLine, 10), (Actor::Monitor, 11));
        assert_eq!(pids(&events), [first, second, (Actor::Container, 12), (Actor::Helper, 13)]);
        let events =
            [clone(Actor::CommandLine, 11), clone(Actor::Monitor, 12), clone(Actor::Intermediate, 13)];
        assert_eq!(pids(&events), [first, second, (Actor::Intermediate, 12), (Actor::Container, 13)]);
    }

    #[test]
    fn lines_are_broken_at_spaces_and_within_words_that_do_not_fit() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn colour_is_never_the_only_signal() {
        let events = [event(Actor::Monitor, "umount2", vec![Arg::Str("/x".to_owned())], -16)];
        let plain = text(&events, &[], &Style::new(false));
        assert!(!plain.contains('\x1b') && plain.contains("failed: "), "{plain}");
        let coloured = text(&events, &[], &Style::new(true));
        let stripped = ["\x1b[1;36m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
    }
}
