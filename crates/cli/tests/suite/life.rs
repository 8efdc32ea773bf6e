//! A container's life under `coracle run`: signals, streams, exit codes, names, and what is left when somebody is killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::coracle::{Coracle, Ran, fixture, is_root};

/// A `coracle run` in the background; killed and reaped when dropped.
struct Background {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Background {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for the container to print this line.
    #[track_caller]
    fn hear(&mut self, expected: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        if line.trim_end() != expected {
            let _ = self.child.kill();
            let mut err = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            panic!("expected {expected:?}, got {line:?}; standard error: {err}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its end, with what it still printed.
    fn end(mut self) -> Ran {
        let (mut out, mut err) = (String::new(), String::new());
        self.output.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Ran { code, out, err }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only child of a process, if it has one.
fn child_of(pid: u32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The processes whose arguments hold `text`.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() || name == std::process::id().to_string() {
            continue;
        }
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if arguments.contains(text) {
            found.push(format!("{name}: {arguments}"));
        }
    }
    found
}

/// Directories called `id` anywhere below the machine's control groups.
fn groups_called(id: &str) -> Vec<PathBuf> {
    fn visit(directory: &Path, id: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name() == *id {
                found.push(entry.path());
            } else if depth > 0 {
                visit(&entry.path(), id, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    visit(Path::new("/sys/fs/cgroup"), id, 6, &mut found);
    found
}

fn ids(coracle: &Coracle) -> Vec<String> {
    let entries = std::fs::read_dir(coracle.root().join("containers")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Waits for something that another process does soon; a minute is for machines that are very busy.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within a minute: {what}");
}

/// Numbers that differ from run to run, for moments.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish() % below
}

#[test]
fn a_signal_for_the_command_line_reaches_the_program() {
    let coracle = Coracle::with_busybox();
    for (name, signal) in
        [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP), ("USR1", Signal::USR1)]
    {
        let script = format!("trap 'echo got {name}; exit 3' {name}; echo ready; sleep 1000 & wait");
        let mut run = Background::start(coracle.command(&["run", "--rm", "busybox", "sh", "-c", &script]));
        run.hear("ready");
        run.signal(signal);
        run.hear(&format!("got {name}"));
        assert_eq!(run.end().code, 3, "{name}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn the_third_interrupt_kills_a_program_that_does_not_listen() {
    let coracle = Coracle::with_busybox();
    let script = "trap '' INT; echo ready; exec sleep 1000";
    let mut run = Background::start(coracle.command(&["run", "--rm", "busybox", "sh", "-c", script]));
    run.hear("ready");
    for _ in 0..3 {
        interrupt(&run.child);
    }
    let ran = run.end();
    assert_eq!((ran.code, ran.err.as_str()), (137, ""), "what is no terminal gets the program's words only");
    coracle.assert_nothing_left();
}

/// Interrupts a process and waits until it has taken that: two that come at once count as one.
fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
    eventually("the signal is taken", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap_or("0");
        u64::from_str_radix(pending.trim(), 16).unwrap() & 1 << 1 == 0
    });
}

/// Opens a new terminal: our side and the name of the other.
fn terminal() -> (std::os::fd::OwnedFd, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (ours, theirs)
}

/// Reads from a terminal until `text` was seen.
#[track_caller]
fn see(terminal: &std::os::fd::OwnedFd, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(text) {
        let count = rustix::io::read(terminal, &mut buffer).unwrap_or(0);
        assert!(count > 0, "the terminal closed before {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[test]
fn a_person_is_told_which_interrupt_will_kill() {
    let coracle = Coracle::with_busybox();
    let (ours, theirs) = terminal();
    let script = "trap '' INT; echo ready; exec sleep 1000";
    let mut command = coracle.command(&["run", "--rm", "busybox", "sh", "-c", script]);
    let mut child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
    see(&ours, "ready");
    interrupt(&child);
    interrupt(&child);
    let seen = see(&ours, "once more kills it");
    assert_eq!(seen.matches("coracle: ").count(), 1, "{seen:?}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    coracle.assert_nothing_left();
}

#[test]
fn control_c_interrupts_in_the_container_s_terminal() {
    let coracle = Coracle::with_busybox();
    let (ours, theirs) = terminal();
    let script = "trap 'echo stopped; exit 4' INT; echo ready; while :; do sleep 1; done";
    let mut child = coracle
        .command(&["run", "--rm", "-it", "busybox", "sh", "-c", script])
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    see(&ours, "ready");
    rustix::io::write(&ours, b"\x03").unwrap();
    see(&ours, "stopped");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    coracle.assert_nothing_left();
}

/// The end of a pipe cannot be told through a terminal.
#[test]
fn a_terminal_is_refused_where_input_comes_from_a_pipe() {
    let coracle = Coracle::with_busybox();
    let ran = coracle.run(&["run", "--rm", "-it", "busybox", "cat"]);
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.err.contains("not a terminal") && ran.err.contains("-i without -t"), "{ran:?}");
    assert_eq!(coracle.ok(&["run", "--rm", "-t", "busybox", "echo", "hi"]), "hi\r\n");
    coracle.assert_nothing_left();
}

#[test]
fn control_c_reaches_a_program_without_a_terminal() {
    let coracle = Coracle::with_busybox();
    let (ours, theirs) = terminal();
    let script = "trap 'echo stopped; exit 5' INT; echo ready; sleep 1000 & wait";
    // A session of its own, whose terminal this is, so that the byte becomes a signal.
    let run = coracle.command(&["run", "--rm", "busybox", "sh", "-c", script]);
    let mut child = Command::new("setsid")
        .arg("--ctty")
        .arg(run.get_program())
        .args(run.get_args())
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    see(&ours, "ready");
    rustix::io::write(&ours, b"\x03").unwrap();
    see(&ours, "stopped");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    coracle.assert_nothing_left();
}

#[test]
fn without_i_standard_input_is_empty() {
    let coracle = Coracle::with_busybox();
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut command = coracle.command(&["run", "--rm", "busybox", "wc", "-c"]);
    let ran: Ran = command.stdin(_reader).output().unwrap().into();
    assert_eq!((ran.code, ran.out.trim()), (0, "0"), "{ran:?}");
    drop(writer);
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let coracle = Coracle::with_busybox();
    let script = "head -c 3000000 /dev/zero; head -c 500000 /dev/zero >&2; echo end";
    let mut run = Background::start(coracle.command(&["run", "--rm", "busybox", "sh", "-c", script]));
    // Long enough for the pipes between to fill.
    std::thread::sleep(Duration::from_millis(300));
    let mut err = run.child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    let mut bytes = Vec::new();
    run.output.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 3_000_004);
    assert_eq!(errors.join().unwrap(), 500_000);
    assert!(run.child.wait().unwrap().success());
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let coracle = Coracle::with_busybox();
    let mut run = Background::start(coracle.command(&["run", "--rm", "busybox", "yes"]));
    run.hear("y");
    let Background { child, output } = &mut run;
    // What `| head -1` does. A first process ignores SIGPIPE and sees EPIPE instead.
    *output = BufReader::new({
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        std::process::ChildStdout::from(std::os::fd::OwnedFd::from(writer))
    });
    assert_eq!(child.wait().unwrap().code(), Some(1));
    coracle.assert_nothing_left();
}

#[test]
fn exit_codes_are_the_program_s() {
    let coracle = Coracle::with_busybox();
    for code in [0, 1, 2, 77, 124, 125, 126, 127, 128, 200, 255] {
        let ran = coracle.run(&["run", "--rm", "busybox", "sh", "-c", &format!("exit {code}")]);
        assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{ran:?}");
    }
    // A first process without a handler hears no signal but KILL.
    let script = "echo ready; exec sleep 1000";
    let mut run = Background::start(coracle.command(&["run", "--name", "k9", "busybox", "sh", "-c", script]));
    run.hear("ready");
    coracle.ok(&["kill", "--signal", "SEGV", "k9"]);
    coracle.ok(&["kill", "k9"]);
    assert_eq!(run.end().code, 137);
    coracle.ok(&["rm", "k9"]);
    coracle.assert_nothing_left();
}

/// `run` of a program that says which signals it gets, and ends at none of them.
fn listener(coracle: &Coracle, name: &str, options: &[&str]) -> Background {
    let script = "for s in TERM QUIT USR1; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 1000 & wait $!; done";
    let words = [&["run", "--name", name], options, &["busybox", "sh", "-c", script]].concat();
    let mut run = Background::start(coracle.command(&words));
    run.hear("ready");
    run
}

#[test]
fn stop_asks_by_the_containers_own_signal_and_then_kills() {
    let coracle = Coracle::with_busybox();
    // Who was asked and ends by itself has its own exit code; without a limit of time that is all there is to wait for.
    let script = "trap 'echo got QUIT; exit 6' QUIT; echo ready; sleep 1000 & wait";
    let mut run = Background::start(coracle.command(&[
        "run",
        "--name",
        "polite",
        "--stop-signal",
        "QUIT",
        "--stop-timeout",
        "-1",
        "busybox",
        "sh",
        "-c",
        script,
    ]));
    run.hear("ready");
    assert_eq!(coracle.ok(&["stop", "polite"]), "polite\n");
    assert!(coracle.ok(&["ps", "-a"]).contains("Exited (6)"), "stop returns when all is undone");
    run.hear("got QUIT");
    assert_eq!(run.end().code, 6);
    // Who does not end is killed after the container's own time, or the one that is asked.
    for (name, made, asked, heard) in [
        ("none", &["--stop-timeout", "0"][..], &[][..], "got TERM"),
        ("own", &["--stop-signal", "USR1", "--stop-timeout", "-1"], &["-t", "0"], "got USR1"),
        ("other", &["--stop-signal", "USR1"], &["--signal", "SIGQUIT", "--timeout", "0"], "got QUIT"),
    ] {
        let run = listener(&coracle, name, made);
        coracle.ok(&[&["stop"], asked, &[name]].concat());
        let ran = run.end();
        assert_eq!(ran.code, 137, "{name}: {ran:?}");
        // It may be killed before it has said so.
        assert!(ran.out.is_empty() || ran.out.trim() == heard, "{name}: {ran:?}");
    }
    assert_eq!(coracle.ok(&["stop", "own", "other"]), "own\nother\n", "what has ended is no error");
    let ran = coracle.run(&["stop", "nobody"]);
    assert_eq!((ran.code, ran.err.contains("there is no container \"nobody\"")), (1, true), "{ran:?}");
    let ran = coracle.run(&["stop", "--signal", "LOUD", "own"]);
    assert_eq!((ran.code, ran.err.contains("--signal")), (1, true), "{ran:?}");
    coracle.ok(&["rm", "polite", "none", "own", "other"]);
    coracle.assert_nothing_left();
}

#[test]
fn an_images_stop_signal_counts_where_none_is_asked() {
    let coracle = Coracle::new();
    let root = Command::new("tar").arg("-cC").arg(fixture("busybox")).arg(".").output().unwrap().stdout;
    std::fs::write(coracle.directory().join("root.tar"), root).unwrap();
    let archive = coracle.directory().join("root.tar").display().to_string();
    coracle.ok(&["import", "--change", "STOPSIGNAL USR1", &archive, "busybox"]);
    let mut run = listener(&coracle, "asked", &["--stop-timeout", "-1"]);
    let mut stop = coracle.command(&["stop", "asked"]).stdout(Stdio::null()).spawn().unwrap();
    run.hear("got USR1");
    coracle.ok(&["kill", "asked"]);
    assert!(stop.wait().unwrap().success());
    assert_eq!(run.end().code, 137);
    coracle.ok(&["rm", "asked"]);
    coracle.assert_nothing_left();
}

#[test]
fn with_init_a_signal_ends_the_program_as_anywhere() {
    let coracle = Coracle::with_busybox();
    let script = "echo ready; exec sleep 1000";
    for (signal, code) in [(Signal::TERM, 143), (Signal::USR1, 138)] {
        let mut run =
            Background::start(coracle.command(&["run", "--rm", "--init", "busybox", "sh", "-c", script]));
        run.hear("ready");
        run.signal(signal);
        assert_eq!(run.end().code, code);
    }
    coracle.assert_nothing_left();
}

#[test]
fn a_kept_container_is_listed_with_its_exit_code_and_removed() {
    let coracle = Coracle::with_busybox();
    assert_eq!(coracle.run(&["run", "--name", "kept", "busybox", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(coracle.run(&["run", "--rm", "--name", "gone", "busybox", "true"]).code, 0);
    let all = coracle.ok(&["ps", "-a"]);
    assert!(all.contains("Exited (9)") && all.contains("kept") && !all.contains("gone"), "{all}");
    assert!(!coracle.ok(&["ps"]).contains("kept"));
    assert_eq!(coracle.run(&["run", "--name", "kept", "busybox", "true"]).code, 125);
    coracle.ok(&["rm", "kept"]);
    assert_eq!(coracle.run(&["rm", "kept"]).code, 1);
    coracle.assert_nothing_left();
}

#[test]
fn a_container_outlives_its_command_line() {
    let coracle = Coracle::with_busybox();
    // It writes more than any pipe holds: nobody reads it any more, and still it goes on.
    let script = "echo ready; sleep 0.2; head -c 1000000 /dev/zero; echo done > /done; exec sleep 1000";
    let mut run = Background::start(
        coracle.command(&["run", "--rm", "--name", "orphan", "busybox", "sh", "-c", script]),
    );
    run.hear("ready");
    let id = ids(&coracle).pop().unwrap();
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    assert!(coracle.ok(&["ps"]).contains("orphan"));
    let done = coracle.root().join("containers").join(&id).join("changes0/done");
    if is_root() {
        eventually("the program writes on", || done.exists());
    }
    assert_eq!(coracle.run(&["rm", "orphan"]).code, 1, "a running one is removed only by force");
    coracle.ok(&["kill", "--signal", "KILL", "orphan"]);
    eventually("its monitor removes it", || ids(&coracle).is_empty());
    coracle.assert_nothing_left();
    assert_eq!(groups_called(&id), Vec::<PathBuf>::new());
}

#[test]
fn force_removes_a_running_container_and_all_of_it() {
    let coracle = Coracle::with_busybox();
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    let mut run =
        Background::start(coracle.command(&["run", "--name", "forced", "busybox", "sh", "-c", script]));
    run.hear("ready");
    let id = ids(&coracle).pop().unwrap();
    coracle.ok(&["rm", "-f", "forced"]);
    assert_eq!(run.end().code, 137);
    coracle.assert_nothing_left();
    assert_eq!(groups_called(&id), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_monitor_is_noticed_and_force_cleans_up() {
    let coracle = Coracle::with_busybox();
    for keep in [true, false] {
        let mark = format!("{}{}", 40_000 + std::process::id(), u8::from(keep));
        let script = format!("echo ready; exec sleep {mark}");
        let mut args = vec!["run", "--name", "lonely", "busybox", "sh", "-c", &script];
        if !keep {
            args.insert(1, "--rm");
        }
        let mut run = Background::start(coracle.command(&args));
        run.hear("ready");
        let id = ids(&coracle).pop().unwrap();
        let monitor = child_of(run.child.id()).unwrap();
        kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL).unwrap();
        let ran = run.end();
        assert_eq!((ran.code, ran.err.lines().count()), (125, 3), "{ran:?}");
        assert!(ran.err.contains("monitor") && ran.err.contains("coracle rm -f lonely"), "{}", ran.err);
        assert!(coracle.ok(&["ps"]).contains("lonely"), "the program itself goes on");
        coracle.ok(&["rm", "-f", "lonely"]);
        coracle.assert_nothing_left();
        assert_eq!(groups_called(&id), Vec::<PathBuf>::new());
        eventually("the program is gone", || processes_with(&mark).is_empty());
    }
}

/// Starts and kills thirty times; after one further command nothing is trusted or left that is not whole.
fn kill_at_random(victim: impl Fn(&Child)) {
    let coracle = Coracle::with_busybox();
    let own = coracle.directory().display().to_string();
    for round in 0..30 {
        let mark = format!("{}{round:02}", 50_000 + std::process::id());
        let mut args = vec!["run", "--name", "victim", "busybox", "sleep", &mark];
        if round % 2 == 0 {
            args.insert(1, "--rm");
        }
        let mut command = coracle.command(&args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random(15_000)));
        victim(&child);
        let begun = ids(&coracle);
        let listed = coracle.ok(&["ps", "-a", "--no-trunc", "-q"]);
        for id in listed.lines() {
            let removed = coracle.run(&["rm", "-f", id]);
            // The command line may be removing it itself.
            assert!(removed.code == 0 || removed.err.contains("there is no container"), "{removed:?}");
        }
        // The victim of a killed monitor says so and ends; its own end is not asked for here.
        let _ = child.kill();
        let _ = child.wait();
        eventually("every process is gone", || {
            coracle.ok(&["ps", "-a", "-q"]).lines().for_each(|id| drop(coracle.run(&["rm", "-f", id])));
            processes_with(&mark).is_empty() && processes_with(&format!("{own}/root/containers")).is_empty()
        });
        coracle.ok(&["ps"]);
        coracle.assert_nothing_left();
        for id in begun {
            assert_eq!(groups_called(&id), Vec::<PathBuf>::new(), "round {round}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&own), "{mounts}");
        assert_eq!(coracle.ok(&["run", "--rm", "--name", "victim", "busybox", "echo", "fine"]), "fine\n");
    }
}

#[test]
fn a_command_line_killed_at_any_moment_leaves_nothing_half_made() {
    kill_at_random(|child| kill_process(Pid::from_child(child), Signal::KILL).unwrap());
}

#[test]
fn a_monitor_killed_at_any_moment_leaves_nothing_half_made() {
    kill_at_random(|child| {
        let Some(monitor) = child_of(child.id()) else { return };
        // It may just have ended.
        let _ = kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL);
    });
}

#[test]
fn of_two_containers_with_one_name_one_wins() {
    let coracle = Coracle::with_busybox();
    for _ in 0..5 {
        let start = || {
            let mut command = coracle.command(&["run", "--rm", "-i", "--name", "one", "busybox", "cat"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let (mut first, mut second) = (start(), start());
        // Whoever lost has ended; the winner ends when its input does.
        eventually("one loses", || {
            first.try_wait().unwrap().is_some() || second.try_wait().unwrap().is_some()
        });
        let (first, second): (Ran, Ran) =
            (first.wait_with_output().unwrap().into(), second.wait_with_output().unwrap().into());
        let mut codes = [first.code, second.code];
        codes.sort_unstable();
        assert_eq!(codes, [0, 125], "{first:?} {second:?}");
        let loser = if first.code == 125 { first } else { second };
        assert!(loser.err.contains("the name \"one\" is taken"), "{}", loser.err);
    }
    coracle.assert_nothing_left();
}

#[test]
fn thirty_two_at_once_all_succeed() {
    let coracle = Coracle::with_busybox();
    let runs: Vec<Child> = (0..32)
        .map(|number| {
            let mut command = coracle.command(&["run", "--rm", "busybox", "echo", &number.to_string()]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let ran: Ran = run.wait_with_output().unwrap().into();
        assert_eq!((ran.code, ran.out.trim()), (0, number.to_string().as_str()), "{ran:?}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn a_program_that_closes_its_input_early_does_not_end_the_command_line() {
    let coracle = Coracle::with_busybox();
    let mut child = coracle
        .command(&["run", "--rm", "-i", "busybox", "sh", "-c", "exec <&-; sleep 0.2; echo done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than the pipes between hold; whether the end is refused or swallowed is the kernel's affair.
    let _ = input.write_all(&vec![b'x'; 300_000]);
    drop(input);
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.out.as_str()), (0, "done\n"));
}

#[test]
fn too_little_memory_is_said_with_the_limit_to_raise() {
    let coracle = Coracle::with_busybox();
    let script = "x=a; while :; do x=$x$x; done";
    let args = ["run", "--rm", "--memory", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script];
    let ran = coracle.run(&args);
    if ran.code == 125 && !is_root() && ran.err.contains("delegat") {
        println!("SKIP: life::too_little_memory_is_said_with_the_limit_to_raise: no delegated control group");
        return;
    }
    assert_eq!((ran.code, ran.err.lines().count()), (137, 3), "{ran:?}");
    assert!(ran.err.contains("memory ran out") && ran.err.contains("--memory 16m"), "{}", ran.err);
    coracle.assert_nothing_left();
}

#[test]
fn the_id_goes_to_the_cidfile_and_an_existing_one_is_refused() {
    let coracle = Coracle::with_busybox();
    let file = coracle.directory().join("cid");
    let args = ["run", "--cidfile", file.to_str().unwrap(), "--name", "named", "busybox", "true"];
    coracle.ok(&args);
    let id = std::fs::read_to_string(&file).unwrap();
    assert_eq!(coracle.ok(&["ps", "-aq", "--no-trunc"]).trim(), id);
    let again = coracle.run(&args);
    assert_eq!((again.code, again.err.lines().count()), (125, 3), "{again:?}");
    coracle.ok(&["rm", &id[..12]]);
    coracle.assert_nothing_left();
}
