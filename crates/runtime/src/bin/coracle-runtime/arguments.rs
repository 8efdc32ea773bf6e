//! runc's command line: which options there are, and what was typed.
//!
//! Read by hand, not by a library that builds all commands first: a container starts in milliseconds. Options are written with one dash or
//! two, their values after `=` or a blank, and end at the first word that is none.

use std::collections::BTreeMap;

/// An option.
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// One letter for it.
    pub short: Option<&'static str>,
    /// What its value is called; none for a switch.
    pub value: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

/// A switch.
pub const fn switch(name: &'static str, short: Option<&'static str>, help: &'static str) -> Flag {
    Flag { name, short, value: None, help }
}

/// An option with a value.
pub const fn option(
    name: &'static str,
    short: Option<&'static str>,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short, value: Some(value), help }
}

/// What was typed after a command.
#[derive(Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
    /// The words after the options.
    pub operands: Vec<String>,
}

impl Given {
    /// Reads words up to the first that is no option; the rest are operands.
    pub fn parse(flags: &[&'static [Flag]], words: &[String]) -> Result<Self, String> {
        let mut given = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                given.operands.push(word.clone());
                break;
            };
            match name {
                "" if word == "--" => break,
                "" => {
                    given.operands.push(word.clone());
                    break;
                }
                _ => given.take(flags, name, || rest.next().cloned())?,
            }
        }
        given.operands.extend(rest.cloned());
        Ok(given)
    }

    fn take(
        &mut self,
        flags: &[&'static [Flag]],
        name: &str,
        next: impl FnOnce() -> Option<String>,
    ) -> Result<(), String> {
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let is_it = |flag: &&Flag| flag.name == name || flag.short == Some(name);
        let Some(flag) = flags.iter().flat_map(|list| list.iter()).find(is_it) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match (flag.value, value) {
            (None, None) => "true".to_owned(),
            (None, Some(value)) if matches!(value.as_str(), "true" | "false" | "1" | "0") => value,
            (None, Some(value)) => {
                return Err(format!("invalid boolean value {value:?} for -{name}: write true or false"));
            }
            (Some(_), Some(value)) => value,
            (Some(_), None) => next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        self.values.entry(flag.name).or_default().push(value);
        Ok(())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| matches!(value, "true" | "1"))
    }

    /// An option's value, the last one if there are several.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// All values of an option.
    pub fn values(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// An option's value as a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_| format!("invalid value {value:?} for flag -{name}: it is no number that fits"))
        };
        self.value(name).map(parse).transpose()
    }
}

/// The help of a command.
pub fn help(name: &str, operands: &str, about: &str, flags: &[&'static [Flag]]) -> String {
    let mut text = format!("{about}\n\nUsage: coracle-runtime {name} [OPTIONS] {operands}\n\nOptions:\n");
    for flag in flags.iter().flat_map(|list| list.iter()) {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
        text.push_str(&format!("  {short}--{}{value}\n          {}\n", flag.name, flag.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[switch("tty", Some("t"), ""), option("env", Some("e"), "NAME=VALUE", "")];

    fn parse(line: &str) -> Result<Given, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Given::parse(&[FLAGS], &words)
    }

    #[test]
    fn options_are_read_as_go_reads_them() {
        let given = parse("-tty --env=A=1 -e B=2 --env C id -t").unwrap();
        assert!(given.is_on("tty"));
        assert_eq!(given.values("env"), ["A=1", "B=2", "C"]);
        assert_eq!(given.operands, ["id", "-t"]);
        assert_eq!(parse("-t=false -- -x").unwrap().operands, ["-x"]);
        assert!(!parse("-t=false x").unwrap().is_on("tty"));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        assert_eq!(parse("--nothing x").unwrap_err(), "flag provided but not defined: -nothing");
        assert_eq!(parse("-e").unwrap_err(), "flag needs an argument: -e");
    }
}
