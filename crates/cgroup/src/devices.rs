//! Device rules: as an eBPF program where there is version 2, as lists for version 1.
//!
//! The rules are taken as the OCI specification has them: in order, the last one that matches decides. Each kind of
//! access (mknod, read, write) is decided by itself, so "allow read, then allow write" allows opening for both.

use kernel::bpf::Instruction;

use crate::{Error, Result};

/// One device rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether what matches is allowed or denied.
    pub allow: bool,
    /// Which kind of device.
    pub kind: DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// What is allowed or denied.
    pub access: Access,
}

/// The kind of device that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both kinds.
    All,
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// Kinds of access, as the kernel numbers them (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// mknod(2), reading and writing.
    pub const ALL: Self = Self(7);
    /// mknod(2) alone.
    pub const MAKE: Self = Self(1);

    /// The access of an OCI rule: some of `r`, `w`, `m`; none if another letter is among them.
    pub fn parse(text: &str) -> Option<Self> {
        let bit = |letter| match letter {
            'm' => Some(1),
            'r' => Some(2),
            'w' => Some(4),
            _ => None,
        };
        text.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?)).map(Self)
    }

    pub(crate) fn letters(self) -> String {
        [(2, 'r'), (4, 'w'), (1, 'm')]
            .into_iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, letter)| letter)
            .collect()
    }
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const AND_NUMBER: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_NOT_EQUAL: u8 = 0x55;
/// The 32-bit comparison: major and minor numbers may have their highest bit set, and immediates are sign-extended.
const JUMP_IF_NOT_EQUAL_32: u8 = 0x56;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

/// Where the program keeps what it was asked: return value, context, kind, access still undecided, major, minor.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Instructions are linear in rules; more than this is a mistake, and a jump over one rule stays far from its limit.
const MOST_RULES: usize = 10_000;

/// The program that decides by these rules. It reads `struct bpf_cgroup_dev_ctx` of `<linux/bpf.h>`.
///
/// It looks at the rules from the last to the first and strikes each kind of access that a rule allows off the list of what is
/// wanted: nothing left is yes, a rule that denies something still wanted is no, and so is the end of the rules.
pub(crate) fn program(rules: &[DeviceRule]) -> Result<Vec<Instruction>> {
    if rules.len() > MOST_RULES {
        let reason = format!("there may be at most {MOST_RULES}");
        return Err(Error::Value { option: "device rules", value: rules.len().to_string(), reason });
    }
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(MOVE, WANTED, KIND, 0, 0),
        op(AND_NUMBER, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT, WANTED, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        push_rule(&mut program, rule);
    }
    program.extend(answer(0));
    Ok(program)
}

fn push_rule(program: &mut Vec<Instruction>, rule: &DeviceRule) {
    let access = i32::from(rule.access.0);
    let verdict: Vec<Instruction> = if rule.allow {
        // Strike off what is allowed; go on to the next rule if something is left.
        let strike = op(AND_NUMBER, WANTED, 0, 0, !access);
        let left = op(JUMP_IF_NOT_EQUAL, WANTED, 0, 2, 0);
        [strike, left].into_iter().chain(answer(1)).collect()
    } else {
        // Over the jump to the next rule, if something wanted is denied.
        let denied = op(JUMP_IF_ANY_BIT, WANTED, 0, 1, access);
        let next = op(0x05, 0, 0, 2, 0);
        [denied, next].into_iter().chain(answer(0)).collect()
    };
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Character => Some(2),
    };
    let tests = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    let tests: Vec<(u8, u32)> =
        tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    for (at, (register, value)) in tests.iter().enumerate() {
        let over = tests.len() - at - 1 + verdict.len();
        program.push(op(JUMP_IF_NOT_EQUAL_32, *register, 0, over as i16, *value as i32));
    }
    program.extend(verdict);
}

fn answer(value: i32) -> [Instruction; 2] {
    [op(MOVE_NUMBER, RESULT, 0, 0, value), op(EXIT, 0, 0, 0, 0)]
}

fn op(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | target, offset, immediate }
}

/// The lines for version 1, each with the file it is written to.
///
/// The kernel keeps a default and a list of exceptions, so not every list of rules can be told: one that takes a part out of what
/// an earlier one allowed (or the reverse) is refused.
pub(crate) fn v1_lines(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>> {
    let mut lines = vec![("devices.deny", "a *:* rwm".to_owned())];
    let mut default = false;
    let mut kept: Vec<DeviceRule> = Vec::new();
    for rule in rules {
        if is_everything(rule) {
            default = rule.allow;
            kept.clear();
            lines = vec![(if default { "devices.allow" } else { "devices.deny" }, "a *:* rwm".to_owned())];
            continue;
        }
        let same = |other: &DeviceRule| {
            (other.kind, other.major, other.minor) == (rule.kind, rule.major, rule.minor)
        };
        if rule.allow == default {
            if kept.iter().any(|other| overlaps(other, rule) && !same(other)) {
                let reason = "its lists cannot take a part out of an earlier device rule";
                return Err(Error::NotInV1 { option: "device rules", reason });
            }
            kept.retain(|other| !same(other) || other.access.0 & !rule.access.0 != 0);
        } else {
            kept.push(*rule);
        }
        lines.extend(v1_texts(rule));
    }
    Ok(lines)
}

pub(crate) fn is_everything(rule: &DeviceRule) -> bool {
    let DeviceRule { kind, major, minor, access, .. } = rule;
    *kind == DeviceKind::All && major.is_none() && minor.is_none() && *access == Access::ALL
}

fn overlaps(one: &DeviceRule, other: &DeviceRule) -> bool {
    let meets = |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
    let kinds = one.kind == DeviceKind::All || other.kind == DeviceKind::All || one.kind == other.kind;
    kinds
        && meets(one.major, other.major)
        && meets(one.minor, other.minor)
        && one.access.0 & other.access.0 != 0
}

/// `a` stands for everything in these files, whatever follows it, so a rule for both kinds is written as two.
fn v1_texts(rule: &DeviceRule) -> Vec<(&'static str, String)> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let kinds: &[char] = match rule.kind {
        DeviceKind::All => &['c', 'b'],
        DeviceKind::Character => &['c'],
        DeviceKind::Block => &['b'],
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let (major, minor, access) = (number(rule.major), number(rule.minor), rule.access.letters());
    kinds.iter().map(|kind| (file, format!("{kind} {major}:{minor} {access}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn rule(
        allow: bool,
        kind: DeviceKind,
        major: Option<u32>,
        minor: Option<u32>,
        access: &str,
    ) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, access: Access::parse(access).unwrap() }
    }

    /// Runs a program as the kernel would; enough of an interpreter for what is emitted.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i64; 6];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: names, offset, immediate } = program[at];
            let (target, source) = (usize::from(names & 15), usize::from(names >> 4));
            at += 1;
            let jump = match code {
                LOAD_WORD => {
                    registers[target] = i64::from(context[offset as usize / 4]);
                    false
                }
                MOVE => {
                    registers[target] = registers[source];
                    false
                }
                MOVE_NUMBER => {
                    registers[target] = immediate.into();
                    false
                }
                AND_NUMBER => {
                    registers[target] &= i64::from(immediate);
                    false
                }
                SHIFT_RIGHT => {
                    registers[target] >>= immediate;
                    false
                }
                JUMP_IF_NOT_EQUAL => registers[target] != i64::from(immediate),
                JUMP_IF_NOT_EQUAL_32 => registers[target] as u32 != immediate as u32,
                JUMP_IF_ANY_BIT => registers[target] & i64::from(immediate) != 0,
                0x05 => true,
                EXIT => return registers[0] != 0,
                other => panic!("unexpected code {other:#x}"),
            };
            if jump {
                at += offset as usize;
            }
        }
    }

    /// The rules' meaning, said plainly: each kind of access by the last rule about it.
    fn meaning(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let about = |rule: &&DeviceRule, bit: u8| {
            let kinds = match rule.kind {
                DeviceKind::All => true,
                DeviceKind::Block => kind == 1,
                DeviceKind::Character => kind == 2,
            };
            let number = |asked: u32, named: Option<u32>| named.is_none_or(|named| named == asked);
            kinds && number(major, rule.major) && number(minor, rule.minor) && rule.access.0 & bit != 0
        };
        [1, 2, 4]
            .into_iter()
            .filter(|bit| access & u32::from(*bit) != 0)
            .all(|bit| rules.iter().rev().find(|rule| about(rule, bit)).is_some_and(|rule| rule.allow))
    }

    #[test]
    fn the_program_means_what_the_rules_mean() {
        use DeviceKind::{All, Block, Character};
        let lists = [
            vec![],
            vec![rule(false, All, None, None, "rwm"), rule(true, Character, Some(1), Some(3), "rwm")],
            vec![rule(true, Character, Some(1), Some(3), "r"), rule(true, Character, Some(1), Some(3), "w")],
            vec![
                rule(true, All, None, None, "rwm"),
                rule(false, Character, Some(1), None, "w"),
                rule(true, Character, Some(1), Some(5), "w"),
            ],
            vec![
                rule(true, Block, None, Some(3), "m"),
                rule(false, All, Some(1), None, "m"),
                rule(true, All, None, None, "r"),
            ],
            vec![rule(true, Character, Some(u32::MAX), None, "rw")],
        ];
        for rules in lists {
            let program = program(&rules).unwrap();
            for kind in [1, 2] {
                for access in 1..8 {
                    for major in [0, 1, u32::MAX] {
                        for minor in [3, 5] {
                            let expected = meaning(&rules, kind, access, major, minor);
                            assert_eq!(
                                run(&program, kind, access, major, minor),
                                expected,
                                "{rules:?}: {kind} {access} {major}:{minor}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn version_1_gets_lists_or_a_refusal() {
        use DeviceKind::{All, Character};
        let deny = rule(false, All, None, None, "rwm");
        let lines = v1_lines(&[
            deny,
            rule(true, All, None, None, "m"),
            rule(true, Character, Some(1), Some(3), "rw"),
        ])
        .unwrap();
        let texts: Vec<String> = lines.iter().map(|(file, line)| format!("{file} {line}")).collect();
        assert_eq!(
            texts,
            [
                "devices.deny a *:* rwm",
                "devices.allow c *:* m",
                "devices.allow b *:* m",
                "devices.allow c 1:3 rw"
            ]
        );
        let part =
            [deny, rule(true, Character, Some(1), None, "rw"), rule(false, Character, Some(1), Some(3), "w")];
        assert!(matches!(v1_lines(&part), Err(Error::NotInV1 { .. })));
    }

    #[test]
    fn access_is_letters() {
        assert_eq!(Access::parse("mwr"), Some(Access::ALL));
        assert_eq!(Access::parse("rx"), None);
    }
}
