//! Telling what went wrong: on standard error, and in the file that `--log` names, in the form that callers read.

use std::io::Write as _;

use kernel::record::Event;

/// Where errors go besides standard error.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// `--log`.
    pub file: Option<String>,
    /// `--log-format json`.
    pub json: bool,
}

impl Log {
    /// Whether the file can be written; the text of the error says why not.
    pub fn try_open(&self) -> Result<(), String> {
        use rustix::fs::{Mode, OFlags};
        let Some(path) = &self.file else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map(drop).map_err(|errno| {
            let reason = std::io::Error::from(errno).to_string().to_lowercase();
            format!("open {path}: {}", reason.split(" (os error").next().unwrap_or_default())
        })
    }

    /// Reports an error; the last thing a command does.
    pub fn error(&self, message: &str) {
        self.line("error", message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    /// Reports what does not end the command.
    pub fn warning(&self, message: &str) {
        self.line("warning", message);
    }

    /// Reports what was done to the machine, call by call, the container's own process included.
    pub fn acts(&self, events: &[Event]) {
        for Event { actor, call, args, result, why, .. } in events {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            self.line("debug", &format!("{actor:?}: {call}({}) = {result}: {why}", args.join(", ")));
        }
    }

    fn line(&self, level: &str, message: &str) {
        let time = runtime::state::timestamp(runtime::state::now_exactly(), false);
        let line = match self.json {
            true => serde_json::json!({ "level": level, "msg": message, "time": time }).to_string(),
            false => format!("time={time:?} level={level} msg={message:?}"),
        };
        let written = self.file.as_ref().map(|path| {
            let mut file = fs_err::OpenOptions::new().append(true).create(true).open(path)?;
            writeln!(file, "{line}")
        });
        // Where the log cannot be written, the directory may be gone by now, standard error is left.
        match written {
            Some(Ok(())) => {}
            _ => eprintln!("{line}"),
        }
    }
}
