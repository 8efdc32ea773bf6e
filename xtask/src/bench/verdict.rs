//! What a measurement came to, and whether that is what was promised.

use std::fmt;

/// A bound that a value has to keep.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A value with its bound.
pub(super) struct Verdict {
    /// What was measured, with the measurements that the value comes from.
    pub(super) what: String,
    pub(super) value: f64,
    /// What the value counts: `×`, `MiB`, `ms`, …
    pub(super) unit: &'static str,
    pub(super) bound: Bound,
}

impl Verdict {
    pub(super) fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, unit, bound } = self;
        let (word, bound) = match bound {
            Bound::AtMost(most) => ("at most", most),
            Bound::AtLeast(least) => ("at least", least),
        };
        let holds = if self.holds() { "holds" } else { "MISSED" };
        write!(f, "{what}: {value:.2} {unit} ({word} {bound} {unit}: {holds})")
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Verdict};

    #[test]
    fn verdict_says_bound_and_result() {
        let verdict = |value, bound| Verdict { what: "start".into(), value, unit: "×", bound }.to_string();
        assert_eq!(verdict(1.996, Bound::AtMost(2.0)), "start: 2.00 × (at most 2 ×: holds)");
        assert_eq!(verdict(19.0, Bound::AtLeast(20.0)), "start: 19.00 × (at least 20 ×: MISSED)");
    }
}
