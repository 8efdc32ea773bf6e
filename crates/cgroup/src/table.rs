//! The table of what is enforced where.

/// What becomes of a limit on one kind of hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The kernel holds it.
    Enforced,
    /// The kernel holds something close to it; the note says what.
    Approximated,
    /// It is an error to ask for it; the note says when, if not always.
    Refused,
    /// It is taken and does nothing, for want of anything in today's kernels; the note says why it is not refused.
    Ignored,
}

/// One option on v2, hybrid and v1.
struct Row {
    option: &'static str,
    fates: [Fate; 3],
    note: &'static str,
}

use Fate::{Approximated, Enforced, Ignored, Refused};

const fn row(option: &'static str, fates: [Fate; 3], note: &'static str) -> Row {
    Row { option, fates, note }
}

const TABLE: [Row; 31] = [
    row("--pids-limit", [Enforced; 3], ""),
    row("--memory", [Enforced; 3], ""),
    row("--memory-swap", [Enforced; 3], "refused where the kernel does not count swap"),
    row(
        "--memory without --memory-swap",
        [Enforced; 3],
        "memory and swap together are twice the memory; approximated where the kernel does not count swap: no limit on swap",
    ),
    row(
        "--memory-reservation",
        [Enforced, Approximated, Approximated],
        "v1 takes pages first from those beyond it; v2 keeps them for the group",
    ),
    row("memory.high", [Enforced, Refused, Refused], ""),
    row("memory.oom.group", [Enforced, Refused, Refused], "only when asked for"),
    row("--oom-kill-disable", [Refused, Enforced, Enforced], "v2 has no such thing"),
    row("--memory-swappiness", [Refused, Enforced, Enforced], ""),
    row(
        "kernel TCP memory limit",
        [Refused, Enforced, Enforced],
        "refused where the kernel does not count it",
    ),
    row(
        "kernel memory limit",
        [Ignored; 3],
        "the kernel no longer has it, and callers still send it: as runc does",
    ),
    row(
        "memory.use_hierarchy",
        [Enforced, Enforced, Enforced],
        "no is refused on v2, and on v1 since Linux 5.11",
    ),
    row("check before update", [Enforced; 3], "v1 always refuses less than what is in use"),
    row("--cpus, --cpu-quota, --cpu-period", [Enforced; 3], ""),
    row(
        "--cpu-shares",
        [Approximated, Enforced, Enforced],
        "v2 counts in other weights: 2 is 1, 1024 is 100, 262144 is 10000",
    ),
    row("cpu burst", [Enforced; 3], "refused before Linux 5.14"),
    row("cpu idle", [Enforced; 3], "refused before Linux 5.15"),
    row(
        "--cpu-rt-runtime, --cpu-rt-period",
        [Refused, Enforced, Enforced],
        "refused where the kernel has no groups for realtime",
    ),
    row("--cpuset-cpus, --cpuset-mems", [Enforced; 3], ""),
    row(
        "--blkio-weight",
        [Approximated, Enforced, Enforced],
        "refused where no scheduler knows weights; on v2 without bfq, 10 to 1000 become 1 to 10000",
    ),
    row("--blkio-weight-device", [Approximated, Enforced, Enforced], "as --blkio-weight"),
    row(
        "blkio leaf weight",
        [Refused, Enforced, Enforced],
        "refused since Linux 5.0, whose schedulers know none",
    ),
    row(
        "--device-read-bps, --device-write-bps",
        [Enforced, Approximated, Approximated],
        "v1 does not see writes that go through the page cache",
    ),
    row(
        "--device-read-iops, --device-write-iops",
        [Enforced, Approximated, Approximated],
        "v1 does not see writes that go through the page cache",
    ),
    row(
        "device rules",
        [Enforced, Enforced, Approximated],
        "v1 refuses rules that take a part out of an earlier one",
    ),
    row("hugepage limit", [Enforced; 3], "refused where the kernel has no huge pages of that size"),
    row("rdma limit", [Enforced; 3], "refused where there is no such device"),
    row(
        "network class, network priority",
        [Refused, Enforced, Enforced],
        "refused where the controllers net_cls and net_prio are not mounted",
    ),
    row("unified", [Enforced, Refused, Refused], "hybrid takes files of controllers that are in its v2 tree"),
    row("freeze", [Enforced; 3], ""),
    row("any limit without delegation", [Refused; 3], "with the command that delegates"),
];

/// The table as Markdown: option × v2, hybrid, v1. `docs/limits.md` contains it.
pub fn table_markdown() -> String {
    let mut text = String::from("| option | v2 | hybrid | v1 | note |\n|---|---|---|---|---|\n");
    for Row { option, fates: [v2, hybrid, v1], note } in &TABLE {
        text += &format!("| {option} | {} | {} | {} | {note} |\n", word(*v2), word(*hybrid), word(*v1));
    }
    text
}

fn word(fate: Fate) -> &'static str {
    match fate {
        Enforced => "enforced",
        Approximated => "approximated",
        Refused => "refused",
        Ignored => "ignored",
    }
}
