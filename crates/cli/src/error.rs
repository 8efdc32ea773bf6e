//! Errors for people: what failed, because of what, what to do.

use std::io::IsTerminal as _;

/// An error that ends the command.
#[derive(Debug)]
pub struct Error {
    headline: String,
    cause: Option<String>,
    advice: Option<String>,
    code: u8,
}

impl Error {
    /// An error of this crate's own.
    pub fn new(headline: impl Into<String>, cause: Option<String>, advice: Option<String>) -> Self {
        Self { headline: headline.into(), cause, advice, code: 125 }
    }

    /// The same with docker's code for failures of other commands than `run`.
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The same under a headline that says what was tried, unless it has one; `otherwise` is what to do where nothing better is
    /// known.
    pub fn doing(mut self, headline: impl Into<String>, otherwise: &str) -> Self {
        if self.cause.is_none() {
            self.cause = Some(std::mem::replace(&mut self.headline, headline.into()));
        }
        self.advice.get_or_insert_with(|| otherwise.to_owned());
        self
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// Prints up to three lines to standard error.
    pub fn print(&self) {
        let (red, bold, off) =
            if std::io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        eprintln!("{red}error:{off} {}", self.headline);
        if let Some(cause) = &self.cause {
            eprintln!("  {bold}because:{off} {cause}");
        }
        if let Some(advice) = &self.advice {
            eprintln!("  {bold}to do:{off} {advice}");
        }
    }
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        let headline = error.headline().unwrap_or_else(|| error.to_string());
        Self { headline, cause: error.cause(), advice: error.advice(), code: error.exit_code() }
    }
}

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Self {
        engine::Error::from(error).into()
    }
}
