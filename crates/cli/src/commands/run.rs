//! `coracle run`.

mod arguments;
mod meaning;

use std::os::fd::AsFd as _;
use std::process::{ExitCode, Stdio};

use engine::options::Pull;
use engine::spec::Spec;
use engine::{Outcome, Roots, UserSide};
use kernel::record::Log;

pub use self::arguments::Arguments;
use crate::error::Error;
use crate::explain;

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let spec = meaning::spec(arguments).map_err(engine::Error::from)?;
    let policy = meaning::pull(arguments).map_err(engine::Error::from)?;
    let pull =
        |here: &[String]| spec.image.as_deref().is_none_or(|image| pull(roots, arguments, image, here));
    if policy == Pull::Always && !pull(&[]) {
        return Ok(ExitCode::from(FAILED));
    }
    let (mut outcome, mut log) = attempt(roots, arguments, &spec)?;
    if policy == Pull::Missing
        && let Some(nearest) = outcome.as_ref().err().and_then(engine::Error::missing_image)
    {
        if !pull(nearest) {
            return Ok(ExitCode::from(FAILED));
        }
        (outcome, log) = attempt(roots, arguments, &spec)?;
    }
    if let (Some(log), Some(form)) = (&log, arguments.explain) {
        explain::print(log, form, &secrets(&spec));
    }
    let outcome = outcome.map_err(|error| {
        let what = spec.image.clone().or(spec.root_directory.as_ref().map(|root| root.display().to_string()));
        let headline = format!("cannot run \"{}\"", what.unwrap_or_default());
        let advice = advice(arguments, error.exit_code());
        let error = Error::from(error).advising(advice);
        let error = match processor_option(arguments) {
            Some(typed) => error.naming(typed, &PROCESSOR_OPTIONS),
            None => error,
        };
        error.doing(headline, "see what was done up to there: give --explain too")
    })?;
    if outcome.out_of_memory {
        out_of_memory(arguments).print();
    }
    if let Some(errno) = outcome.lost_output {
        let cause = std::io::Error::from(errno).to_string();
        Error::lost_output("not all output of the container could be passed on", cause).print();
    }
    Ok(ExitCode::from(outcome.code as u8))
}

/// docker's exit code where no container came to be.
const FAILED: u8 = 125;

type Attempt = (engine::Result<Outcome>, Option<Log>);

/// Runs the container, and records how where that was asked for.
fn attempt(roots: &Roots, arguments: &Arguments, spec: &Spec) -> Result<Attempt, Error> {
    let log = arguments.explain.map(|_| Log::create()).transpose().map_err(engine::Error::from)?;
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let user = UserSide { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    Ok((engine::run(roots, spec, user, log.as_ref()), log))
}

/// Has the image fetched by a process of its own, which says itself why it cannot: this one must stay small and single-threaded, because
/// it clones.
fn pull(roots: &Roots, arguments: &Arguments, image: &str, nearest: &[String]) -> bool {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("--root").arg(&roots.persistent).arg("--state").arg(&roots.volatile).arg("pull");
    if let Some(platform) = &arguments.platform {
        command.args(["--platform", platform]);
    }
    if arguments.quiet {
        command.arg("--quiet");
    } else {
        let here =
            if nearest.is_empty() { String::new() } else { format!(" (here is {})", nearest.join(", ")) };
        eprintln!("Asking the registry for \"{image}\"{here}");
    }
    // Its standard output is the name, and this command's is the container's.
    let status = command.args(["--", image]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Options that end in one setting of a control group, whose name in an error may be another one than that which was typed.
const PROCESSOR_OPTIONS: [&str; 3] = ["--cpus", "--cpu-quota", "--cpu-period"];

fn processor_option(arguments: &Arguments) -> Option<&'static str> {
    let typed = [&arguments.cpus, &arguments.cpu_quota, &arguments.cpu_period];
    let mut names = PROCESSOR_OPTIONS.into_iter().zip(typed);
    names.find_map(|(name, typed)| typed.is_some().then_some(name))
}

/// What to do where the words that were typed say more than the error does.
fn advice(arguments: &Arguments, code: u8) -> Option<String> {
    const NOT_FOUND: u8 = 127;
    let (program, rest) = arguments.entrypoint.as_deref()?.split_once(char::is_whitespace)?;
    let advice = format!(
        "--entrypoint takes the program only, its arguments follow the image: --entrypoint {program} IMAGE {rest}"
    );
    (code == NOT_FOUND).then_some(advice)
}

/// Said beside the exit code, which by itself would only be a 137 of many possible reasons.
fn out_of_memory(arguments: &Arguments) -> Error {
    let (cause, advice) = match &arguments.memory {
        Some(limit) => (
            format!("it needed more than its limit of memory and swap, --memory {limit}"),
            "raise the limit: a larger --memory, or more --memory-swap where there is swap",
        ),
        None => (
            "the machine, or the control group that the container is in, had no more to give".to_owned(),
            "run less at once, or say which program is to be ended last: --oom-score-adj",
        ),
    };
    let headline = "the kernel killed a process of the container because memory ran out";
    Error::new(headline, Some(cause), Some(advice.to_owned()))
}

/// What is passed by `-e` may be a password.
fn secrets(spec: &engine::spec::Spec) -> Vec<&str> {
    spec.process.environment.iter().filter_map(|(_, value)| value.as_deref()).collect()
}
