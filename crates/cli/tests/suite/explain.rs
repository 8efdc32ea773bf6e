//! `run --explain`: the record against strace, call by call, and what it must not tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::coracle::{Coracle, Ran, is_root};
use crate::running::Running;

/// The calls that change the machine, with their relatives, so that none goes by another door.
const TRACED: &str = "clone,clone3,fork,vfork,unshare,setns,mount,umount2,open_tree,move_mount,fsopen,fsconfig,fsmount,\
    fspick,mount_setattr,pivot_root,chroot,sethostname,setdomainname,setuid,setgid,setreuid,setregid,setresuid,\
    setresgid,setfsuid,setfsgid,setgroups,capset,prctl,seccomp,bpf,mknod,mknodat,execve,execveat,kill,tkill,tgkill,\
    pidfd_send_signal,write,pwrite64,writev,sendto,mkdir,mkdirat,rmdir,unlinkat";
/// What the containers of this test need, on each machine.
const EXPECTED: [&str; 28] = [
    "clone",
    "clone3",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "mount_setattr",
    "pivot_root",
    "chroot",
    "sethostname",
    "setdomainname",
    "setresuid",
    "setresgid",
    "setgroups",
    "capset",
    "prctl",
    "seccomp",
    "mknodat",
    "execve",
    "execveat",
    "write",
    "sendto",
    "pidfd_send_signal",
];
/// A program, and the exit code that is expected.
const TRUE: (&str, i32) = ("/bin/true", 0);
/// prctl(2) options that only ask: PR_GET_SECCOMP, PR_CAPBSET_READ, and PR_GET_AUXV, which Rust's library asks where the vDSO is.
const ASKING: [&str; 3] = ["21", "23", "1096112214"];
/// Fields that hold an address or a program; the record has their sizes.
const NOT_COMPARED: [&str; 6] = ["pidfd", "child_stack", "parent_tid", "filter", "insns", "license"];

/// One call: its name, its arguments with structures and lists opened, and what it returned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    arguments: Vec<String>,
    result: i64,
}

#[test]
fn the_record_is_what_strace_sees() {
    if !is_root() || !is_installed("strace") {
        println!("SKIP: the_record_is_what_strace_sees: needs root and strace");
        return;
    }
    let coracle = Coracle::with_busybox();
    // Where AppArmor is on, the first container has a profile loaded, by a program that has processes of its own.
    coracle.ok(&["run", "--rm", "busybox", "true"]);
    let bind = format!("{}:/mnt:ro", coracle.directory().display());
    let sets: &[&[&str]] = &[
        &[],
        &["--init"],
        &["-t"],
        &["--userns", "private"],
        &["--time-offset", "boottime=1000"],
        &["--pids-limit", "20", "--memory", "50m", "--cpus", "0.5", "--oom-score-adj", "100"],
        &["--read-only", "--tmpfs", "/mytemp:size=1m,mode=0755", "-v", &bind],
        &["-u", "7:8", "--group-add", "9", "--security-opt", "no-new-privileges", "--cap-add", "ALL"],
        &["--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--domainname", "example", "--privileged"],
        &["--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"],
    ];
    let mut names: BTreeSet<String> = sets.iter().flat_map(|set| compare(&coracle, set, TRUE)).collect();
    let other = Running::start(&coracle, &["--name", "other", "busybox"]);
    let shared = ["--network", "container:other", "--ipc", "container:other", "--pid", "container:other"];
    names.extend(compare(&coracle, &shared, TRUE));
    // What is undone after a failure is told too.
    names.extend(compare(&coracle, &[], ("/etc", 126)));
    assert_eq!(other.end(), 0);
    // A test that compared nothing would pass too.
    for name in EXPECTED {
        assert!(names.contains(name), "no container here needs {name}: {names:?}");
    }
    coracle.assert_nothing_left();
}

/// Runs a program with some options under strace and with a record, and compares both for each process. Gives the calls' names.
fn compare(coracle: &Coracle, options: &[&str], (program, code): (&str, i32)) -> BTreeSet<String> {
    let directory = coracle.directory().join("strace");
    std::fs::create_dir(&directory).unwrap();
    let ran = traced(coracle, &directory, options, program);
    assert_eq!(ran.code, code, "{options:?}: {ran:?}");
    let record = ran.err.lines().find(|line| line.starts_with("{\"version\"")).unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    let mut recorded = recorded_calls(&record);
    let mut seen: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    for process in record["processes"].as_array().unwrap() {
        let actor = process["actor"].as_str().unwrap().to_owned();
        let file = directory.join(format!("t.{}", process["pid"]));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let calls = seen_calls(&text, &actor);
        assert!(!calls.is_empty(), "strace saw nothing of {actor}");
        // Helpers come one after the other.
        seen.entry(actor).or_default().extend(calls);
    }
    // With --init the container's program is a process of its own, made by the container's pid 1 when it is coracle no more.
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(left.len(), usize::from(options.contains(&"--init")), "{options:?}: {left:?}");
    for (actor, calls) in &seen {
        let recorded = recorded.remove(actor).unwrap_or_default();
        assert_same(options, actor, &recorded, calls);
    }
    assert!(recorded.is_empty(), "{options:?}: nobody made these: {recorded:?}");
    std::fs::remove_dir_all(&directory).unwrap();
    seen.into_values().flatten().map(|call| call.name).collect()
}

fn assert_same(options: &[&str], actor: &str, recorded: &[Call], seen: &[Call]) {
    for (number, (recorded, seen)) in recorded.iter().zip(seen).enumerate() {
        assert_eq!(recorded, seen, "{options:?}: call {number} of {actor}: the record left, strace right");
    }
    let common = recorded.len().min(seen.len());
    let rest = [&recorded[common..], &seen[common..]];
    assert!(rest == [&[], &[]], "{options:?}: {actor}: only in the record, only in strace: {rest:#?}");
}

fn traced(coracle: &Coracle, directory: &Path, options: &[&str], program: &str) -> Ran {
    let mut run = vec!["run", "--rm", "--explain=json"];
    run.extend(options);
    run.extend(["busybox", program]);
    let command = coracle.command(&run);
    let prefix = directory.join("t");
    let mut strace: Vec<String> =
        ["strace", "-ff", "--decode-fds=path", "-v", "-X", "raw", "-s", "65536", "-e", "signal=none", "-o"]
            .map(str::to_owned)
            .into();
    strace.extend([prefix.display().to_string(), "-e".to_owned(), format!("trace={TRACED}")]);
    strace.extend(
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned()),
    );
    if !options.contains(&"-t") {
        return Command::new(&strace[0]).args(&strace[1..]).output().unwrap().into();
    }
    // script(1) gives it a terminal; standard error goes to a file, so that the record is not in the terminal's output.
    let file = directory.with_extension("stderr");
    let quoted: Vec<String> = strace.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("{} 2>'{}'", quoted.join(" "), file.display());
    let mut ran: Ran = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap().into();
    ran.err = std::fs::read_to_string(&file).unwrap();
    ran
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The record's calls by actor.
fn recorded_calls(record: &Value) -> BTreeMap<String, Vec<Call>> {
    let mut calls: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    // What systemd is asked, where it is pid 1, is a message in words.
    for event in record["events"].as_array().unwrap().iter().filter(|event| event["call"] != "sendmsg") {
        let mut arguments = Vec::new();
        event["args"].as_array().unwrap().iter().for_each(|argument| open(argument, "", &mut arguments));
        let call = Call {
            name: event["call"].as_str().unwrap().to_owned(),
            arguments,
            result: event["result"].as_i64().unwrap(),
        };
        let actor = event["actor"].as_str().unwrap().to_owned();
        calls.entry(actor).or_default().push(normal(call));
    }
    calls
}

/// Opens one recorded argument into plain values, fields as `name=value`.
fn open(argument: &Value, name: &str, values: &mut Vec<String>) {
    let (kind, value) = argument.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "int" => values.push(format!("{name}{value}")),
        "flags" | "fd" => values.push(format!("{name}{}", value[0])),
        "str" => values.push(format!("{name}{:?}", value.as_str().unwrap())),
        "words" => values.push(format!("{name}{}", value.as_str().unwrap())),
        "list" => {
            values.push("[".to_owned());
            values
                .extend(value.as_array().unwrap().iter().map(|item| format!("{:?}", item.as_str().unwrap())));
            values.push("]".to_owned());
        }
        "struct" => {
            for field in value.as_array().unwrap() {
                open(&field[1], &format!("{}=", field[0].as_str().unwrap()), values);
            }
        }
        other => panic!("an argument of kind {other}"),
    }
}

/// What both sides say differently without meaning it.
fn normal(mut call: Call) -> Call {
    match call.name.as_str() {
        // strace leaves out arguments that an option does not have; we pass 0 for them.
        "prctl" => {
            while call.arguments.last().is_some_and(|last| last == "0") {
                call.arguments.pop();
            }
        }
        // Group numbers are numbers.
        "setgroups" => call.arguments.iter_mut().for_each(|value| *value = value.replace('"', "")),
        _ => {}
    }
    call
}

/// The calls in one process's strace file that the record must have.
fn seen_calls(text: &str, actor: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    // The first call of the command line is strace's own execve of it.
    for line in text.lines().skip(usize::from(actor == "command_line")) {
        let Some((call, first_path)) = Line::parse(line) else { continue };
        let text = call.arguments.first().map_or("", String::as_str);
        let place = match call.name.as_str() {
            "mkdirat" | "unlinkat" => call.arguments[1].trim_matches('"'),
            "mkdir" | "rmdir" => text.trim_matches('"'),
            _ => &first_path,
        };
        // In a procfs that is attached nowhere, /proc/sys is /sys, and a process's directory has no /proc before it.
        let is_kernel_file = place.starts_with("/sys/")
            || place.starts_with("/proc/")
            || place.ends_with("/attr/apparmor/exec");
        let counts = match call.name.as_str() {
            "write" | "pwrite64" | "writev" | "mkdir" | "rmdir" | "mkdirat" | "unlinkat" => is_kernel_file,
            "prctl" => !ASKING.contains(&text),
            _ => true,
        };
        let is_end = actor == "container" && call.name.starts_with("execve") && call.result == 0;
        if counts {
            calls.push(call);
        }
        // What the process does as another program is not coracle's.
        if is_end {
            break;
        }
    }
    calls
}

/// A line of strace's output while it is read.
struct Line<'a> {
    rest: &'a str,
    /// What --decode-fds says of the first descriptor.
    first_path: Option<&'a str>,
    environment: bool,
}

impl<'a> Line<'a> {
    /// `name(arguments) = result`; none for other lines (`+++ exited with 0 +++`).
    fn parse(line: &'a str) -> Option<(Call, String)> {
        let (name, rest) = line.split_once('(')?;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let mut line = Line { rest, first_path: None, environment: false };
        let mut arguments = Vec::new();
        let mut place = 0;
        let environment = match name {
            "execve" => Some(2),
            "execveat" => Some(3),
            _ => None,
        };
        while !line.rest.starts_with(')') {
            line.environment = environment == Some(place);
            line.value("", &mut arguments);
            line.skip(", ");
            place += 1;
        }
        let result = line.rest.split_once('=').expect("a result").1.trim();
        let call = Call { name: name.to_owned(), arguments, result: returned(result) };
        Some((normal(call), line.first_path.unwrap_or("").to_owned()))
    }

    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, name: &str, values: &mut Vec<String>) {
        if self.skip("\"") {
            let text = String::from_utf8(self.string()).unwrap();
            values.push(format!("{name}{text:?}"));
        } else if self.skip("[") {
            self.list(values);
        } else if self.skip("{") {
            self.fields(values);
        } else if let Some(key) = self.key() {
            // The arguments of clone, whose order differs from processor to processor, have their names.
            self.field(key, values);
        } else {
            let word = self.word();
            values.push(format!("{name}{}", number(word)));
        }
        // What the kernel wrote back.
        if self.skip(" => ") {
            self.value("", &mut Vec::new());
        }
    }

    /// The text up to the closing quote, unescaped.
    fn string(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return bytes;
                }
                '\\' => match letters.next().unwrap().1 {
                    'n' => bytes.push(b'\n'),
                    't' => bytes.push(b'\t'),
                    'x' => {
                        let digits: String = letters.by_ref().take(2).map(|(_, digit)| digit).collect();
                        bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                    }
                    digit @ '0'..='7' => {
                        let mut value = digit.to_digit(8).unwrap();
                        while let Some(next) = letters.clone().next().and_then(|(_, next)| next.to_digit(8)) {
                            value = value * 8 + next;
                            letters.next();
                        }
                        bytes.push(value as u8);
                    }
                    other => bytes.push(other as u8),
                },
                other => bytes.extend(other.to_string().bytes()),
            }
        }
        panic!("an open string: {}", self.rest)
    }

    fn list(&mut self, values: &mut Vec<String>) {
        let mut items = Vec::new();
        let mut count = 0;
        let is_structures = self.rest.starts_with('{');
        while !self.skip("]") {
            if is_structures && self.skip("\"") {
                items.extend(device_message(&self.string()));
            } else {
                self.value("", &mut items);
            }
            self.skip(", ");
            count += 1;
        }
        // The record has only the number of the environment's variables, and opens a message of structures into its fields.
        match (self.environment, is_structures) {
            (true, _) => values.push(format!("{count} variables")),
            (_, true) => values.extend(items),
            _ => values.extend([vec!["[".to_owned()], items, vec!["]".to_owned()]].concat()),
        }
    }

    fn fields(&mut self, values: &mut Vec<String>) {
        while !self.skip("}") {
            let (key, rest) = self.rest.split_once('=').unwrap();
            self.rest = rest;
            self.field(key, values);
            self.skip(", ");
        }
    }

    fn field(&mut self, key: &str, values: &mut Vec<String>) {
        let mut field = Vec::new();
        self.value(&format!("{key}="), &mut field);
        if !NOT_COMPARED.contains(&key) {
            values.extend(field);
        }
    }

    /// A name before an equals sign.
    fn key(&mut self) -> Option<&'a str> {
        let (key, rest) = self.rest.split_once('=')?;
        let is_name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        self.rest = if is_name { rest } else { self.rest };
        is_name.then_some(key)
    }

    /// A number with what --decode-fds says of it, or an expression with parentheses.
    fn word(&mut self) -> &'a str {
        let mut depth = 0;
        let ends = |(at, letter): (usize, char)| {
            match letter {
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                ',' | ')' | ']' | '}' | '<' | ' ' if depth == 0 => return Some(at),
                _ => {}
            }
            None
        };
        let end = self.rest.char_indices().find_map(ends).unwrap();
        let word = &self.rest[..end];
        self.rest = &self.rest[end..];
        if self.skip("<") {
            let (path, rest) = self.rest.split_once('>').unwrap();
            self.rest = rest;
            self.first_path.get_or_insert(path);
        }
        word
    }
}

/// struct ifinfomsg of rtnetlink(7): strace knows the family of a socket only in its own network namespace, and shows the bytes.
fn device_message(bytes: &[u8]) -> Vec<String> {
    let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
    assert_eq!(bytes.len(), 16);
    vec![
        format!("ifi_family={}", bytes[0]),
        format!("ifi_type={kind}"),
        format!("ifi_index={}", number(4)),
        format!("ifi_flags={}", number(8)),
        format!("ifi_change={}", number(12)),
    ]
}

/// A number in any base as decimal, also the halves `low|high` of a capability set and the flags of clone with a signal's number;
/// anything else as it is.
fn number(word: &str) -> String {
    if let Some((flags, signal)) = word.split_once('|')
        && let (Some(Ok(flags)), Ok(signal)) =
            (flags.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)), signal.parse::<u64>())
    {
        return (flags | signal).to_string();
    }
    if let Some((low, high)) = word.split_once('|') {
        let half = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        if let (Some(low), Some(high)) = (half(low), half(high)) {
            return (low | high << 32).to_string();
        }
    }
    let parsed = match word {
        "NULL" => Some(0),
        _ if word.starts_with("0x") => u64::from_str_radix(&word[2..], 16).ok(),
        _ if word.len() > 1 && word.starts_with('0') => u64::from_str_radix(word, 8).ok(),
        _ => None,
    };
    parsed.map_or(word.to_owned(), |value| value.to_string())
}

/// `3</dev/null>` is 3, `-1 EINVAL (Invalid argument)` is -22.
fn returned(text: &str) -> i64 {
    let digits = text.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    if !text.starts_with('-') {
        return text[..digits].parse().unwrap();
    }
    let (_, meaning) = text.split_once('(').unwrap();
    let is_it = |number: &i32| {
        std::io::Error::from_raw_os_error(*number).to_string().starts_with(meaning.trim_end_matches(')'))
    };
    (1..134).find(is_it).map(|number| -i64::from(number)).unwrap()
}

#[test]
fn no_value_of_e_is_told() {
    const SECRET: &str = "planted-Se3cret";
    let coracle = Coracle::with_busybox();
    let file = coracle.directory().join("environment");
    std::fs::write(&file, "TOKEN=another-planted-1\n").unwrap();
    let script = format!("test \"$PASSWORD\" = {SECRET} && test \"$TOKEN\" = another-planted-1");
    for form in ["--explain", "--explain=json"] {
        let variable = format!("PASSWORD={SECRET}");
        let ran = coracle.run(&[
            "run",
            "--rm",
            "--network",
            "none",
            form,
            "-e",
            &variable,
            "--env-file",
            file.to_str().unwrap(),
            "busybox",
            "sh",
            "-c",
            &script,
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("[redacted]") && ran.err.contains("execve"), "{}", ran.err);
        assert!(!ran.err.contains("planted"), "{form}: {}", ran.err);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn the_text_has_chapters_in_order_and_fits_a_terminal() {
    let coracle = Coracle::with_busybox();
    let ran = coracle.run(&["run", "--rm", "--network", "none", "--explain", "busybox", "echo", "only this"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "only this\n"), "{ran:?}");
    let chapters = ["── Namespaces", "── Root file system", "── Process", "── Total"];
    let places: Vec<usize> = chapters.iter().map(|title| ran.err.find(title).unwrap()).collect();
    assert!(places.is_sorted(), "{}", ran.err);
    assert!(ran.err.contains("mount proc on /proc (nosuid, nodev, noexec)"), "{}", ran.err);
    assert!(!ran.err.contains('\x1b'), "colour without a terminal");
    let widest = ran.err.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(110), "{widest:?}: {}", ran.err);
    let reasons: Vec<&str> =
        ran.err.lines().filter(|line| line.starts_with("  ") && line.ends_with('.')).collect();
    assert!(reasons.windows(2).all(|pair| pair[0] != pair[1]), "{}", ran.err);
}

#[test]
fn a_failed_run_is_explained_up_to_the_failure() {
    let coracle = Coracle::with_busybox();
    let ran = coracle.run(&["run", "--rm", "--network", "none", "--explain", "busybox", "/no/such/program"]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.err.contains("── Root file system") && ran.err.contains("error: "), "{}", ran.err);
}
