//! The foreground: the user's terminal or streams on one side, the container's on the other, signals passed on.
//!
//! One loop, no thread: nothing is read before the other side can take it, and a chunk is never larger than what a pipe that is
//! ready takes without blocking, so that a signal is always heard.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kernel::signal::SignalFd;
use runtime::message::{self, FromMonitor, ToMonitor};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{self, OptionalActions, Termios};

use crate::error::{Error, Result};

/// What a pipe that is ready surely takes at once, see pipe(7).
const CHUNK: usize = 4096;

/// The user's side: standard streams.
#[derive(Debug)]
pub struct UserSide<'a> {
    /// What the user types.
    pub input: BorrowedFd<'a>,
    /// What the user sees.
    pub output: BorrowedFd<'a>,
    /// Where errors go.
    pub error: BorrowedFd<'a>,
}

/// How the container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status.
    pub code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub out_of_memory: bool,
    /// Why output could not be passed on, unless its reader had gone, which is the reader's affair.
    pub lost_output: Option<Errno>,
}

/// One direction of one stream.
struct Flow<'a> {
    from: Option<Side<'a>>,
    to: Option<Side<'a>>,
    waiting: VecDeque<u8>,
    /// The reader has gone before the writer.
    refused: bool,
    /// Why not, where it was not the reader that had gone.
    lost: Option<Errno>,
}

enum Side<'a> {
    Ours(OwnedFd),
    Users(BorrowedFd<'a>),
}

impl AsFd for Side<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Side::Ours(fd) => fd.as_fd(),
            Side::Users(fd) => *fd,
        }
    }
}

impl<'a> Flow<'a> {
    fn new(from: Side<'a>, to: Side<'a>) -> Self {
        Self { from: Some(from), to: Some(to), waiting: VecDeque::new(), refused: false, lost: None }
    }

    /// What this waits for, if anything.
    fn wants(&self) -> Option<PollFd<'_>> {
        match (&self.from, &self.to) {
            (_, Some(to)) if !self.waiting.is_empty() => Some(PollFd::new(to, PollFlags::OUT)),
            (Some(from), Some(_)) => Some(PollFd::new(from, PollFlags::IN)),
            _ => None,
        }
    }

    /// Moves one chunk. A reader that is gone ends the flow's reading too; the writer then gets what a closed pipe gives.
    fn step(&mut self) {
        if self.waiting.is_empty() {
            let mut buffer = [0; CHUNK];
            match self.from.as_ref().map_or(Ok(0), |from| rustix::io::read(from, &mut buffer)) {
                Ok(0) => self.from = None,
                Ok(count) => self.waiting.extend(&buffer[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // A terminal whose other side has closed says EIO.
                Err(_) => self.from = None,
            }
        } else if let Some(to) = &self.to {
            let (bytes, _) = self.waiting.as_slices();
            match rustix::io::write(to, bytes) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => {
                    self.lost = Some(errno).filter(|errno| *errno != Errno::PIPE);
                    self.waiting.clear();
                    (self.from, self.to, self.refused) = (None, None, true);
                }
            }
        }
        if self.from.is_none() && self.waiting.is_empty() {
            self.to = None;
        }
    }

    fn is_over(&self) -> bool {
        self.to.is_none()
    }
}

/// A terminal in raw mode, put back when this is dropped.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn make(terminal: BorrowedFd<'a>) -> Option<Self> {
        let before = termios::tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that has gone needs no mode.
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Signals that are passed on: all that can be caught and are not about this process itself. See docker-run(1), `--sig-proxy`.
pub(crate) fn forwarded_signals() -> Vec<i32> {
    let own = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGCHLD,
        libc::SIGPIPE,
        libc::SIGURG,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGTSTP,
        32,
        33,
    ];
    (1..=64).filter(|number| !own.contains(number)).collect()
}

/// Follows a container until it has ended and all its output is out.
pub(crate) struct Attachment<'a> {
    pub name: &'a str,
    pub control: OwnedFd,
    pub signals: SignalFd,
    pub user: UserSide<'a>,
    pub terminal: bool,
    pub interactive: bool,
}

impl<'a> Attachment<'a> {
    /// Waits for the container's program to run, then relays. `started` is told the first process's number.
    pub(crate) fn follow(self, started: impl FnOnce(u32) -> Result<()>) -> Result<Outcome> {
        let lost = || Error::MonitorLost { name: self.name.to_owned() };
        let streams = match message::receive::<FromMonitor>(&self.control)? {
            Some((FromMonitor::Started { pid }, streams)) => {
                started(pid)?;
                streams
            }
            Some((FromMonitor::Failed(failure), _)) => {
                return Err(Error::Container { name: self.name.to_owned(), failure });
            }
            _ => return Err(Error::MonitorNotStarted { name: self.name.to_owned() }),
        };
        let resized =
            self.terminal.then(|| streams.first().map(|fd| fd.try_clone())).flatten().and_then(|fd| fd.ok());
        let _raw = if self.terminal && self.interactive { Raw::make(self.user.input) } else { None };
        let flows = self.flows(streams).ok_or_else(lost)?;
        self.resize(resized.as_ref());
        self.relay(flows, resized)
    }

    /// The flows: a terminal carries both directions, pipes one each.
    fn flows(&self, streams: Vec<OwnedFd>) -> Option<Vec<Flow<'a>>> {
        let (input, output, error) =
            (Side::Users(self.user.input), Side::Users(self.user.output), Side::Users(self.user.error));
        let mut streams = streams.into_iter();
        let mut flows = Vec::new();
        if self.terminal {
            let controller = streams.next()?;
            if self.interactive {
                flows.push(Flow::new(input, Side::Ours(controller.try_clone().ok()?)));
            }
            flows.insert(0, Flow::new(Side::Ours(controller), output));
            return Some(flows);
        }
        let container_input = if self.interactive { Some(streams.next()?) } else { None };
        flows.push(Flow::new(Side::Ours(streams.next()?), output));
        flows.push(Flow::new(Side::Ours(streams.next()?), error));
        flows.extend(container_input.map(|to| Flow::new(input, Side::Ours(to))));
        Some(flows)
    }

    fn relay(&self, mut flows: Vec<Flow<'a>>, mut terminal: Option<OwnedFd>) -> Result<Outcome> {
        let outputs = if self.terminal { 1 } else { 2 };
        let mut ended: Option<Outcome> = None;
        let mut interrupts = 0;
        loop {
            let all_out = flows[..outputs].iter().all(Flow::is_over);
            if let (Some(outcome), true) = (ended, all_out) {
                let lost_output = flows[..outputs].iter().find_map(|flow| flow.lost);
                return Ok(Outcome { lost_output, ..outcome });
            }
            let (heard, signaled, ready) = self.next_event(&flows, ended.is_some())?;
            for (flow, _) in flows.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                flow.step();
            }
            self.pass_refusals(&mut flows, outputs, &mut terminal);
            if signaled {
                self.pass_signals(terminal.as_ref(), &mut interrupts)?;
            }
            if heard {
                match message::receive::<FromMonitor>(&self.control)? {
                    Some((FromMonitor::Ended { code, out_of_memory }, _)) => {
                        ended = Some(Outcome { code, out_of_memory, lost_output: None })
                    }
                    Some(_) => {}
                    None => return Err(Error::MonitorLost { name: self.name.to_owned() }),
                }
            }
        }
    }

    /// Waits until the monitor speaks, a signal arrives, or flows can move: which of these.
    fn next_event(&self, flows: &[Flow<'a>], ended: bool) -> Result<(bool, bool, Vec<bool>)> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if !ended {
            fds.push(PollFd::new(&self.control, PollFlags::IN));
        }
        let fixed = fds.len();
        let wanted: Vec<Option<PollFd<'_>>> = flows.iter().map(Flow::wants).collect();
        let places: Vec<bool> = wanted.iter().map(Option::is_some).collect();
        fds.extend(wanted.into_iter().flatten());
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(kernel::Error::new("poll", "the container's streams", errno).into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut rest = happened[fixed..].iter();
        let ready =
            places.into_iter().map(|polled| polled && rest.next().copied().unwrap_or(false)).collect();
        Ok((!ended && happened[1], happened[0], ready))
    }

    /// Who writes what nobody reads gets SIGPIPE, or a terminal that has hung up, as without a container. Every end must close
    /// for that: the monitor's too.
    fn pass_refusals(&self, flows: &mut Vec<Flow<'a>>, outputs: usize, terminal: &mut Option<OwnedFd>) {
        for (number, flow) in flows[..outputs].iter_mut().enumerate() {
            if std::mem::take(&mut flow.refused) {
                // A monitor that is gone has no end open.
                let _ = message::send(&self.control, &ToMonitor::Close(number), &[]);
                *terminal = None;
            }
        }
        if self.terminal && flows[0].is_over() {
            flows.truncate(1);
        }
    }

    fn pass_signals(&self, terminal: Option<&OwnedFd>, interrupts: &mut u32) -> Result<()> {
        while let Some(signal) = self.signals.read()? {
            match signal.number {
                libc::SIGWINCH => self.resize(terminal),
                libc::SIGINT | libc::SIGTERM => {
                    *interrupts += 1;
                    if *interrupts == 2 {
                        self.say_that_one_more_kills();
                    }
                    // A first process without a handler never hears these; whoever insists means it.
                    let number = if *interrupts >= 3 { libc::SIGKILL } else { signal.number };
                    self.tell(number);
                }
                number => self.tell(number),
            }
        }
        Ok(())
    }

    /// For a person only: whoever reads what the program says gets what it says, and no more.
    fn say_that_one_more_kills(&self) {
        if termios::isatty(self.user.error) {
            // The cursor stands behind a ^C, and the terminal may be raw.
            let _ = rustix::io::write(
                self.user.error,
                b"\r\ncoracle: the program goes on; once more kills it\r\n",
            );
        }
    }

    /// A monitor that is gone is noticed by the next read.
    fn tell(&self, number: i32) {
        let _ = message::send(&self.control, &ToMonitor::Signal(number), &[]);
    }

    /// Gives the container's terminal the size of the user's.
    fn resize(&self, terminal: Option<&OwnedFd>) {
        if let (Some(terminal), Ok(size)) = (terminal, termios::tcgetwinsize(self.user.output)) {
            // The container may just have ended.
            let _ = termios::tcsetwinsize(terminal, size);
        }
    }
}
