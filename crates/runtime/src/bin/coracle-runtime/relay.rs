//! Standing between the caller and a process in the foreground: signals, the terminal, the end.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use kernel::process::{self, Child};
use kernel::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::Failed;

/// All that a caller may send, but for what is about this process itself and what the kernel lets nobody catch.
const PASSED_ON: [i32; 19] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGWINCH,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGURG,
    libc::SIGCHLD,
];

/// What is set up before the process is made.
pub struct Relay {
    signals: SignalFd,
}

impl Relay {
    /// Takes the signals in. As a subreaper this process gets the container's orphans, where the container has no PID namespace.
    pub fn begin(subreaper: bool) -> Result<Self, Failed> {
        let failed = |error: kernel::Error| Failed::new(error.to_string());
        if subreaper {
            kernel::identity::become_subreaper().map_err(failed)?;
        }
        Ok(Self { signals: SignalFd::block(&PASSED_ON).map_err(failed)? })
    }

    /// Passes on what comes until the process has ended; gives its exit status, 128 + n for signal n.
    pub fn until_end(self, child: &Child, terminal: Option<OwnedFd>) -> Result<i32, Failed> {
        let failed = |error: kernel::Error| Failed::new(error.to_string());
        let mut window = terminal.map(Window::open);
        let mut has_input = window.is_some();
        loop {
            let input = rustix::stdio::stdin();
            let mut fds =
                vec![PollFd::new(&child.pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(window) = &window {
                fds.push(PollFd::new(&window.terminal, PollFlags::IN));
                if has_input {
                    fds.push(PollFd::new(&input, PollFlags::IN));
                }
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Failed::new(format!("poll: {}", std::io::Error::from(errno)))),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
            drop(fds);
            if is_ready(1) {
                self.pass_signals_on(child, window.as_ref())?;
            }
            if let Some(window) = &window {
                if is_ready(3) {
                    has_input = copy(input, window.terminal.as_fd());
                }
                // What it wrote last is read before its end is told.
                while is_ready(2)
                    && window.has_output()
                    && copy(window.terminal.as_fd(), rustix::stdio::stdout())
                {}
            }
            if is_ready(0) {
                drop(window.take());
                return process::wait(child.pidfd.as_fd()).map(process::Ended::code).map_err(failed);
            }
        }
    }

    fn pass_signals_on(&self, child: &Child, window: Option<&Window>) -> Result<(), Failed> {
        while let Some(signal) = self.signals.read().map_err(|error| Failed::new(error.to_string()))? {
            match (signal.number, window) {
                (libc::SIGWINCH, Some(window)) => window.take_size(),
                // Orphans that this process has as a subreaper; the container's own process is waited for by its descriptor.
                (libc::SIGCHLD, _) => kernel::process::reap_others(child.pid),
                // Go's programs send it to themselves all the time.
                (libc::SIGURG, _) => {}
                // It may just have ended, which the next event tells.
                (number, _) => drop(process::send_signal(child.pidfd.as_fd(), number)),
            }
        }
        Ok(())
    }
}

/// The container's terminal, shown in the caller's, whose settings are put back at the end.
struct Window {
    terminal: OwnedFd,
    before: Option<Termios>,
}

impl Window {
    fn open(terminal: OwnedFd) -> Self {
        let input = rustix::stdio::stdin();
        let before = isatty(input).then(|| tcgetattr(input).ok()).flatten();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // A caller's terminal that cannot be set shows keys twice, no more.
            let _ = tcsetattr(input, OptionalActions::Now, &raw);
        }
        let window = Self { terminal, before };
        window.take_size();
        window
    }

    fn take_size(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(&self.terminal, size);
        }
    }

    fn has_output(&self) -> bool {
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.terminal, PollFlags::IN)];
        poll(&mut fds, Some(&now)) == Ok(1) && fds[0].revents().contains(PollFlags::IN)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies what there is; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 8192];
    let Ok(count @ 1..) = rustix::io::read(from, &mut buffer) else { return false };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
