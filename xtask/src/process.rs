//! Running other programs.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// A command of `program` and `arguments` that reads no input: nothing here may wait for a person.
pub(crate) fn command<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A bash script that stops at its first failure, also within a pipe. `arguments` are its `$1`, `$2`, …
pub(crate) fn script<A: AsRef<OsStr>>(text: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = command("bash", ["-euo", "pipefail", "-c", text, "script"]);
    command.args(arguments);
    command
}

/// Prints the command line, runs it with our own output, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", line(command));
    let status = command.status().map_err(|source| spawn_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { line: line(command), status: status.to_string(), stderr: String::new() })
}

/// Runs the command without showing its output, unless it fails: then the error carries both streams.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// Runs the command and returns what it printed on standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = outcome(command)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = format!("{}{}", stdout, String::from_utf8_lossy(&output.stderr));
    Err(Error::Command { line: line(command), status: output.status.to_string(), stderr })
}

/// Runs the command and returns its status and both streams, whatever the status.
pub(crate) fn outcome(command: &mut Command) -> Result<Output> {
    command.output().map_err(|source| spawn_error(command, source))
}

/// Whether `program` is on the search path.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether we are root: the owner of our own entry in /proc.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs_err::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn spawn_error(command: &Command, source: std::io::Error) -> Error {
    Error::Spawn { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::{capture, line, script};

    #[test]
    fn command_line_can_be_typed_again() {
        let command = super::command("sh", ["-c", "echo it's", ""]);
        assert_eq!(line(&command), r"sh -c 'echo it'\''s' ''");
    }

    #[test]
    fn script_stops_within_a_pipe() {
        assert!(capture(&mut script("false | true; echo reached", [""; 0])).is_err());
        assert_eq!(capture(&mut script("echo $1", ["word"])).unwrap(), "word\n");
    }
}
