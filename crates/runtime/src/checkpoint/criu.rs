//! The program criu: finding it, running it, and what it says when it fails.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::process::{self, CloneFlags, Cloned, Ended};
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{MemfdFlags, Mode, OFlags};

use crate::child::{self, FromChild, Go};
use crate::error::{Error, InStep as _, Result};
use crate::message;

const STEP: &str = "cannot run criu";

/// criu runs programs itself: ip, iptables-restore, tar.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many of criu's errors are told, the last ones.
const MOST_ERRORS: usize = 4;

/// One run of criu.
pub(super) struct Call<'a> {
    /// What [`find`] found.
    pub program: PathBuf,
    /// What criu is to do.
    pub verb: &'static str,
    /// Its options.
    pub arguments: Vec<String>,
    /// Descriptors that it gets at the same numbers.
    pub passed: Vec<OwnedFd>,
    /// Where its log goes.
    pub work: &'a Path,
}

/// Finds criu in `$PATH`.
pub(super) fn find() -> Result<PathBuf> {
    let path = std::env::var("PATH").map(|path| format!("PATH={path}"));
    let environment: Vec<String> = path.into_iter().collect();
    crate::program::find("criu", &environment)
        .map_err(|error| Error::CriuMissing { reason: error.to_string() })
}

impl Call<'_> {
    /// Runs criu in new `namespaces`, after `guide` in this process, which gets its number, and then `prepare` in criu's.
    ///
    /// The caller must be single-threaded.
    pub fn run(
        &self,
        namespaces: CloneFlags,
        prepare: impl FnOnce() -> Result<()>,
        guide: impl FnOnce(u32) -> Result<()>,
    ) -> Result<()> {
        let log = self.work.join(format!("{}.log", self.verb));
        let mut argv = vec!["criu".to_owned(), self.verb.to_owned(), "-v4".to_owned()];
        argv.extend(["--log-file".to_owned(), format!("{}.log", self.verb)]);
        argv.extend(self.arguments.iter().cloned());
        let said = capture()?;
        let ended = execute(&self.program, &argv, &self.passed, &said, (namespaces, prepare, guide))?;
        if ended == Ended::Exited(0) {
            return Ok(());
        }
        let text = fs_err::read_to_string(&log).unwrap_or_default() + &contents(&said);
        let mut reasons = errors(&text);
        if let Some(complaint) = failed_check(&self.program)? {
            reasons.push(format!("criu check fails on this machine, too: {complaint}"));
        }
        Err(Error::Criu { verb: self.verb, ended: describe(ended), said: reasons.join("; "), log })
    }
}

/// What `criu check` complains of; none if it is content.
fn failed_check(program: &Path) -> Result<Option<String>> {
    let argv = ["criu".to_owned(), "check".to_owned()];
    let said = capture()?;
    let nothing = (CloneFlags::empty(), || Ok(()), |_| Ok(()));
    Ok(match execute(program, &argv, &[], &said, nothing)? {
        Ended::Exited(0) => None,
        ended => {
            let reasons = errors(&contents(&said));
            Some(if reasons.is_empty() { describe(ended) } else { reasons.join("; ") })
        }
    })
}

type Steps<P, G> = (CloneFlags, P, G);

fn execute(
    program: &Path,
    argv: &[String],
    passed: &[OwnedFd],
    said: &OwnedFd,
    (namespaces, prepare, guide): Steps<impl FnOnce() -> Result<()>, impl FnOnce(u32) -> Result<()>>,
) -> Result<Ended> {
    let (ours, theirs) = kernel::socket::pair().in_step(STEP)?;
    because(Chapter::Process, "criu knows how to write processes to files, and how to make them again");
    let child = match process::clone3(namespaces, None).in_step(STEP)? {
        Cloned::Child => {
            drop(ours);
            kernel::record::actor(Actor::Helper);
            kernel::signal::unblock_all();
            let ready = child::wait_for_go(theirs.as_fd()).and_then(|_| prepare());
            let error = match ready.and_then(|()| arrange(passed, said)) {
                Ok(()) => {
                    let failed = process::execve(program, argv, &[PATH.to_owned()]);
                    Error::Step { step: STEP, source: failed }
                }
                Err(error) => error,
            };
            child::fail(theirs.as_fd(), &error)
        }
        Cloned::Parent(child) => child,
    };
    drop(theirs);
    let told = guide(child.pid).and_then(|()| {
        message::send(&ours, &Go::On, &[]).in_step(STEP)?;
        // Closed by its execve.
        match message::receive::<FromChild>(&ours)? {
            Some((FromChild::Failed(failure), _)) => Err(Error::InContainer(failure)),
            _ => Ok(()),
        }
    });
    if told.is_err() {
        // It may have ended by itself.
        let _ = process::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    }
    let ended = process::wait(child.pidfd.as_fd()).in_step(STEP);
    told.and(ended)
}

/// Leaves criu its streams and what is passed to it, nothing else.
fn arrange(passed: &[OwnedFd], said: &OwnedFd) -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| kernel::Error::new("open", "/dev/null", errno))
        .in_step(STEP)?;
    for (stream, number) in [(&null, 0), (said, 1), (said, 2)] {
        process::set_standard_stream(stream.as_fd(), number).in_step(STEP)?;
    }
    process::cloexec_all().in_step(STEP)?;
    passed.iter().try_for_each(|fd| process::inherit(fd).map(drop)).in_step(STEP)
}

fn capture() -> Result<OwnedFd> {
    rustix::fs::memfd_create("criu", MemfdFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("memfd_create", "criu's output", errno))
        .in_step(STEP)
}

fn contents(said: &OwnedFd) -> String {
    let mut bytes = [0; 16 << 10];
    let read = rustix::io::pread(said, &mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned()
}

/// The last errors in what criu has written: lines such as `(00.1) Error (criu/cr-dump.c:1): Can't …`, of which the words stay.
fn errors(text: &str) -> Vec<String> {
    let words = |line: &str| {
        let (_, rest) = line.split_once("Error (")?;
        Some(rest.split_once("): ").map_or(rest, |(_, words)| words).trim().to_owned())
    };
    let mut found: Vec<String> = text.lines().filter_map(words).collect();
    found.dedup();
    found.split_off(found.len().saturating_sub(MOST_ERRORS))
}

fn describe(ended: Ended) -> String {
    match ended {
        Ended::Exited(status) => format!("status {status}"),
        Ended::Signaled(signal) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_told_in_criu_s_words() {
        let text = "(00.01) Version: 3.17\n(00.02) Error (criu/a.c:1): one\n(00.02) Error (criu/a.c:1): one\n\
            Error (criu/b.c:22): two: (3): x\nWarn  (criu/a.c:1): no\nError (c:1): 3\nError (c:1): 4\nError (c:1): 5\n";
        assert_eq!(errors(text), ["two: (3): x", "3", "4", "5"]);
        assert_eq!(errors("all is well\n"), Vec::<String>::new());
    }
}
