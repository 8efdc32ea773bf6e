//! Errors for people: what failed, because of what, what to do.

use std::io::IsTerminal as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::unknown;

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

    /// Output that did not arrive where standard output leads.
    pub fn lost_output(headline: &str, cause: String) -> Self {
        let advice = "free space where standard output leads, or redirect it elsewhere";
        Self::new(headline, Some(cause), Some(advice.to_owned()))
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

    /// The same with other advice, if there is any.
    pub fn advising(mut self, advice: Option<String>) -> Self {
        self.advice = advice.or(self.advice);
        self
    }

    /// The same about the option that was typed, where one of `others` is what it comes to.
    pub fn naming(mut self, typed: &str, others: &[&str]) -> Self {
        let replace = |text: String| {
            let words = text.split(' ').map(|word| if others.contains(&word) { typed } else { word });
            words.collect::<Vec<_>>().join(" ")
        };
        self.cause = self.cause.map(replace);
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
        eprintln!("{red}error:{off} {}", printable(&shortened(&without_numbers(&self.headline))));
        if let Some(cause) = &self.cause {
            eprintln!("  {bold}because:{off} {}", printable(&shortened(&without_numbers(cause))));
        }
        if let Some(advice) = &self.advice {
            eprintln!("  {bold}to do:{off} {}", printable(advice));
        }
    }
}

/// Rust puts the number behind the kernel's text, which says the same to a person.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    plain
}

/// One line without what a terminal would obey: parts of a text may come from a registry.
fn printable(text: &str) -> String {
    let visible = |letter: char| match letter {
        '\n' | '\t' => ' ',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    text.trim_end().chars().map(visible).collect()
}

/// Words that nobody would read to their end, without their middle.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    let word = |word: &str| {
        let letters: Vec<char> = word.chars().collect();
        match letters.len() {
            0..=MOST => word.to_owned(),
            count => format!(
                "{}…{}",
                letters[..60].iter().collect::<String>(),
                letters[count - 20..].iter().collect::<String>()
            ),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A command line that cannot be understood.
impl From<&clap::Error> for Error {
    fn from(error: &clap::Error) -> Self {
        let word = |kind| match error.get(kind) {
            Some(ContextValue::String(word)) => Some(word.clone()),
            _ => None,
        };
        let text = error.render().to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let said =
            lines.next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':').to_owned();
        // What is missing is listed below the first line, up to the usage.
        let rest: Vec<&str> = lines
            .take_while(|line| !["Usage:", "tip:", "For more"].iter().any(|end| line.starts_with(end)))
            .collect();
        let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
        let words = usage.unwrap_or("coracle").split_whitespace();
        let command: Vec<&str> =
            words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect();
        let command = if command.is_empty() { "coracle".to_owned() } else { command.join(" ") };
        let advice = |kind, typed: &str| {
            let guess = match error.get(kind) {
                Some(ContextValue::String(guess)) => near(typed, [guess.as_str()]),
                Some(ContextValue::Strings(guesses)) => near(typed, guesses.iter().map(String::as_str)),
                _ => None,
            };
            let guess = guess.map_or(String::new(), |word| format!("did you mean {word}? "));
            Some(format!("{guess}see {command} --help"))
        };
        let said = Some(format!("{said} {}", rest.join(" ")).trim_end().to_owned());
        if let (ErrorKind::InvalidSubcommand, Some(typed)) =
            (error.kind(), word(ContextKind::InvalidSubcommand))
        {
            return match unknown::command(&typed) {
                Some(instead) => Self::new(
                    format!("there is no command \"{typed}\" in this version"),
                    Some("docker has it, coracle has not".to_owned()),
                    Some(instead.to_owned()),
                ),
                None => Self::new(
                    format!("there is no command \"{typed}\""),
                    said,
                    advice(ContextKind::SuggestedSubcommand, &typed),
                ),
            };
        }
        let typed = word(ContextKind::InvalidArg).unwrap_or_default();
        let known = unknown::option(command.strip_prefix("coracle ").unwrap_or_default(), &typed);
        match known.filter(|_| error.kind() == ErrorKind::UnknownArgument) {
            Some((reason, instead)) => Self::new(
                format!("{typed} cannot be honoured"),
                Some(reason.to_owned()),
                Some(instead.to_owned()),
            ),
            None => Self::new(
                "the command line cannot be understood",
                said,
                advice(ContextKind::SuggestedArg, &typed),
            ),
        }
    }
}

/// The guess that differs least from what was typed, if it is really near: a wrong guess may be taken for an answer.
fn near<'a>(typed: &str, guesses: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    fn bare(word: &str) -> &str {
        word.trim_start_matches('-')
    }
    let typed = bare(typed);
    let guesses: Vec<&str> = guesses.into_iter().collect();
    let starts =
        guesses.iter().map(|guess| bare(guess)).filter(|guess| guess.chars().next() == typed.chars().next());
    let nearest = *engine::options::nearest(typed, starts).first()?;
    guesses.into_iter().find(|guess| bare(guess) == nearest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_lose_their_middle() {
        let long = "é".repeat(5000);
        let short = shortened(&format!("no image \"{long}\": absent"));
        assert!(short.starts_with("no image \"éé") && short.ends_with("éé\": absent"), "{short}");
        assert_eq!(short.chars().filter(|letter| *letter == 'é').count(), 77);
        let path = format!("/{}", "x".repeat(200));
        assert_eq!(shortened(&path), path);
    }

    #[test]
    fn the_typed_option_is_named() {
        let error = Error::new("no", Some("--cpu-period cannot be enforced: why".to_owned()), None);
        let error = error.naming("--cpus", &["--cpu-period", "--cpu-quota"]);
        assert_eq!(error.cause.as_deref(), Some("--cpus cannot be enforced: why"));
        assert_eq!(error.advising(None).advising(Some("do".to_owned())).advice.as_deref(), Some("do"));
    }

    #[test]
    fn guesses_are_near() {
        assert_eq!(near("--memroy", ["--memory"]), Some("--memory"));
        assert_eq!(near("stp", ["ps", "stop"]), Some("stop"));
        for (typed, guess) in [
            ("top", "stop"),
            ("push", "ps"),
            ("--gpus", "--cpus"),
            ("--isolation", "--dns-option"),
            ("--mac-address", "--cap-add"),
            ("--no-healthcheck", "--net"),
            ("--quiet", "--ulimit"),
            ("rn", "rm"),
        ] {
            assert_eq!(near(typed, [guess]), None, "{typed}");
        }
    }
}
