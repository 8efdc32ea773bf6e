//! Starting the virtual machine and reading its report.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::process::{command, line};
use crate::workspace::Workspace;

/// How long the machine may be silent. Without hardware support a test takes some ten times as long as here.
const SILENCE: Duration = Duration::from_secs(240);

/// How long the whole may take.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// Lines of the console that are shown when the machine did not come to its end.
const CONSOLE_TAIL: usize = 40;

/// What the machine's kernel says when one of its processors has stood still: seen once in some hundred boots, with no change of ours
/// between, while both emulated processors patch the kernel's code. Such a machine is started once more, which is said.
const STUCK: &str = "soft lockup";

/// Runs the machine on the disks in `scratch`, until it has reported all suites or shows no more life.
pub(super) fn run(workspace: &Workspace, scratch: &Path) -> Result<Outcome> {
    let (outcome, console) = run_once(workspace, scratch)?;
    match console.filter(|console| console.contains(STUCK)) {
        Some(console) => {
            eprintln!("the emulated machine stood still and is started once more:\n{console}");
            Ok(run_once(workspace, scratch)?.0)
        }
        None => Ok(outcome),
    }
}

/// Runs the machine once; gives the console's end too when it did not come to its end.
fn run_once(workspace: &Workspace, scratch: &Path) -> Result<(Outcome, Option<String>)> {
    let mut report = Report::default();
    let end = follow(workspace, scratch, &[], &mut |line| report.line(line))?;
    let console = end.err().map(|Stopped { why, console }| {
        report.outcome.faults.push(format!("vm: {}{why}\n{console}", report.current()));
        console
    });
    Ok((report.outcome, console))
}

/// Why a machine did not come to its end.
pub(crate) struct Stopped {
    pub(crate) why: String,
    /// The end of what its kernel said.
    pub(crate) console: String,
}

/// Runs the machine on the disks in `scratch`, with more of qemu's options, and hands each line of its report to `read` until it says that it
/// is done.
pub(crate) fn follow(
    workspace: &Workspace,
    scratch: &Path,
    more: &[String],
    read: &mut dyn FnMut(&str),
) -> Result<std::result::Result<(), Stopped>> {
    let mut qemu = qemu(workspace, scratch);
    qemu.args(more);
    eprintln!("+ {}", line(&qemu));
    let spawned = qemu.stdout(Stdio::piped()).spawn();
    let child = spawned.map_err(|source| Error::Spawn { program: "qemu-system-x86_64".into(), source })?;
    let mut machine = Machine(child);
    let end = until_done(&machine.lines(), read);
    // Once it has reported all, the machine turns itself off; whether it does is of no interest here.
    drop(machine);
    Ok(end.map_err(|why| Stopped { why, console: console_tail(scratch) }))
}

/// qemu's command line. Neither disk keeps what is written (`snapshot=on`).
fn qemu(workspace: &Workspace, scratch: &Path) -> Command {
    let disks = [workspace.fixtures().join("vm/disk.ext4"), scratch.join("payload.ext4")];
    let mut qemu =
        command("qemu-system-x86_64", ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]);
    qemu.args(["-smp", "2", "-m", "3072"]);
    qemu.arg("-kernel").arg(workspace.fixtures().join("vm/vmlinuz"));
    qemu.arg("-initrd").arg(scratch.join("initramfs.cpio"));
    // qemu translates code anew when it is found at another address, so programs stay where they are: a container then starts in a third of
    // the time.
    qemu.args(["-append", "console=ttyS0 quiet loglevel=5 panic=-1 mitigations=off norandmaps"]);
    qemu.arg("-serial").arg(format!("file:{}", scratch.join("console.log").display()));
    for disk in disks {
        qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
    }
    qemu.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    qemu.args(["-chardev", "file,id=report,path=/dev/stdout", "-device", "virtserialport,chardev=report"]);
    // where snapshot=on writes
    qemu.env("TMPDIR", scratch);
    qemu
}

/// The running machine; dropping it ends it.
struct Machine(Child);

impl Machine {
    /// What the machine reports, line by line. The channel closes when the machine ends.
    fn lines(&mut self) -> Receiver<String> {
        let (sender, receiver) = channel();
        if let Some(stdout) = self.0.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(std::result::Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err()
                    {
                        break;
                    }
                }
            });
        }
        receiver
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the machine has said so far.
#[derive(Default)]
struct Report {
    outcome: Outcome,
    /// Place and suite that run now, and how many faults there were before.
    running: Option<(String, String, usize)>,
}

/// Reads until the machine says that it is done.
fn until_done(lines: &Receiver<String>, read: &mut dyn FnMut(&str)) -> std::result::Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(SILENCE.min(left)) {
            Ok(line) if line == "@@ done" => return Ok(()),
            Ok(line) => read(&line),
            Err(RecvTimeoutError::Disconnected) => return Err("the machine ended too early".into()),
            Err(RecvTimeoutError::Timeout) if left <= SILENCE => {
                return Err(format!("the machine is not done after {} s", DEADLINE.as_secs()));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("the machine has been silent for {} s", SILENCE.as_secs()));
            }
        }
    }
}

impl Report {
    /// Takes in one line: guest.sh's own, or a test's.
    fn line(&mut self, line: &str) {
        println!("{line}");
        let Some(report) = line.strip_prefix("@@ ") else {
            if let Some((place, ..)) = &self.running {
                self.outcome.read_line(place, line);
            }
            return;
        };
        match report.split(' ').collect::<Vec<_>>().as_slice() {
            ["begin", place, suite] => {
                self.running = Some(((*place).to_owned(), (*suite).to_owned(), self.outcome.faults.len()));
            }
            ["end", place, suite, status] => {
                let known = self.running.take().map_or(0, |(_, _, faults)| faults);
                // A suite that crashes has no line of its own for it.
                if *status != "0" && self.outcome.faults.len() == known {
                    self.outcome.faults.push(format!("{place}: {suite} ended with status {status}"));
                }
            }
            ["leak", place, suite, what @ ..] => {
                self.outcome.faults.push(format!("{place}: {suite} left behind: {}", what.join(" ")));
            }
            _ => {}
        }
    }

    fn current(&self) -> String {
        self.running.as_ref().map_or_else(String::new, |(place, suite, _)| format!("{suite} as {place}: "))
    }
}

/// The end of what the kernel said: a panic is there.
fn console_tail(scratch: &Path) -> String {
    let console = fs_err::read(scratch.join("console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Report, until_done};
    use std::sync::mpsc::channel;

    fn report(lines: &[&str]) -> (Report, Result<(), String>) {
        let (sender, receiver) = channel();
        lines.iter().for_each(|line| sender.send((*line).to_owned()).unwrap());
        drop(sender);
        let mut report = Report::default();
        let end = until_done(&receiver, &mut |line| report.line(line));
        (report, end)
    }

    #[test]
    fn report_is_counted() {
        let (report, end) = report(&[
            "@@ machine 6.1.0",
            "@@ begin vm kernel",
            "test a ... ok",
            "test b ... FAILED",
            "@@ end vm kernel 101",
            "@@ begin vm-user run",
            "test c ... ok",
            "@@ end vm-user run 0",
            "@@ leak vm-user run mount / on /mnt",
            "@@ begin vm-plain run",
            "@@ end vm-plain run 139",
            "@@ done",
        ]);
        assert!(end.is_ok());
        assert_eq!(report.outcome.passed, 2);
        let faults =
            ["vm: b", "vm-user: run left behind: mount / on /mnt", "vm-plain: run ended with status 139"];
        assert_eq!(report.outcome.faults, faults);
    }

    #[test]
    fn machine_that_ends_early_is_a_fault() {
        let (report, end) = report(&["@@ begin vm kernel", "test a ... ok"]);
        assert!(end.is_err());
        assert_eq!(report.current(), "kernel as vm: ");
    }
}
