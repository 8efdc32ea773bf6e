//! The question before something is taken away for good.

use std::io::{BufRead as _, Write as _};

use crate::error::Error;

/// Warns and asks, as docker does also without a terminal: `yes |` answers it. Anything but a yes ends the command.
pub fn ask(warning: &str) -> Result<(), Error> {
    let mut answer = String::new();
    let asked = write!(std::io::stderr(), "WARNING! {warning}\nAre you sure you want to continue? [y/N] ");
    if asked.is_ok() {
        // An answer that cannot be read is none.
        let _ = std::io::stdin().lock().read_line(&mut answer);
    }
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    eprintln!();
    Err(Error::new(
        "nothing was removed",
        Some("the question was not answered by yes".to_owned()),
        Some("answer y, or ask for no question: --force".to_owned()),
    ))
}
