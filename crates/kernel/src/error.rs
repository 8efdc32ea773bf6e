use std::fmt;

use rustix::io::Errno;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call that failed: which call, on which object, and why.
///
/// The object is what a person would look at: a path, a process, a name. It is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    call: &'static str,
    object: String,
    errno: Errno,
}

impl Error {
    /// An error of `call` on `object`.
    pub fn new(call: &'static str, object: impl Into<String>, errno: Errno) -> Self {
        Self { call, object: object.into(), errno }
    }

    /// The name of the system call.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What was acted on.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The error number.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, self.object, message(self.errno))
    }
}

impl std::error::Error for Error {}

/// The kernel's text for an error number, without Rust's "(os error N)".
fn message(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rfind(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_call_object_and_reason() {
        let error = Error::new("write", "/sys/fs/cgroup/x/memory.max", Errno::ACCESS);
        assert_eq!(error.to_string(), "write /sys/fs/cgroup/x/memory.max: Permission denied");
    }
}
