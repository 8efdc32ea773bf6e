//! Counting what tests say of themselves: libtest's lines, and `SKIP: name: reason`.

use std::fmt;

use crate::error::{Error, Result};

/// What a run of tests came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tests that ran to their end and held, without those that skipped.
    pub(crate) passed: usize,
    /// Tests that failed, and faults of the run as a whole: a leak, an unexpected skip, a crash.
    pub(crate) faults: Vec<String>,
    /// Tests that did not run, as `name: reason`.
    pub(crate) skipped: Vec<String>,
    /// What the tests that failed printed, shown again at the end: the rest of a long run's output stands between.
    evidence: Vec<String>,
    /// Whether libtest is showing what the tests printed now, which may look like results.
    quoting: Quoting,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Quoting {
    #[default]
    Nothing,
    Successes,
    Failures,
}

impl Outcome {
    /// Takes in one line that a test binary printed. `place` names where it ran (see `expected-skips.txt`).
    ///
    /// A test that skips returns early, so libtest calls it passed; libtest's own `ignored` counts as a skip too.
    pub(crate) fn read_line(&mut self, place: &str, line: &str) {
        match line {
            "successes:" => self.quoting = Quoting::Successes,
            "failures:" => self.quoting = Quoting::Failures,
            _ if line.starts_with("test result: ") => self.quoting = Quoting::Nothing,
            _ if self.quoting == Quoting::Failures => self.evidence.push(format!("{place}: {line}")),
            _ => {}
        }
        if let Some(skip) = line.strip_prefix("SKIP: ") {
            self.passed = self.passed.saturating_sub(1);
            self.skip(place, skip);
        } else if self.quoting == Quoting::Nothing
            && let Some((name, result)) =
                line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            match result.split([' ', ',']).next() {
                Some("ok") => self.passed += 1,
                Some("ignored") => self.skip(place, &format!("{name}: {result}")),
                _ => self.faults.push(format!("{place}: {name}")),
            }
        }
    }

    fn skip(&mut self, place: &str, skip: &str) {
        self.skipped.push(format!("{place} {skip}"));
    }

    /// Adds what another run came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.faults.extend(other.faults);
        self.skipped.extend(other.skipped);
        self.evidence.extend(other.evidence);
    }

    /// Turns every skip that the list does not expect into a fault, prints the summary, and fails if there is a fault.
    pub(crate) fn conclude(mut self, expected: &ExpectedSkips) -> Result<()> {
        for skip in &self.skipped {
            eprintln!("skipped: {skip}");
            if !expected.contains(skip) {
                self.faults
                    .push(format!("{skip}\n    is skipped but not listed in xtask/expected-skips.txt"));
            }
        }
        for line in &self.evidence {
            println!("{line}");
        }
        println!("{self}");
        if self.faults.is_empty() { Ok(()) } else { Err(Error::Check { check: "test", faults: self.faults }) }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.faults.len(), self.skipped.len());
        write!(f, "{} passed, {failed} failed, {skipped} skipped", self.passed)
    }
}

/// The checked-in list of skips that are known and accepted.
pub(crate) struct ExpectedSkips {
    /// Place (or `any`) and name of the test.
    entries: Vec<(String, String)>,
}

impl ExpectedSkips {
    /// Reads the list: one skip per line as `PLACE NAME`, then the reason for people; `#` starts a comment. `MODULE::*` stands for all
    /// tests of a module.
    pub(crate) fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut words = line.split('#').next()?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        };
        Self { entries: text.lines().filter_map(entry).collect() }
    }

    /// Whether a skip, given as `PLACE NAME: REASON`, is in the list.
    fn contains(&self, skip: &str) -> bool {
        let Some((place, rest)) = skip.split_once(' ') else { return false };
        // A test's path holds "::", so the name ends at the first ": ".
        let name = rest.split_once(": ").map_or(rest, |(name, _)| name);
        let is_named = |listed: &str| match listed.strip_suffix('*') {
            Some(module) => module.ends_with("::") && name.starts_with(module),
            None => listed == name,
        };
        self.entries.iter().any(|(at, listed)| (at == "any" || at == place) && is_named(listed))
    }
}

#[cfg(test)]
mod tests {
    use super::{ExpectedSkips, Outcome};

    #[test]
    fn lines_of_libtest_are_counted() {
        let mut outcome = Outcome::default();
        for line in [
            "running 4 tests",
            "test record::tests::order ... ok",
            "test run::limits ... ok",
            "test run::broken ... FAILED",
            "test run::slow ... ignored, needs an hour",
            "successes:",
            "test printed::by_another ... FAILED",
            "SKIP: run::limits: no delegated group",
            "failures:",
            "---- run::broken stdout ----",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            outcome.read_line("here", line);
        }
        assert_eq!(outcome.to_string(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(outcome.faults, ["here: run::broken"]);
        assert_eq!(outcome.evidence, ["here: ---- run::broken stdout ----"]);
    }

    #[test]
    fn only_listed_skips_are_expected() {
        let list = ExpectedSkips::parse(
            "# places\nvm-user run::limits  no group # why\nany run::slow\nhere systemd::*\n",
        );
        assert!(list.contains("vm-user run::limits: no delegated group"));
        assert!(!list.contains("here run::limits: no delegated group"));
        assert!(list.contains("here run::slow: whatever"));
        assert!(!list.contains("here run::slower: whatever"));
        assert!(list.contains("here systemd::limits: no systemd"));
        assert!(!list.contains("here systemd: no systemd"));
        assert!(!list.contains("vm systemd::limits: no systemd"));
    }
}
