//! Finding the container's program the way execvp does, under the container's root.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, FileType};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// What execvp searches when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file to execute for `program`: itself when it has a slash, else the first executable file of that name in PATH.
pub fn find(program: &str, environment: &[String]) -> Result<PathBuf> {
    if program.is_empty() {
        return Err(Error::ProgramNotFound { program: program.to_owned(), searched: None });
    }
    if program.contains('/') {
        return executable(Path::new(program)).map_err(|errno| cannot_run(program, None, errno));
    }
    let search = environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut best = Errno::NOENT;
    for directory in search.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        match executable(&Path::new(directory).join(program)) {
            Ok(path) => return Ok(path),
            Err(errno @ (Errno::ACCESS | Errno::ISDIR)) => best = errno,
            Err(_) => {}
        }
    }
    Err(cannot_run(program, Some(search.to_owned()), best))
}

fn executable(path: &Path) -> std::result::Result<PathBuf, Errno> {
    let status = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    kernel::fs::may_access(path, Access::EXEC_OK)?;
    Ok(path.to_path_buf())
}

/// The error for a program that cannot be run, found or not.
pub fn cannot_run(program: &str, searched: Option<String>, errno: Errno) -> Error {
    let program = program.to_owned();
    let reason = match errno {
        Errno::NOENT | Errno::NOTDIR => return Error::ProgramNotFound { program, searched },
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOEXEC => "exec format error".to_owned(),
        other => std::io::Error::from(other).to_string(),
    };
    Error::ProgramNotExecutable { program, reason }
}

/// The error of an execve that failed although the file was found.
pub fn cannot_execute(program: &str, path: &Path, errno: Errno) -> Error {
    let exists = rustix::fs::stat(path).is_ok();
    if errno == Errno::NOENT && exists {
        return Error::InterpreterMissing { program: path.display().to_string() };
    }
    cannot_run(program, None, errno)
}
