//! What rules, profiles and the default profile mean, decided by the compiled filter.

#![cfg(target_arch = "x86_64")]

#[path = "seccomp/interpreter.rs"]
mod interpreter;

use interpreter::Call;
use runtime::seccomp::{self, Action, Arch, Condition, Error, Filter, Flag, Op, Profile, Seccomp, Syscall};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// quotactl(2): nobody calls it by chance.
const QUOTACTL: u32 = 179;

fn refusing(syscalls: Vec<Syscall>) -> Seccomp {
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: vec![Arch::X86_64, Arch::X86, Arch::X32],
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn rule(names: &[&'static str], action: Action, args: &[Condition]) -> Syscall {
    let names = names.iter().map(|name| (*name).into()).collect();
    Syscall { names, action, errno_ret: None, args: args.to_vec() }
}

fn condition(index: u32, op: Op, value: u64, value_two: u64) -> Condition {
    Condition { index, value, value_two, op }
}

fn decide(seccomp: &Seccomp, audit: u32, number: u32, args: [u64; 6]) -> u32 {
    interpreter::run(&Filter::of(seccomp).unwrap().program, &Call { number, audit, args })
}

#[test]
fn each_operator_compares_all_64_bits_unsigned() {
    let values = [0, 1, 7, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 1 << 63, u64::MAX];
    type Compare = fn(u64, u64) -> bool;
    let operators: [(Op, Compare); 7] = [
        (Op::NotEqual, |argument, value| argument != value),
        (Op::Less, |argument, value| argument < value),
        (Op::LessOrEqual, |argument, value| argument <= value),
        (Op::Equal, |argument, value| argument == value),
        (Op::GreaterOrEqual, |argument, value| argument >= value),
        (Op::Greater, |argument, value| argument > value),
        (Op::MaskedEqual, |argument, value| argument & value == 0x1_0000_0001 & value),
    ];
    for (op, compare) in operators {
        for value in values {
            let condition = condition(5, op, value, 0x1_0000_0001);
            let filter = refusing(vec![rule(&["quotactl"], Action::Allow, &[condition])]);
            for argument in values {
                let expected = if compare(argument, value) { ALLOW } else { EPERM };
                let args = [0, 0, 0, 0, 0, argument];
                assert_eq!(
                    decide(&filter, X86_64, QUOTACTL, args),
                    expected,
                    "{argument:#x} {op:?} {value:#x}"
                );
                // i386 has 32-bit arguments: the kernel leaves the upper half 0 and it is not looked at.
                let (low, value) = (argument & 0xffff_ffff, value & 0xffff_ffff);
                if op != Op::MaskedEqual {
                    let expected = if compare(low, value) { ALLOW } else { EPERM };
                    assert_eq!(
                        decide(&filter, I386, 131, args),
                        expected,
                        "i386: {low:#x} {op:?} {value:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn each_action_is_what_the_kernel_calls_so() {
    let actions = [
        (Action::Kill, 0),
        (Action::KillThread, 0),
        (Action::KillProcess, 0x8000_0000),
        (Action::Trap, 0x0003_0000),
        (Action::Errno, 0x0005_0007),
        (Action::Notify, 0x7fc0_0000),
        (Action::Trace, 0x7ff0_0007),
        (Action::Log, 0x7ffc_0000),
        (Action::Allow, ALLOW),
    ];
    for (action, value) in actions {
        let rule = Syscall { errno_ret: Some(7), ..rule(&["quotactl"], action, &[]) };
        assert_eq!(decide(&refusing(vec![rule]), X86_64, QUOTACTL, [0; 6]), value);
        if action != Action::Notify {
            let filter = Seccomp { default_action: action, default_errno_ret: Some(7), ..refusing(vec![]) };
            assert_eq!(decide(&filter, X86_64, QUOTACTL, [0; 6]), value);
        }
    }
}

#[test]
fn rules_on_one_call_are_alternatives_and_conditions_of_one_rule_are_not() {
    let both = [condition(0, Op::Equal, 1, 0), condition(1, Op::Equal, 2, 0)];
    let filter = refusing(vec![
        rule(&["quotactl"], Action::Allow, &both),
        rule(&["quotactl"], Action::Allow, &[condition(2, Op::Equal, 3, 0)]),
    ]);
    let decide = |args| decide(&filter, X86_64, QUOTACTL, args);
    assert_eq!(decide([1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(decide([1, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(decide([0, 2, 0, 0, 0, 0]), EPERM);
    assert_eq!(decide([0, 0, 3, 0, 0, 0]), ALLOW);
}

#[test]
fn conditions_on_the_same_argument_are_alternatives() {
    let either = [condition(0, Op::Equal, 1, 0), condition(0, Op::Equal, 2, 0)];
    let filter = refusing(vec![rule(&["quotactl"], Action::Allow, &either)]);
    let decide = |first| decide(&filter, X86_64, QUOTACTL, [first, 0, 0, 0, 0, 0]);
    assert_eq!([decide(0), decide(1), decide(2)], [EPERM, ALLOW, ALLOW]);
}

#[test]
fn rule_without_conditions_beats_others_and_the_first_wins() {
    let filter = refusing(vec![
        rule(&["quotactl"], Action::Log, &[condition(0, Op::Equal, 1, 0)]),
        rule(&["quotactl"], Action::Errno, &[]), // the default action: as if not written
        rule(&["quotactl"], Action::Allow, &[]),
        rule(&["quotactl"], Action::KillProcess, &[]),
    ]);
    assert_eq!(decide(&filter, X86_64, QUOTACTL, [1, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn unlisted_interfaces_kill_and_unknown_names_are_passed_over() {
    let mut filter = refusing(vec![rule(&["quotactl", "no_such_call"], Action::Allow, &[])]);
    filter.architectures = vec![Arch::X86_64, Arch::S390x];
    assert_eq!(decide(&filter, X86_64, QUOTACTL, [0; 6]), ALLOW);
    assert_eq!(decide(&filter, I386, 131, [0; 6]), KILL_THREAD);
    assert_eq!(decide(&filter, X86_64, QUOTACTL | 0x4000_0000, [0; 6]), KILL_THREAD);
    assert_eq!(decide(&filter, X86_64, u32::MAX, [0; 6]), EPERM);
}

#[test]
fn calls_newer_than_the_rules_do_not_exist() {
    let filter = refusing(vec![rule(&["quotactl"], Action::Allow, &[])]);
    let decide = |audit, number| decide(&filter, audit, number, [0; 6]);
    assert_eq!([decide(X86_64, 178), decide(X86_64, 180)], [EPERM, ENOSYS]);
    assert_eq!([decide(I386, 130), decide(I386, 132)], [EPERM, ENOSYS]);
    let permissive = Seccomp { default_action: Action::Allow, ..filter.clone() };
    assert_eq!(
        interpreter::run(
            &Filter::of(&permissive).unwrap().program,
            &Call { number: 9999, audit: X86_64, args: [0; 6] }
        ),
        ALLOW
    );
}

#[test]
fn rules_on_i386_sockets_hold_through_socketcall() {
    let filter = refusing(vec![rule(&["send"], Action::Allow, &[condition(3, Op::Equal, 5, 0)])]);
    let decide = |args| decide(&filter, I386, 102, args);
    assert_eq!(decide([9, 0, 0, 5, 0, 0]), ALLOW);
    assert_eq!(decide([9, 0, 0, 4, 0, 0]), EPERM);
    assert_eq!(decide([10, 0, 0, 5, 0, 0]), EPERM);
}

#[test]
fn refuses_what_cannot_work() {
    let compile = |syscall| Filter::of(&refusing(vec![syscall]));
    let sixth = rule(&["read"], Action::Allow, &[condition(6, Op::Equal, 0, 0)]);
    assert!(matches!(compile(sixth), Err(Error::ArgumentIndex { index: 6, .. })));
    assert!(matches!(compile(rule(&["write"], Action::Notify, &[])), Err(Error::NotifyWrite)));
    let filter = Seccomp { default_action: Action::Notify, ..refusing(vec![]) };
    assert!(matches!(Filter::of(&filter), Err(Error::NotifyByDefault)));
    let many =
        (0..1000).map(|value| rule(&["read"], Action::Allow, &[condition(0, Op::Equal, value << 32, 0)]));
    assert!(matches!(Filter::of(&refusing(many.collect())), Err(Error::TooLong { .. })));
}

#[test]
fn rules_far_apart_are_still_reached() {
    // 250 conditions on one call put more than 255 instructions between a test and what it jumps to.
    let mut rules: Vec<_> = (0..250)
        .map(|value| rule(&["read"], Action::Allow, &[condition(0, Op::Equal, value * 2, 0)]))
        .collect();
    rules.push(rule(&["write", "quotactl"], Action::Allow, &[]));
    let filter = refusing(rules);
    for value in 0..500 {
        let expected = if value % 2 == 0 { ALLOW } else { EPERM };
        assert_eq!(decide(&filter, X86_64, 0, [value, 0, 0, 0, 0, 0]), expected);
    }
    assert_eq!(decide(&filter, X86_64, 1, [0; 6]), ALLOW);
    assert_eq!(decide(&filter, I386, 4, [0; 6]), ALLOW);
    assert_eq!(decide(&filter, X86_64, 2, [0; 6]), EPERM);
}

/// The capability that docker's default filter asks for each of these calls.
#[test]
fn default_profile_opens_with_capabilities() {
    let calls = [
        (165, 21), // mount: CAP_SYS_ADMIN
        (435, 21), // clone3
        (459, 21), // lsm_get_self_attr
        (169, 22), // reboot: CAP_SYS_BOOT
        (161, 18), // chroot: CAP_SYS_CHROOT
        (175, 16), // init_module: CAP_SYS_MODULE
        (163, 20), // acct: CAP_SYS_PACCT
        (312, 19), // kcmp: CAP_SYS_PTRACE
        (172, 17), // iopl: CAP_SYS_RAWIO
        (164, 25), // settimeofday: CAP_SYS_TIME
        (153, 26), // vhangup: CAP_SYS_TTY_CONFIG
        (237, 23), // mbind: CAP_SYS_NICE
        (103, 34), // syslog: CAP_SYSLOG
        (321, 39), // bpf: CAP_BPF
        (298, 38), // perf_event_open: CAP_PERFMON
        (304, 2),  // open_by_handle_at: CAP_DAC_READ_SEARCH
    ];
    for (number, capability) in calls {
        let decide =
            |capabilities| decide(&seccomp::docker_default(capabilities, (6, 1)), X86_64, number, [0; 6]);
        assert_eq!(decide(1 << capability), ALLOW, "{number} with {capability}");
        let refused = if number == 435 { ENOSYS } else { EPERM };
        assert_eq!(decide(0), refused, "{number} without {capability}");
    }
}

#[test]
fn default_profile_looks_at_arguments() {
    let filter = seccomp::docker_default(0, (6, 1));
    let decide = |number, first| decide(&filter, X86_64, number, [first, 0, 0, 0, 0, 0]);
    assert_eq!(decide(56, 0x11), ALLOW, "clone as fork does it");
    assert_eq!(decide(56, 0x1000_0000), EPERM, "clone with CLONE_NEWUSER");
    for (family, expected) in
        [(1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW), (38, EPERM), (40, EPERM), (46, EPERM)]
    {
        assert_eq!(decide(41, family), expected, "socket of family {family}");
    }
    assert_eq!([decide(135, 0xffff_ffff), decide(135, 0x4_0000)], [ALLOW, EPERM], "personality");
    assert_eq!([decide(462, 0), decide(335, 0), decide(467, 0)], [ALLOW, ALLOW, ENOSYS], "new calls");
    let old = seccomp::docker_default(0, (4, 7));
    let ptrace = |filter| {
        interpreter::run(
            &Filter::of(filter).unwrap().program,
            &Call { number: 101, audit: X86_64, args: [0; 6] },
        )
    };
    assert_eq!([ptrace(&filter), ptrace(&old)], [ALLOW, EPERM]);
}

const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "comment": "an unknown member",
    "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": null},
        {"name": "write", "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]}},
        {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_NO_SUCH"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_LOG", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["set_tls"], "action": "SCMP_ACT_LOG", "includes": {"arches": ["arm64"]}},
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "5.10"}}
    ]
}"#;

#[test]
fn profile_in_dockers_format_is_narrowed_to_what_holds() {
    let profile = Profile::parse(PROFILE.as_bytes()).unwrap();
    let names = |capabilities, kernel| {
        let seccomp = profile.rules_for(capabilities, kernel).unwrap().unwrap();
        assert_eq!(seccomp.architectures, [Arch::X86_64, Arch::X86]);
        assert_eq!(seccomp.default_errno_ret, Some(38));
        seccomp.syscalls.into_iter().flat_map(|rule| rule.names).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(0, (6, 1)), "read write acct arch_prctl ptrace");
    assert_eq!(names(1 << 21, (4, 19)), "read write arch_prctl ptrace bpf");
    assert_eq!(names(1 << 21 | 1 << 18, (4, 7)), "read write mount arch_prctl bpf");
}

#[test]
fn profile_that_contradicts_itself_is_refused() {
    let rules_for = |json: &str| Profile::parse(json.as_bytes())?.rules_for(0, (6, 1));
    assert!(rules_for("{}").unwrap().is_none(), "an empty profile filters nothing");
    let both = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]}"#;
    assert!(matches!(rules_for(both), Err(Error::TwoArchitectureLists)));
    let rule =
        |rule: &str| rules_for(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#));
    let named = rule(r#"{"name": "read", "names": ["write"], "action": "SCMP_ACT_KILL"}"#);
    assert!(matches!(named, Err(Error::TwoNameLists { name }) if name == "read"));
    let kernel = rule(r#"{"names": ["read"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "new"}}"#);
    assert!(matches!(kernel, Err(Error::KernelVersion { .. })));
    let action = rule(r#"{"names": ["read"], "action": "SCMP_ACT_WISH"}"#).unwrap_err().to_string();
    assert!(action.contains("SCMP_ACT_WISH") && action.contains("line 1"), "{action}");
    let no_default = rules_for(r#"{"syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}]}"#);
    assert!(no_default.unwrap_err().to_string().contains("defaultAction"));
}

#[test]
fn oci_object_is_read_and_written() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/run/x","syscalls":[{"names":["quotactl"],"action":"SCMP_ACT_NOTIFY","errnoRet":3,"args":[{"index":1,"value":18446744073709551615,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
    let seccomp: Seccomp = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&seccomp).unwrap(), json);
    assert_eq!(seccomp.flags, Some(vec![Flag::Log]));
    use kernel::seccomp::FilterFlags;
    let flags = |flags| Filter::of(&Seccomp { flags, ..refusing(vec![]) }).unwrap().flags;
    assert_eq!(Filter::of(&seccomp).unwrap().flags, FilterFlags::LOG | FilterFlags::NEW_LISTENER);
    assert_eq!([flags(Some(vec![])), flags(None)], [FilterFlags::empty(), FilterFlags::SPEC_ALLOW]);
}

#[test]
fn default_filter_is_taken_by_the_kernel() {
    let outcome = std::thread::spawn(|| {
        rustix::thread::set_no_new_privs(true).unwrap();
        Filter::docker_default(0).unwrap().load().unwrap();
        // Refused before the kernel looks at the path.
        (rustix::process::chroot("/no-such-directory"), rustix::process::getpid())
    });
    assert_eq!(outcome.join().unwrap().0, Err(rustix::io::Errno::PERM));
}
