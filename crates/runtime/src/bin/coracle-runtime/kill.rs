//! `kill`: a signal for a container.

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use runtime::Error;
use runtime::container::{Container, Fault};

use crate::arguments::{Flag, Given, switch};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] = &[switch("all", Some("a"), "send it to every process of the container's group")];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    let name = given.operands.get(1).map_or("TERM", String::as_str);
    // A number is the kernel's to judge; 0 asks whether there is somebody to get one.
    let signal = name.parse().ok().or_else(|| kernel::signal::number(name));
    let signal = signal.ok_or_else(|| Failed::new(format!("unknown signal {name:?}")))?;
    let process = container.process()?;
    if given.is_on("all") {
        return match container.group()? {
            Some(group) => {
                group.kill_all(signal).map_err(Error::from)?;
                Ok(ExitCode::SUCCESS)
            }
            None => Err(Error::from(Fault::NotRunning).into()),
        };
    }
    let Some(process) = process else { return Err(Error::from(Fault::NotRunning).into()) };
    match kernel::process::send_signal(process.as_fd(), signal) {
        Err(error) if error.errno() == kernel::Errno::SRCH => Err(Error::from(Fault::NotRunning).into()),
        Err(error) if error.errno() == kernel::Errno::INVAL => {
            Err(Failed::new("unable to signal init: invalid argument"))
        }
        Err(error) => Err(Failed::new(error.to_string())),
        Ok(()) => {
            // One that is paused is to end as any other.
            if signal == libc::SIGKILL
                && let Some(group) = container.group()?
            {
                group.let_die().map_err(Error::from)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
