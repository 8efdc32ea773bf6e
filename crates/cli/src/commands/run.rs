//! `coracle run`.

mod arguments;
mod meaning;

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use engine::{Roots, UserSide};
use kernel::record::Log;

pub use self::arguments::Arguments;
use crate::error::Error;
use crate::explain;

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let spec = meaning::spec(arguments).map_err(engine::Error::from)?;
    let log = arguments.explain.map(|_| Log::create()).transpose().map_err(engine::Error::from)?;
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let user = UserSide { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    let outcome = engine::run(roots, &spec, user, log.as_ref());
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
