//! The process that stays: it makes one container, keeps its streams open, waits for its end and undoes everything.
//!
//! It is executed, not forked, so that it carries nothing of the command line's memory, and from a read-only detached copy of its own
//! file, so that the container it makes cannot reach the host's. If the command line is killed, the container goes on: its output
//! is then read here and thrown away, so that it never blocks and never gets SIGPIPE.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cgroup::Hierarchy;
use kernel::process::{self, Ended};
use kernel::record::{Actor, Chapter, Log, because};
use kernel::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Failure, InStep as _, Result};
use crate::hooks::{self, Moment};
use crate::intel_rdt;
use crate::launch::{Job, Running, launch};
use crate::message::{self, FromMonitor, ToMonitor};
use crate::remains;
use crate::request::{self, Request};
use crate::state::{self, Exit, State};
use crate::streams::Streams;

/// The first argument that makes coracle-runtime the monitor.
pub const ARGUMENT: &str = "monitor";

/// How a monitor is started: `monitor CONTROL RECORD`, descriptors by number, `-` for none.
#[derive(Debug)]
pub struct Start {
    control: OwnedFd,
    record: Option<OwnedFd>,
}

impl Start {
    /// Reads the arguments after `monitor`.
    pub fn parse(args: &[String]) -> Result<Self> {
        let [control, record] = args else {
            return Err(usage(&args.join(" ")));
        };
        let adopt = |text: &String| {
            let number = text.parse().map_err(|_| usage(text))?;
            process::adopt(number).in_step("cannot start the monitor")
        };
        Ok(Self { control: adopt(control)?, record: if record == "-" { None } else { Some(adopt(record)?) } })
    }
}

fn usage(value: &str) -> Error {
    let reason = "coracle starts the monitor by itself; it is of no use by hand".to_owned();
    Error::Configuration { what: "arguments of the monitor", value: value.to_owned(), reason }
}

/// Runs one container to its end.
pub fn run(start: Start) -> Result<()> {
    kernel::record::actor(Actor::Monitor);
    kernel::signal::ignore_broken_pipes();
    let log = start.record.map(Log::attach).transpose().in_step("cannot record")?;
    if let Some(log) = &log {
        log.install();
    }
    let signals = SignalFd::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT])
        .in_step("cannot start the monitor")?;
    let hierarchy = Hierarchy::detect();
    // The command line prepares the container while this process starts; if it fails or is killed there is nothing to do.
    // The lock is held open, never used: while it is, the container's lock is taken.
    let (directory, _lock) = match message::receive::<ToMonitor>(&start.control)? {
        Some((ToMonitor::Begin { directory }, lock)) => (directory, lock),
        _ => return Ok(()),
    };
    let request = match read_request(&directory) {
        Ok(request) => request,
        Err(error) => return report(&start.control, FromMonitor::Failed(Failure::from(&error)), &[]),
    };
    let (container_side, our_side) = streams(&request)?;
    let born = |pid| State::of(pid).write(&request.state_directory);
    let launched = hierarchy.map_err(Error::from).and_then(|hierarchy| {
        let (request, hierarchy) = (&request, &hierarchy);
        launch(Job { request, streams: container_side, hierarchy, gate: None }, born)
    });
    let running = match launched {
        Ok(running) => running,
        Err(error) => {
            let failure = Failure::from(&error);
            let _ = remains::remove_files(&request, None);
            return report(&start.control, FromMonitor::Failed(failure), &[]);
        }
    };
    let streams = our_side.into_iter().map(Some).collect();
    let mut monitor = Monitor { request, running, signals, control: Some(start.control), streams };
    monitor.streams.extend(monitor.running.terminal.take().map(Some));
    if let Err(error) = monitor.run_hooks_of_the_start() {
        return monitor.give_up(&error);
    }
    monitor.announce()?;
    let ended = monitor.wait()?;
    monitor.finish(ended)
}

/// A command line that is gone is nobody to report to; the container's own files tell the rest.
fn report(control: &OwnedFd, message: FromMonitor, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
    let _ = message::send(control, &message, fds);
    Ok(())
}

fn read_request(directory: &Path) -> Result<Request> {
    let path = directory.join("request.json");
    let text = fs_err::read(&path)?;
    let unreadable = |reason: String| Error::Request { path: path.clone(), reason };
    let request: Request = state::from_json(&text).map_err(unreadable)?;
    match request.version {
        request::VERSION => Ok(request),
        other => {
            Err(unreadable(format!("version {other}, and this coracle knows version {}", request::VERSION)))
        }
    }
}

/// The container's ends of its streams, and ours in the order input (if it stays open), output, error.
fn streams(request: &Request) -> Result<(Streams, Vec<OwnedFd>)> {
    const STEP: &str = "cannot make the container's streams";
    let null = |flags| {
        rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| kernel::Error::new("open", "/dev/null", errno))
            .in_step(STEP)
    };
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| kernel::Error::new("pipe2", "standard stream", errno))
            .in_step(STEP)
    };
    if request.spec.process.as_ref().is_some_and(|process| process.terminal) {
        // The terminal itself is made inside the container, from its own devpts.
        let (input, output, error) = (null(OFlags::RDONLY)?, null(OFlags::WRONLY)?, null(OFlags::WRONLY)?);
        return Ok((Streams::Pipes { input, output, error }, Vec::new()));
    }
    let mut ours = Vec::new();
    let input = if request.interactive {
        let (reader, writer) = pipe()?;
        ours.push(writer);
        reader
    } else {
        null(OFlags::RDONLY)?
    };
    let (output_reader, output) = pipe()?;
    let (error_reader, error) = pipe()?;
    ours.extend([output_reader, error_reader]);
    Ok((Streams::Pipes { input, output, error }, ours))
}

struct Monitor {
    request: Request,
    running: Running,
    signals: SignalFd,
    /// The command line; none when it is gone.
    control: Option<OwnedFd>,
    /// Our ends of the container's streams; none where one is closed.
    streams: Vec<Option<OwnedFd>>,
}

impl Monitor {
    /// The hooks after the start.
    fn run_hooks_of_the_start(&self) -> Result<()> {
        let list = self.request.spec.hooks.as_ref().map_or(&[][..], |hooks| &hooks.poststart);
        if list.is_empty() {
            return Ok(());
        }
        hooks::run(Moment::Poststart, list, &self.state_for_hooks("running", self.running.child.pid))
    }

    /// The hooks of the end. One that fails keeps none of the others from running; the first failure is told.
    fn run_hooks_of_the_end(&self) -> Result<()> {
        let list = self.request.spec.hooks.as_ref().map_or(&[][..], |hooks| &hooks.poststop);
        if list.is_empty() {
            return Ok(());
        }
        let state = self.state_for_hooks("stopped", 0);
        let run = |(number, hook)| hooks::run_one(Moment::Poststop, number, hook, &state);
        list.iter().enumerate().map(run).fold(Ok(()), Result::and)
    }

    fn state_for_hooks(&self, status: &str, pid: u32) -> String {
        hooks::state_text(&self.request.spec, &self.request.id, status, pid, &self.request.directory)
    }

    /// Ends a container that has started and may not go on: runtime-spec `runtime.md`, "Lifecycle".
    fn give_up(mut self, error: &Error) -> Result<()> {
        self.signal(libc::SIGKILL);
        process::wait(self.running.child.pidfd.as_fd()).in_step("cannot wait for the container")?;
        let undone = match self.running.group.take() {
            Some(group) => remains::remove_group(&group).map(drop),
            None => Ok(()),
        };
        let undone = undone.and(intel_rdt::remove(&self.request));
        let files = remains::remove_files(&self.request, self.running.user_namespace.as_ref());
        let hooks = self.run_hooks_of_the_end();
        if let Some(control) = &self.control {
            report(control, FromMonitor::Failed(Failure::from(error)), &[])?;
        }
        undone.and(files).and(hooks)
    }

    /// Tells the command line, and hands it the streams. The input's end is then only its own: when it closes it, the container
    /// reads the end. The others are kept, so that they outlive it.
    fn announce(&mut self) -> Result<()> {
        let started = FromMonitor::Started { pid: self.running.child.pid };
        let fds: Vec<_> = self.streams.iter().flatten().map(AsFd::as_fd).collect();
        if let Some(control) = &self.control {
            report(control, started, &fds)?;
        }
        let terminal = self.request.spec.process.as_ref().is_some_and(|process| process.terminal);
        if self.request.interactive && !terminal {
            self.streams.remove(0);
        }
        Ok(())
    }

    /// Waits for the first process to end. Nothing here sleeps or polls in a loop of time.
    fn wait(&mut self) -> Result<Ended> {
        loop {
            let [ended, signal, command, output] = self.next_event()?;
            if ended {
                return process::wait(self.running.child.pidfd.as_fd())
                    .in_step("cannot wait for the container");
            }
            if signal {
                while let Some(signal) = self.signals.read().in_step("cannot read signals")? {
                    self.signal(signal.number);
                }
            }
            if command {
                self.obey()?;
            }
            if output {
                self.discard_output();
            }
        }
    }

    /// Which of these happened: the container ended, a signal came, the command line spoke or left, there is output to throw away.
    fn next_event(&self) -> Result<[bool; 4]> {
        let mut fds = vec![
            PollFd::new(&self.running.child.pidfd, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        match &self.control {
            Some(control) => fds.push(PollFd::new(control, PollFlags::IN)),
            None => {
                fds.extend(self.streams.iter().flatten().map(|stream| PollFd::new(stream, PollFlags::IN)))
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                let source = kernel::Error::new("poll", "the container", errno);
                return Err(Error::Step { step: "cannot wait for the container", source });
            }
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let rest = happened[2..].contains(&true);
        Ok([happened[0], happened[1], rest && self.control.is_some(), rest && self.control.is_none()])
    }

    fn signal(&self, number: i32) {
        because(Chapter::Process, "a signal for the command line is meant for the container");
        // It may just have ended, which the next event tells.
        let _ = process::send_signal(self.running.child.pidfd.as_fd(), number);
    }

    fn obey(&mut self) -> Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        match message::receive::<ToMonitor>(control)? {
            Some((ToMonitor::Signal(number), _)) => self.signal(number),
            Some((ToMonitor::Close(number), _)) => drop(self.streams.get_mut(number).and_then(Option::take)),
            Some((ToMonitor::Begin { .. }, _)) => {}
            None => self.control = None,
        }
        Ok(())
    }

    /// Nobody listens any more: what comes is read so that the container does not block. A stream that has ended is closed.
    fn discard_output(&mut self) {
        let mut buffer = [0; 4096];
        for slot in &mut self.streams {
            let Some(stream) = slot else { continue };
            let mut fds = [PollFd::new(stream, PollFlags::IN)];
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            if poll(&mut fds, Some(&now)) == Ok(1)
                && !matches!(rustix::io::read(stream, &mut buffer), Ok(1..))
            {
                *slot = None;
            }
        }
    }

    /// Undoes what was made, in reverse order, and tells how it ended.
    fn finish(mut self, ended: Ended) -> Result<()> {
        let mut out_of_memory = false;
        let mut undone = Ok(());
        if let Some(group) = self.running.group.take() {
            match remains::remove_group(&group) {
                Ok(killed) => out_of_memory = killed,
                Err(error) => undone = Err(error),
            }
        }
        undone = undone.and(intel_rdt::remove(&self.request));
        let exit = Exit { version: state::VERSION, code: ended.code(), out_of_memory, ended: state::now() };
        let files = match self.request.remove {
            true => remains::remove_files(&self.request, self.running.user_namespace.as_ref()),
            false => exit
                .write(&self.request.directory)
                .and_then(|()| fs_err::remove_dir_all(&self.request.state_directory).map_err(Error::File)),
        };
        let hooks = self.run_hooks_of_the_end();
        if let Some(control) = &self.control {
            report(control, FromMonitor::Ended { code: exit.code, out_of_memory }, &[])?;
        }
        undone.and(files).and(hooks)
    }
}
