//! Our filters against those of runc with libseccomp, call by call.

#![cfg(target_arch = "x86_64")]

#[path = "seccomp/generate.rs"]
mod generate;
#[path = "seccomp/interpreter.rs"]
mod interpreter;
#[path = "seccomp/reference.rs"]
mod reference;

use std::collections::BTreeSet;

use generate::Numbers;
use interpreter::Call;
use kernel::seccomp::Instruction;
use reference::Bundle;
use runtime::CAPABILITIES;
use runtime::seccomp::{self, Action, Filter, Seccomp, Syscall};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const RISCV64: u32 = 0xc000_00f3;
const X32_BIT: u32 = 0x4000_0000;

const KERNEL: (u32, u32) = (6, 1);

/// What docker gives a container.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// Calls that the installed libseccomp (2.5.4) does not know, so that runc's filter refuses what the profile allows:
/// numbers by interface. The tests fail when one of them is no difference any more.
const UNKNOWN_TO_LIBSECCOMP: [(Interface, &[u32]); 3] = [
    // uretprobe; statmount and listmount; lsm_*; mseal; *xattrat
    (Interface::X86_64, &[335, 457, 458, 459, 460, 461, 462, 463, 464, 465, 466]),
    (Interface::I386, &[457, 458, 459, 460, 461, 462, 463, 464, 465, 466]),
    (Interface::X32, &[457, 458, 459, 460, 461, 462, 463, 464, 465, 466]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Interface {
    X86_64,
    I386,
    X32,
}

impl Interface {
    const ALL: [Self; 3] = [Self::X86_64, Self::I386, Self::X32];

    fn call(self, number: u32, args: [u64; 6]) -> Call {
        match self {
            Self::X86_64 => Call { number, audit: X86_64, args },
            Self::I386 => Call { number, audit: I386, args },
            Self::X32 => Call { number: number | X32_BIT, audit: X86_64, args },
        }
    }

    fn unknown_to_libseccomp(self) -> &'static [u32] {
        UNKNOWN_TO_LIBSECCOMP[self as usize].1
    }
}

/// The default set, and that with each capability that is not in it.
fn capability_sets() -> impl Iterator<Item = Vec<&'static str>> {
    let default = DEFAULT_CAPABILITIES.to_vec();
    let more = CAPABILITIES.into_iter().filter(|name| !DEFAULT_CAPABILITIES.contains(name));
    let with = |name| DEFAULT_CAPABILITIES.into_iter().chain([name]).collect();
    std::iter::once(default).chain(more.map(with))
}

fn docker_default(capabilities: &[&str]) -> Seccomp {
    seccomp::docker_default(seccomp::capability_set(capabilities.iter().copied()), KERNEL)
}

fn to_json(seccomp: &Seccomp) -> serde_json::Value {
    serde_json::to_value(seccomp).unwrap()
}

/// Whether the comparison with runc is left out, which is said.
fn skips(test: &str) -> bool {
    let reason = reference::missing();
    if let Some(reason) = &reason {
        println!("SKIP: {test}: {reason}");
    }
    reason.is_some()
}

#[test]
fn default_filter_decides_as_runcs() {
    if skips("default_filter_decides_as_runcs") {
        return;
    }
    let bundle = Bundle::new("default");
    let mut differences = BTreeSet::new();
    for capabilities in capability_sets() {
        let profile = docker_default(&capabilities);
        let runcs = bundle.filter(&to_json(&profile));
        let ours = Filter::of(&profile).unwrap().program;
        for interface in Interface::ALL {
            for number in 0..=700 {
                if !agree(&runcs, &ours, interface, number, &ARGUMENTS) {
                    let explained = interface.unknown_to_libseccomp().contains(&number);
                    assert!(explained, "{interface:?} {number} with {capabilities:?}");
                    differences.insert((interface, number));
                }
            }
        }
        assert_odd_calls_agree(&runcs, &ours);
    }
    let explained = UNKNOWN_TO_LIBSECCOMP
        .iter()
        .flat_map(|(interface, numbers)| numbers.iter().map(|number| (*interface, *number)));
    assert_eq!(differences, explained.collect(), "UNKNOWN_TO_LIBSECCOMP is stale");
}

/// Values of arguments on both sides of every border in the default profile.
const ARGUMENTS: [u64; 40] = [
    0,
    1,
    2,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    15,
    18,
    19,
    20,
    21,
    23,
    24,
    33,
    34,
    35,
    37,
    38,
    39,
    40,
    41,
    45,
    46,
    0x1_ffff,
    0x2_0000,
    0x2_0001,
    0x2_0008,
    0x200_0000,
    0x400_0000,
    0x1000_0000,
    0x7e02_0000,
    0x8100_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0008,
    u64::MAX,
];

/// Whether both filters decide alike on a call, whatever its first argument, the others being both 0 and 1.
fn agree(
    runcs: &[Instruction],
    ours: &[Instruction],
    interface: Interface,
    number: u32,
    values: &[u64],
) -> bool {
    values.iter().all(|value| {
        [0, 1].iter().all(|other| {
            let call = interface.call(number, [*value, *other, *other, *other, *other, *other]);
            interpreter::run(runcs, &call) == interpreter::run(ours, &call)
        })
    })
}

/// Numbers and architectures that no program uses in good faith.
fn assert_odd_calls_agree(runcs: &[Instruction], ours: &[Instruction]) {
    let borders = [
        0,
        0x3fff_ffff,
        0x4000_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xbfff_ffff,
        0xc000_0000,
        0xffff_fffe,
        u32::MAX,
    ];
    let numbers =
        borders.into_iter().chain((0..32).map(|bit| 1 << bit)).chain((0..32).map(|bit| 300 | 1 << bit));
    for number in numbers.chain(700..1100) {
        for audit in [X86_64, I386, RISCV64, 0, u32::MAX] {
            let call = Call { number, audit, args: [0; 6] };
            let (theirs, ours) = (interpreter::run(runcs, &call), interpreter::run(ours, &call));
            assert_eq!(format!("{theirs:x}"), format!("{ours:x}"), "{call:x?}");
        }
    }
}

#[test]
fn calls_end_as_under_runc() {
    if skips("calls_end_as_under_runc") {
        return;
    }
    let bundle = Bundle::new("calls");
    for capabilities in capability_sets() {
        let profile = docker_default(&capabilities);
        let granted = those_we_have(&capabilities);
        let theirs = bundle.calls_under_runc(&granted, &to_json(&profile));
        let ours = bundle.calls_under(&granted, &Filter::of(&profile).unwrap().program);
        assert!(ours.lines().count() > 3500, "the probe ended early");
        for (theirs, ours) in theirs.lines().zip(ours.lines()) {
            assert!(
                theirs == ours || is_explained(ours),
                "runc: {theirs}, coracle: {ours}, with {capabilities:?}"
            );
        }
        assert_eq!(theirs.lines().count(), ours.lines().count());
    }
}

/// The capabilities that we can hand on: a virtual machine's root may lack some. The filter is for all of them.
fn those_we_have(names: &[&'static str]) -> Vec<&'static str> {
    let permitted = kernel::identity::capabilities().unwrap().permitted;
    names.iter().copied().filter(|name| seccomp::capability_set([*name]) & permitted != 0).collect()
}

/// Whether a line of the probe is about a call that libseccomp does not know.
fn is_explained(line: &str) -> bool {
    let mut words = line.split(' ');
    let interface = match words.next() {
        Some("64") => Interface::X86_64,
        Some("386") => Interface::I386,
        _ => Interface::X32,
    };
    let number = words.next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| interface.unknown_to_libseccomp().contains(&number))
}

#[test]
fn written_profiles_mean_what_runc_makes_of_them() {
    if skips("written_profiles_mean_what_runc_makes_of_them") {
        return;
    }
    let bundle = Bundle::new("written");
    for seed in 1..=40 {
        let mut numbers = Numbers::from_seed(seed);
        let profile = generate::profile(&mut numbers, needed_to_start());
        let runcs = bundle.filter(&to_json(&profile));
        let ours = Filter::of(&profile).unwrap().program;
        for (interface, number) in Interface::ALL.into_iter().flat_map(|i| (0..=450).map(move |n| (i, n))) {
            if interface.unknown_to_libseccomp().contains(&number) {
                continue;
            }
            for _ in 0..40 {
                let call = interface.call(number, [0; 6].map(|_| numbers.pick(&generate::VALUES)));
                let (theirs, ours) = (interpreter::run(&runcs, &call), interpreter::run(&ours, &call));
                let rules = &profile.syscalls[1..];
                assert_eq!(
                    format!("{theirs:x}"),
                    format!("{ours:x}"),
                    "seed {seed}: {call:x?} with {rules:?}"
                );
            }
        }
        assert_odd_calls_agree(&runcs, &ours);
    }
}

/// All that docker allows with all capabilities but what the profiles are about.
fn needed_to_start() -> Syscall {
    let mut names = BTreeSet::new();
    for syscall in seccomp::docker_default(u64::MAX, KERNEL).syscalls {
        names.extend(syscall.names);
    }
    let subjects = generate::SUBJECTS.concat();
    names.retain(|name| !subjects.contains(&name.as_ref()) && !generate::RELATIVES.contains(&name.as_ref()));
    Syscall { names: names.into_iter().collect(), action: Action::Allow, errno_ret: None, args: Vec::new() }
}
