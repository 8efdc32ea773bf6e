//! What the machines report, and whether it is as it must be.

use std::collections::BTreeSet;
use std::fmt;

use crate::error::{Error, Result};

/// The images of a store, each as its name and id.
type Images = BTreeSet<String>;

/// What was found after the power cuts of one run.
pub(super) struct Summary {
    points: usize,
    /// Images that were there, and whole.
    whole: usize,
    /// Images of the command that was cut off, or that it was about to take away, that were not there.
    absent: usize,
    pub(super) faults: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { points, whole, absent, faults } = self;
        write!(f, "{points} points: {whole} images whole, {absent} absent, {} wrong", faults.len())
    }
}

/// A disk after a power cut, and what was found on it.
struct Cut {
    run: usize,
    ended: usize,
    place: String,
    images: Images,
    wrong: Vec<String>,
    is_checked: bool,
}

/// Collects reports.
#[derive(Default)]
pub(super) struct Judge {
    /// For each run and command the images after it.
    states: [Vec<Images>; 2],
    cuts: Vec<Cut>,
    failures: Vec<String>,
}

impl Judge {
    /// Takes in a line of the machine that ran the commands.
    pub(super) fn recorded(&mut self, line: &str) {
        let Some(line) = line.strip_prefix("@@ ") else { return };
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match (words.as_slice(), words.get(1).and_then(|number| number.parse::<usize>().ok())) {
            (["step", _, _], Some(run)) => self.states[run].push(Images::new()),
            (["state", _, _, image], Some(run)) => {
                if let Some(state) = self.states[run].last_mut() {
                    state.insert((*image).to_owned());
                }
            }
            _ => self.failures.push(line.to_owned()),
        }
    }

    /// Fails if a command failed, or if not all have run.
    pub(super) fn expect_steps(&mut self, count: usize) -> Result<()> {
        for (run, states) in self.states.iter().enumerate() {
            if states.len() != count {
                self.failures.push(format!("run {run}: {} of {count} commands were reported", states.len()));
            }
        }
        let faults = std::mem::take(&mut self.failures);
        if faults.is_empty() { Ok(()) } else { Err(Error::Check { check: "crash", faults }) }
    }

    /// Notes a disk that is going to be looked at: of which run, and how many of its commands had ended.
    pub(super) fn add_cut(&mut self, run: usize, ended: usize, place: String) {
        let (images, wrong) = (Images::new(), Vec::new());
        self.cuts.push(Cut { run, ended, place, images, wrong, is_checked: false });
    }

    /// Takes in a line of the machine that looked at the disks.
    pub(super) fn checked(&mut self, line: &str) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let ["@@", what, number, rest @ ..] = words.as_slice() else { return };
        let Some(cut) = number.parse().ok().and_then(|number: usize| self.cuts.get_mut(number)) else {
            return;
        };
        match (*what, rest) {
            ("found", [image]) => drop(cut.images.insert((*image).to_owned())),
            ("wrong", [text]) => cut.wrong.push((*text).to_owned()),
            ("checked", []) => cut.is_checked = true,
            _ => {}
        }
    }

    /// Compares what was found with what the commands had made.
    pub(super) fn conclude(self) -> [Summary; 2] {
        let new = || Summary { points: 0, whole: 0, absent: 0, faults: Vec::new() };
        let mut summaries = [new(), new()];
        for cut in self.cuts {
            let Summary { points, whole, absent, faults } = &mut summaries[cut.run];
            let states = &self.states[cut.run];
            let none = Images::new();
            let before = cut.ended.checked_sub(1).map_or(&none, |last| &states[last]);
            let after = states.get(cut.ended).unwrap_or(before);
            *points += 1;
            let mut wrong = cut.wrong;
            if !cut.is_checked {
                wrong.push("it was not looked at to the end".to_owned());
            }
            let known = before.union(after);
            wrong.extend(
                cut.images.difference(&known.cloned().collect()).map(|image| format!("there is {image}")),
            );
            let lasting: Images = before.intersection(after).cloned().collect();
            wrong.extend(lasting.difference(&cut.images).map(|image| format!("there is no {image}")));
            *absent += before.union(after).filter(|image| !cut.images.contains(*image)).count();
            *whole += cut.images.len();
            if !wrong.is_empty() {
                faults.push(format!(
                    "{} commands had ended, {}:\n    {}",
                    cut.ended,
                    cut.place,
                    wrong.join("\n    ")
                ));
            }
        }
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::Judge;

    fn judged(ended: usize, lines: &[&str]) -> String {
        let mut judge = Judge::default();
        for line in
            ["@@ step 0 0", "@@ state 0 0 a:1 x", "@@ step 0 1", "@@ state 0 1 a:1 x", "@@ state 0 1 b:1 y"]
        {
            judge.recorded(line);
        }
        judge.add_cut(0, ended, "somewhere".into());
        lines.iter().for_each(|line| judge.checked(line));
        judge.conclude()[0].to_string()
    }

    #[test]
    fn what_ended_must_be_there_and_what_was_cut_off_may_be() {
        let (a, b, end) = ("@@ found 0 a:1 x", "@@ found 0 b:1 y", "@@ checked 0");
        assert_eq!(judged(1, &[a, end]), "1 points: 1 images whole, 1 absent, 0 wrong");
        assert_eq!(judged(1, &[a, b, end]), "1 points: 2 images whole, 0 absent, 0 wrong");
        assert!(judged(2, &[a, end]).ends_with("1 wrong"), "b was there");
        assert!(judged(1, &[b, end]).ends_with("1 wrong"), "a was there");
        assert!(judged(0, &[a, b, end]).ends_with("1 wrong"), "b had not begun");
        assert!(judged(2, &[a, b]).ends_with("1 wrong"), "it was not looked at");
        assert!(judged(2, &[a, b, "@@ wrong 0 a file -> nothing", end]).ends_with("1 wrong"));
    }
}
