//! What a processor brings: its system call interfaces and the numbers that calls have in each.
//!
//! Each processor's facts stand in one file; this one says which holds.

use super::oci::Arch;

#[cfg(target_arch = "aarch64")]
pub(super) use super::aarch64::MACHINE;
#[cfg(target_arch = "x86_64")]
pub(super) use super::x86_64::MACHINE;

/// In a table of numbers: the call does not exist there.
pub(super) const NO: u32 = u32::MAX;

/// A kind of processor.
pub(super) struct Machine {
    /// Docker's name for it, as in a profile's `includes.arches`.
    pub(super) docker_name: &'static str,
    /// Its system call interfaces, its own first.
    pub(super) architectures: &'static [Architecture],
    /// A call's numbers by [`Architecture::column`], or `None` if this machine has no call of that name.
    pub(super) numbers: fn(&str) -> Option<&'static [u32]>,
}

/// One system call interface of a processor.
pub(super) struct Architecture {
    /// Its name.
    pub(super) arch: Arch,
    /// What the kernel gives a filter as `seccomp_data.arch`; two interfaces may share it.
    pub(super) audit: u32,
    /// Where its numbers stand in a row of the table.
    pub(super) column: usize,
    /// A bit that all its numbers carry and those of others do not, or 0.
    pub(super) bit: u32,
    /// Whether arguments have 64 bits; else only the lower half is compared.
    pub(super) wide: bool,
    /// Calls that can also be made through another one: name, the other one, its first argument.
    pub(super) multiplexed: &'static [(&'static str, &'static str, u32)],
}

impl Architecture {
    /// The number of a call whose row of the table is `numbers`, as a filter sees it.
    pub(super) fn number(&self, numbers: &[u32]) -> Option<u32> {
        let number = numbers[self.column];
        (number != NO).then_some(number | self.bit)
    }

    /// The call through which `name` can also be made, and that call's first argument.
    pub(super) fn multiplexer(&self, name: &str) -> Option<(&'static str, u32)> {
        let at = self.multiplexed.binary_search_by_key(&name, |(name, _, _)| name).ok()?;
        let (_, via, argument) = self.multiplexed[at];
        Some((via, argument))
    }
}

/// The row of `name` in a table sorted by name.
pub(super) fn row<const COLUMNS: usize>(
    table: &'static [(&'static str, [u32; COLUMNS])],
    name: &str,
) -> Option<&'static [u32]> {
    let at = table.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some(&table[at].1)
}

#[cfg(test)]
mod tests {
    use super::super::{aarch64, x86_64};

    #[test]
    fn numbers_are_those_of_each_interface() {
        let [x86_64, x86, x32] = [0, 1, 2].map(|at| &x86_64::MACHINE.architectures[at]);
        let numbers = x86_64::MACHINE.numbers;
        assert_eq!(x86_64.number(numbers("read").unwrap()), Some(0));
        assert_eq!(x86.number(numbers("read").unwrap()), Some(3));
        assert_eq!(x32.number(numbers("readv").unwrap()), Some(0x4000_0000 + 515));
        assert_eq!(x86_64.number(numbers("waitpid").unwrap()), None);
        assert_eq!(numbers("no_such_call"), None);
        let [aarch64, arm] = [0, 1].map(|at| &aarch64::MACHINE.architectures[at]);
        let numbers = aarch64::MACHINE.numbers;
        assert_eq!(aarch64.number(numbers("openat").unwrap()), Some(56));
        assert_eq!(arm.number(numbers("set_tls").unwrap()), Some(0xf0005));
        assert_eq!(numbers("open").map(|numbers| aarch64.number(numbers)), Some(None));
    }

    #[test]
    fn every_row_is_found_and_every_multiplexer_exists() {
        for machine in [&x86_64::MACHINE, &aarch64::MACHINE] {
            for architecture in machine.architectures {
                for (name, via, _) in architecture.multiplexed {
                    assert!(architecture.multiplexer(name).is_some(), "{name} is out of order");
                    let number = (machine.numbers)(via).and_then(|numbers| architecture.number(numbers));
                    assert!(number.is_some(), "{via} has no number");
                }
            }
        }
    }
}
