//! From rules to a program of classic BPF.
//!
//! For each interface the numbers of all calls become a sorted list of ranges with one verdict each, and the list a
//! binary tree, so a call is decided in about seven tests. What the rules mean is what runc and libseccomp make of them:
//!
//! - a rule without conditions beats all with conditions on the same call, and the first of those without wins;
//! - a call whose rules all have conditions and match none gets the default action;
//! - a rule whose action is the default one is as if not written;
//! - on interfaces with 32-bit arguments only the lower half of an argument and of the value is compared;
//! - in i386 a rule on `socket` also holds for `socketcall(1, …)`, likewise for its relatives and those of `ipc`;
//! - if the default action stops calls, a number above all that the rules name gets `ENOSYS`, not the default action,
//!   so that programs fall back to older calls.

use kernel::seccomp::Instruction;

use super::Error;
use super::arch::{Architecture, MACHINE, Machine};
use super::assemble::{Assembler, Label, Test};
use super::oci::{Action, Condition, Op, Seccomp};

// Offsets in `struct seccomp_data` of <linux/seccomp.h>.
const NUMBER: u32 = 0;
const AUDIT_ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

// Return values of a filter: <linux/seccomp.h>.
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The kernel's limit (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// Compiles `seccomp` for this machine.
pub(super) fn compile(seccomp: &Seccomp) -> Result<Vec<Instruction>, Error> {
    compile_for(&MACHINE, seccomp)
}

pub(super) fn compile_for(machine: &Machine, seccomp: &Seccomp) -> Result<Vec<Instruction>, Error> {
    check(seccomp)?;
    let source = Source::of(machine, seccomp);
    let mut program = Assembler::default();
    let mut next = program.ret(KILL_THREAD);
    // The program is written from its end, and the machine's own interface shall be tried first.
    for (at, architecture) in machine.architectures.iter().enumerate().rev() {
        if architecture.bit != 0 || !(at == 0 || source.lists(architecture)) {
            continue;
        }
        let mut ranges = Ranges::default();
        ranges.add(architecture, &source);
        if let Some(twin) = machine.architectures.iter().find(|a| a.audit == architecture.audit && a.bit != 0)
        {
            ranges.add_twin(twin, &source);
        }
        let tree = write_tree(&mut program, &ranges.list, source.default);
        let section = program.load(NUMBER, tree);
        next = program.branch(Test::Equal, architecture.audit, section, next);
    }
    let start = program.load(AUDIT_ARCH, next);
    let program = program.finish(start);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong { instructions: program.len(), limit: MAX_INSTRUCTIONS });
    }
    Ok(program)
}

/// Refuses what has no meaning.
fn check(seccomp: &Seccomp) -> Result<(), Error> {
    if seccomp.default_action == Action::Notify {
        return Err(Error::NotifyByDefault);
    }
    for syscall in &seccomp.syscalls {
        // The runtime itself writes between loading the filter and execve, when nobody listens yet.
        if syscall.action == Action::Notify && syscall.names.iter().any(|name| name == "write") {
            return Err(Error::NotifyWrite);
        }
        if let Some(condition) = syscall.args.iter().find(|condition| condition.index > 5) {
            return Err(Error::ArgumentIndex { calls: syscall.names.join(", "), index: condition.index });
        }
    }
    Ok(())
}

/// What a filter returns for an action. An error number has 16 bits.
fn verdict(action: Action, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(EPERM) & 0xffff;
    match action {
        Action::Kill | Action::KillThread => KILL_THREAD,
        Action::KillProcess => KILL_PROCESS,
        Action::Trap => TRAP,
        Action::Errno => ERRNO | errno,
        Action::Trace => TRACE | errno,
        Action::Allow => ALLOW,
        Action::Log => LOG,
        Action::Notify => NOTIFY,
    }
}

/// What is compiled, for what.
struct Source<'a> {
    machine: &'a Machine,
    seccomp: &'a Seccomp,
    /// What the default action returns.
    default: u32,
    /// All names in rules that this machine knows.
    calls: Vec<Call<'a>>,
}

/// A name in a rule.
struct Call<'a> {
    name: &'a str,
    numbers: &'static [u32],
    conditions: &'a [Condition],
    verdict: u32,
}

impl<'a> Source<'a> {
    fn of(machine: &'a Machine, seccomp: &'a Seccomp) -> Self {
        let mut calls = Vec::with_capacity(512);
        for syscall in &seccomp.syscalls {
            let verdict = verdict(syscall.action, syscall.errno_ret);
            for name in &syscall.names {
                if let Some(numbers) = (machine.numbers)(name) {
                    calls.push(Call { name, numbers, conditions: &syscall.args, verdict });
                }
            }
        }
        let default = verdict(seccomp.default_action, seccomp.default_errno_ret);
        Self { machine, seccomp, default, calls }
    }

    fn lists(&self, architecture: &Architecture) -> bool {
        self.seccomp.architectures.contains(&architecture.arch)
    }

    /// The highest number that any rule names, even one without effect; calls above it are too new for the rules.
    /// `None` where such calls get the default action.
    fn last_known(&self, architecture: &Architecture) -> Option<u32> {
        let permissive = matches!(self.seccomp.default_action, Action::Allow | Action::Log | Action::Trace);
        if permissive || !self.lists(architecture) {
            return None;
        }
        let last = self.calls.iter().filter_map(|call| architecture.number(call.numbers)).max()?;
        (last != 0).then_some(last)
    }

    /// The rules of one interface, sorted by number; those on the same number in the order they were written.
    fn rules(&self, architecture: &Architecture) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(self.calls.len() + architecture.multiplexed.len());
        for call in self.calls.iter().filter(|call| call.verdict != self.default) {
            let mut add = |number, conditions| {
                rules.push(Rule { number, verdict: call.verdict, conditions });
            };
            if let Some(number) = architecture.number(call.numbers) {
                each_alternative(call.conditions, |conditions| add(number, conditions.to_vec()));
            }
            let Some((via, argument)) = architecture.multiplexer(call.name) else { continue };
            let numbers = (self.machine.numbers)(via);
            let Some(number) = numbers.and_then(|numbers| architecture.number(numbers)) else { continue };
            let selects = Condition { index: 0, value: argument.into(), value_two: 0, op: Op::Equal };
            each_alternative(call.conditions, |conditions| {
                let others = conditions.iter().filter(|condition| condition.index != 0).copied();
                add(number, std::iter::once(selects).chain(others).collect());
            });
        }
        rules.sort_by_key(|rule| rule.number);
        rules
    }
}

/// A rule on one number of one interface: if all conditions hold, the verdict.
struct Rule {
    number: u32,
    verdict: u32,
    conditions: Vec<Condition>,
}

/// Conditions of which two are on the same argument are alternatives, else they belong together.
fn each_alternative(conditions: &[Condition], mut f: impl FnMut(&[Condition])) {
    let twice =
        |(at, one): (usize, &Condition)| conditions[..at].iter().any(|other| other.index == one.index);
    if conditions.iter().enumerate().any(twice) {
        conditions.chunks(1).for_each(f);
    } else {
        f(conditions);
    }
}

/// What happens to the calls of a range of numbers.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Always the same.
    Always(u32),
    /// The first alternative whose conditions all hold decides; if none, the default action.
    Depends { wide: bool, alternatives: Vec<(Vec<Condition>, u32)> },
}

/// Numbers from `first` up to the next range.
#[derive(Debug)]
struct Range {
    first: u32,
    verdict: Verdict,
}

/// All numbers of one `AUDIT_ARCH`, in ascending order.
#[derive(Default)]
struct Ranges {
    list: Vec<Range>,
    /// What numbers above all that the rules name get.
    above: u32,
}

impl Ranges {
    /// Appends the numbers of one interface, which are all above those here.
    fn add(&mut self, architecture: &Architecture, source: &Source) {
        self.push(architecture.bit, Verdict::Always(source.default));
        let mut rules = source.rules(architecture).into_iter().peekable();
        while let Some(rule) = rules.next() {
            let number = rule.number;
            let mut same = vec![rule];
            while let Some(rule) = rules.next_if(|rule| rule.number == number) {
                same.push(rule);
            }
            self.push(number, decide(same, architecture.wide));
            self.push(number + 1, Verdict::Always(source.default));
        }
        self.above = source.default;
        if let Some(last) = source.last_known(architecture) {
            self.above = ERRNO | ENOSYS;
            self.push(last + 1, Verdict::Always(self.above));
        }
    }

    /// Appends the numbers that carry the bit of `twin`, an interface with the same `AUDIT_ARCH`.
    fn add_twin(&mut self, twin: &Architecture, source: &Source) {
        let own = self.above;
        // Beyond the twin's own numbers, the next higher bit divides those without the twin's bit from those with it.
        let (without, with) = (twin.bit << 1, twin.bit << 1 | twin.bit);
        if source.lists(twin) {
            self.add(twin, source);
            self.push(without, Verdict::Always(own));
            self.push(with, Verdict::Always(self.above));
        } else {
            // An interface that was not asked for kills, as any unknown architecture does.
            self.push(twin.bit, Verdict::Always(KILL_THREAD));
            self.push(without, Verdict::Always(if own == source.default { KILL_THREAD } else { own }));
            self.push(with, Verdict::Always(KILL_THREAD));
            // -1 is what a tracer sets to have a call skipped.
            self.push(u32::MAX, Verdict::Always(source.default));
        }
    }

    fn push(&mut self, first: u32, verdict: Verdict) {
        self.list.pop_if(|last| last.first == first);
        if self.list.last().is_none_or(|last| last.verdict != verdict) {
            self.list.push(Range { first, verdict });
        }
    }
}

/// The verdict of all rules on one number.
fn decide(rules: Vec<Rule>, wide: bool) -> Verdict {
    match rules.iter().find(|rule| rule.conditions.is_empty()) {
        Some(rule) => Verdict::Always(rule.verdict),
        None => {
            let alternatives = rules.into_iter().map(|rule| (rule.conditions, rule.verdict)).collect();
            Verdict::Depends { wide, alternatives }
        }
    }
}

/// Writes a binary search for the range of the number in the accumulator.
fn write_tree(program: &mut Assembler, ranges: &[Range], default: u32) -> Label {
    if let [range] = ranges {
        return match &range.verdict {
            Verdict::Always(value) => program.ret(*value),
            Verdict::Depends { wide, alternatives } => {
                write_alternatives(program, *wide, alternatives, default)
            }
        };
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let first = upper[0].first;
    let upper = write_tree(program, upper, default);
    let lower = write_tree(program, lower, default);
    program.branch(Test::GreaterOrEqual, first, upper, lower)
}

fn write_alternatives(
    program: &mut Assembler,
    wide: bool,
    alternatives: &[(Vec<Condition>, u32)],
    default: u32,
) -> Label {
    let mut next = program.ret(default);
    for (conditions, verdict) in alternatives.iter().rev() {
        let mut holds = program.ret(*verdict);
        for condition in conditions.iter().rev() {
            holds = write_condition(program, wide, condition, holds, next);
        }
        next = holds;
    }
    next
}

/// Writes a test of one argument. BPF knows 32 bits only, so it has two halves.
fn write_condition(
    program: &mut Assembler,
    wide: bool,
    condition: &Condition,
    yes: Label,
    no: Label,
) -> Label {
    let low_half = ARGUMENTS + 8 * condition.index;
    let high_half = low_half + 4;
    let (mask, value, test, (yes, no)) = match condition.op {
        Op::Equal => (u64::MAX, condition.value, Test::Equal, (yes, no)),
        Op::NotEqual => (u64::MAX, condition.value, Test::Equal, (no, yes)),
        Op::MaskedEqual => (condition.value, condition.value_two & condition.value, Test::Equal, (yes, no)),
        Op::GreaterOrEqual => (u64::MAX, condition.value, Test::GreaterOrEqual, (yes, no)),
        Op::Less => (u64::MAX, condition.value, Test::GreaterOrEqual, (no, yes)),
        Op::Greater => (u64::MAX, condition.value, Test::Greater, (yes, no)),
        Op::LessOrEqual => (u64::MAX, condition.value, Test::Greater, (no, yes)),
    };
    let low = program.branch(test, value as u32, yes, no);
    let low = load_masked(program, low_half, mask as u32, low);
    if !wide || mask <= u64::from(u32::MAX) {
        return low;
    }
    let (mask, value) = ((mask >> 32) as u32, (value >> 32) as u32);
    let mut high = program.branch(Test::Equal, value, low, no);
    if test != Test::Equal {
        high = program.branch(Test::Greater, value, yes, high);
    }
    load_masked(program, high_half, mask, high)
}

fn load_masked(program: &mut Assembler, offset: u32, mask: u32, next: Label) -> Label {
    let next = if mask == u32::MAX { next } else { program.and(mask, next) };
    program.load(offset, next)
}
