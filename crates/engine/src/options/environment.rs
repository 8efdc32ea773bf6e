//! Variables and labels, typed or from files.

use std::path::Path;

use super::{Error, Result, invalid};

/// `-e NAME=value`, or `-e NAME` for the value that `lookup` has; a value of none removes the image's variable.
pub fn variable(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(String, Option<String>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, lookup(text)),
    };
    if name.is_empty() {
        let accepted = "NAME=value, or NAME for the value it has here";
        return Err(invalid("--env", text, "a variable has a name", accepted));
    }
    // The kernel passes strings that end at a NUL, so none can hold one.
    if text.contains('\0') {
        return Err(invalid("--env", text, "it holds a NUL", ""));
    }
    Ok((name.to_owned(), value))
}

/// `--env-file`: one variable a line as for `-e`; a name without a value that is not set here is left out.
pub fn env_file(
    path: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Option<String>)>> {
    let text = fs_err::read_to_string(path).map_err(|source| Error::File { option: "--env-file", source })?;
    parse_env_file(path, &text, lookup)
}

pub(super) fn parse_env_file(
    path: &Path,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Option<String>)>> {
    let mut variables = Vec::new();
    for (number, line) in lines(text) {
        let name = name_of("--env-file", path, number, line)?;
        match line.split_once('=') {
            Some((_, value)) => variables.push((name.to_owned(), Some(value.to_owned()))),
            None => variables.extend(lookup(name).map(|value| (name.to_owned(), Some(value)))),
        }
    }
    Ok(variables)
}

/// `--label KEY[=VALUE]`.
pub fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(invalid("--label", text, "a label has a key", "KEY=VALUE, or KEY"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `--label-file`: one label a line.
pub fn label_file(path: &Path) -> Result<Vec<(String, String)>> {
    let text =
        fs_err::read_to_string(path).map_err(|source| Error::File { option: "--label-file", source })?;
    parse_label_file(path, &text)
}

pub(super) fn parse_label_file(path: &Path, text: &str) -> Result<Vec<(String, String)>> {
    let one = |(number, line): (usize, &str)| {
        let key = name_of("--label-file", path, number, line)?;
        Ok((key.to_owned(), line.split_once('=').map_or("", |(_, value)| value).to_owned()))
    };
    lines(text).map(one).collect()
}

/// The lines that say something, with their numbers. A byte order mark, blanks before the name, blank lines and `#` lines are skipped, as docker has it.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start).zip(1..).map(|(line, number)| (number, line));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn name_of<'a>(option: &'static str, path: &Path, number: usize, line: &'a str) -> Result<&'a str> {
    let name = line.split_once('=').map_or(line, |(name, _)| name);
    let accepted = "lines of the form NAME=value, values taken as they are, and lines that begin with #";
    let wrong = |reason| Err(Error::Line { option, path: path.to_owned(), number, reason, accepted });
    match name {
        "" => wrong("it has no name"),
        _ if name.contains(char::is_whitespace) => wrong("the name has a blank in it"),
        // The kernel passes strings that end at a NUL.
        _ if line.contains('\0') => wrong("it holds a NUL"),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HERE").then(|| "yes".to_owned())
    }

    #[test]
    fn variables() {
        let read = |text| variable(text, &lookup).unwrap();
        assert_eq!(read("A=b=c"), ("A".to_owned(), Some("b=c".to_owned())));
        assert_eq!(read("A="), ("A".to_owned(), Some(String::new())));
        assert_eq!(read("HERE"), ("HERE".to_owned(), Some("yes".to_owned())));
        assert_eq!(read("GONE"), ("GONE".to_owned(), None));
        assert!(variable("=x", &lookup).is_err() && variable("", &lookup).is_err());
    }

    #[test]
    fn files_are_read_as_docker_reads_them() {
        let text = "\u{feff}# note\n\n  A=1 \nB=\"q\"\r\nHERE\nGONE\nC=\n";
        let path = Path::new("/some/file");
        let read = parse_env_file(path, text, &lookup).unwrap();
        let expected = [("A", "1 "), ("B", "\"q\""), ("HERE", "yes"), ("C", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
        assert!(parse_env_file(path, "=1", &lookup).is_err());
        assert!(parse_env_file(path, "A=\0", &lookup).is_err());
        let labels = parse_label_file(path, "a.b=c\nalone\n").unwrap();
        assert_eq!(labels, [("a.b", "c"), ("alone", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(label("=x").is_err());
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        let error = parse_env_file("/some/file".as_ref(), "# note\n\nA=1\nMY PASS=secret\n", &lookup);
        let error = error.unwrap_err();
        let text = format!("{error} {:?} {error:?}", error.advice());
        assert!(text.starts_with("line 4 of /some/file, the file of --env-file, is wrong: "), "{text}");
        assert!(!text.contains("secret") && !text.contains("PASS"), "{text}");
        let error = parse_label_file("/some/file".as_ref(), "=x").unwrap_err();
        assert!(error.to_string().contains("line 1 of /some/file, the file of --label-file"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = env_file("/nowhere/env".as_ref(), &lookup).unwrap_err().to_string();
        assert!(error.contains("--env-file") && error.contains("/nowhere/env"), "{error}");
    }
}
