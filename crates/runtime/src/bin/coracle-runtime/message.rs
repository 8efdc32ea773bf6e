//! Errors in runc's words: callers look for some of them.

use runtime::Error;

/// The text of an error as it is logged.
pub fn of(error: &Error) -> String {
    match error {
        Error::InContainer(failure) => match &failure.words {
            Some(words) => format!("unable to start container process: {words}"),
            None => {
                format!("unable to start container process: error during container init: {}", failure.cause)
            }
        },
        Error::Mount { .. } => {
            let words = runtime::Failure::from(error).words.unwrap_or_default();
            format!("unable to start container process: {words}")
        }
        other => {
            let failure = runtime::Failure::from(other);
            let said = match (other, failure.words) {
                (Error::Step { .. }, Some(words)) => {
                    words.strip_prefix("error during container init: ").unwrap_or(&words).to_owned()
                }
                _ => failure.cause,
            };
            match failure.advice {
                Some(advice) => format!("{said} ({advice})"),
                None => said,
            }
        }
    }
}
