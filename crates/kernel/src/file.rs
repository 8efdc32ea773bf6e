//! Writes to the kernel's own files: control groups, `/proc`.

use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::record::{Arg, act};
use crate::{Error, Result};

/// Writes `value` to a kernel file (`/sys/fs/cgroup/…`, `/proc/…`) in one write(2), recorded.
///
/// The file must exist; it is neither created nor truncated. The error names the path.
pub fn write_control(path: &Path, value: &str) -> Result<()> {
    let failed = |call| move |errno| Error::new(call, path.display().to_string(), errno);
    let file =
        rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open"))?;
    let args = || {
        use std::os::fd::AsRawFd;
        vec![
            Arg::Fd(file.as_raw_fd(), path.display().to_string()),
            Arg::Str(value.to_owned()),
            Arg::Int(value.len() as i64),
        ]
    };
    act("write", args, |written| *written as i64, || rustix::io::write(&file, value.as_bytes()))
        .map_err(failed("write"))?;
    Ok(())
}
