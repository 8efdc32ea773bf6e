//! The talk's example, which is what this program is for: a container is a process with namespaces, limits and a root of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::coracle::{Coracle, is_root};
use crate::running::{Running, count};

const NAMES: [&str; 4] = ["--network", "none", "--hostname", "container"];
pub const LIMITS: [&str; 8] =
    ["--pids-limit", "20", "--memory", "50m", "--memory-swap", "50m", "--cpus", "0.5"];
const MEMORY_DISK: [&str; 2] = ["--tmpfs", "/mytemp:size=100m,mode=0755"];

/// Whether this user's containers can be limited here. If not, the answer must be a refusal with a way out.
pub fn can_limit(coracle: &Coracle) -> bool {
    let mut args = vec!["run", "--rm"];
    args.extend(LIMITS);
    args.extend(["busybox", "true"]);
    let ran = coracle.run(&args);
    if ran.code == 0 {
        return true;
    }
    assert!(!is_root(), "root's containers can be limited everywhere: {ran:?}");
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.err.contains("to do: ") && ran.err.contains("elegat"), "{}", ran.err);
    coracle.assert_nothing_left();
    false
}

/// The image's files in a directory, copied out by a container.
pub fn unpacked(coracle: &Coracle) -> PathBuf {
    let directory = coracle.directory().join("unpacked");
    std::fs::create_dir(&directory).unwrap();
    let volume = format!("{}:/out", directory.display());
    let copy = "cp -a /bin /etc /home /root /out && mkdir /out/proc /out/sys /out/dev /out/tmp";
    coracle.ok(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", copy]);
    directory
}

#[test]
fn an_unpacked_image_becomes_an_isolated_limited_process() {
    let coracle = Coracle::with_busybox();
    let directory = unpacked(&coracle);
    example(&coracle, &["--rootfs", directory.to_str().unwrap()]);
}

#[test]
fn a_loaded_image_becomes_an_isolated_limited_process() {
    example(&Coracle::with_busybox(), &["busybox"]);
}

/// What README.md shows first, word by word; without the limits where this user cannot have them.
#[test]
fn the_readme_shows_what_its_command_prints() {
    const SCRIPT: &str = "hostname; echo $$; df -m /mytemp; ls /proc";
    let readme = include_str!("../../../../README.md");
    let (_, shown) = readme.split_once("# coracle run --rm --network none --hostname container").unwrap();
    let (command, printed) = shown.split_once(&format!("host sh -c '{SCRIPT}'\n")).unwrap();
    let asked: Vec<&str> = command.split_whitespace().filter(|word| *word != "\\").collect();
    let limits = ["--pids-limit", "20", "--memory", "50m", "--cpus", "0.5"];
    assert_eq!(asked, [&limits[..], &MEMORY_DISK].concat());
    // The image `host` is found without being loaded.
    let coracle = Coracle::new();
    let run = |options: &[&str]| {
        let words = [&["run", "--rm"], &NAMES[..], options, &["host", "sh", "-c", SCRIPT]].concat();
        coracle.run(&words)
    };
    let mut ran = run(&asked);
    if ran.code != 0 && !is_root() {
        let is_refused = ran.code == 125 && ran.err.contains("--pids-limit") && ran.err.contains("to do: ");
        assert!(is_refused, "{ran:?}");
        ran = run(&MEMORY_DISK);
    }
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let (kept, _) = printed.split_once("\n...").unwrap();
    // `ls` has a process number of its own, whichever.
    let kept: Vec<&str> = kept.lines().take(5).collect();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[..5], kept, "{}", ran.out);
    assert!(lines[5..].contains(&"acpi") || lines[5..].contains(&"meminfo"), "{}", ran.out);
    let processes = lines[4..].iter().filter(|name| name.parse::<u32>().is_ok()).count();
    assert_eq!(processes, 2, "the shell and ls: {}", ran.out);
    coracle.assert_nothing_left();
}

fn example(coracle: &Coracle, image: &[&str]) {
    let limited = can_limit(coracle);
    let mut options = [NAMES.as_slice(), &MEMORY_DISK].concat();
    if limited {
        options.extend(LIMITS);
    }
    let words = [options.as_slice(), image].concat();
    let mut container = Running::start(coracle, &words);
    its_view_is_its_own(&mut container);
    if limited {
        the_21st_process_fails(&mut container);
        it_gets_half_a_processor(&mut container);
        too_much_memory_ends_it(coracle, &words);
    }
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = coracle.directory().display().to_string();
    assert!(!mounts.contains(&place), "a mount is left: {mounts}");
}

fn its_view_is_its_own(container: &mut Running) {
    assert_eq!(container.ask("hostname"), "container");
    assert_eq!(container.ask("echo $$"), "1");
    assert_eq!(container.ask("df -m /mytemp | awk 'END { print $2 }'"), "100");
    assert_eq!(container.ask("stat -c %a /mytemp"), "755");
    // The shell and what lists them: nobody else's processes.
    let processes = container.ask("ls /proc | grep -c '^[0-9]'");
    assert!(processes.parse::<u32>().unwrap() <= 4, "{processes} processes in its /proc");
    assert_eq!(container.ask("ls /sys/class/net"), "lo");
}

pub fn the_21st_process_fails(container: &mut Running) {
    // The shell, the shell below it, and 18 more make 20.
    let started =
        container.ask("sh -c 'for i in $(seq 40); do sleep 1000 & echo started; done'; killall -9 sleep");
    assert_eq!(started.matches("started").count(), 18, "{started}");
    assert!(started.contains("can't fork"), "{started}");
    assert!(count(&container.group("pids").unwrap().join("pids.events"), "max") >= 1);
}

/// What the kernel counted: periods, those in which the limit was reached, and microseconds used.
fn processor_use(container: &Running) -> [u64; 3] {
    let statistics = container.group("cpu").unwrap().join("cpu.stat");
    // Version 2 counts the use of every group, whatever is limited; without it the kernel's count of each process is all there is.
    let usage = match container.groups.iter().find(|(names, _)| names.is_empty()) {
        Some((_, unified)) => count(&unified.join("cpu.stat"), "usage_usec"),
        None => {
            let processes = statistics.with_file_name("cgroup.procs");
            let processes = std::fs::read_to_string(processes).unwrap();
            let nanoseconds = |pid: &str| {
                let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
                text.split(' ').next()?.parse::<u64>().ok()
            };
            processes.lines().filter_map(nanoseconds).sum::<u64>() / 1000
        }
    };
    [count(&statistics, "nr_periods"), count(&statistics, "nr_throttled"), usage]
}

fn it_gets_half_a_processor(container: &mut Running) {
    let before = processor_use(container);
    container.ask("sh -c 'while :; do :; done' & echo");
    let patience = Instant::now() + Duration::from_secs(120);
    // How often it was found to have come to its limit since the last look. The kernel's own count is greater when its timer is late: it
    // counts every period that has gone by meanwhile.
    let mut times = 0;
    let mut last = before;
    loop {
        let now = processor_use(container);
        times += u64::from(now[1] > last[1]);
        last = now;
        // What was counted of a process that has ended since may be missing now.
        let [periods, usage] = [now[0] - before[0], now[2].saturating_sub(before[2])];
        // On a machine that others use too, it may never come to its limit.
        let is_seen = times >= 3 || periods >= 30;
        // 50 ms in each period of 100 ms, and a little for what was counted between the two looks. A virtual machine that was stopped may
        // have used more, which the kernel takes off the periods that follow.
        let is_held = usage <= (periods + 2) * 60_000;
        if is_seen && is_held {
            // What it may use, it can: but for the first time, when the period had begun before the first look.
            let least = times.saturating_sub(1) * 40_000;
            assert!(usage >= least, "{usage} us, though it came to its limit {times} times");
            break;
        }
        assert!(Instant::now() < patience, "{usage} us in {periods} periods, at its limit {times} times");
        std::thread::sleep(Duration::from_millis(20));
    }
    container.ask("kill $!");
}

pub fn too_much_memory_ends_it(coracle: &Coracle, words: &[&str]) {
    let fill = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let ran = coracle.run(&[&["run", "--rm"], words, &fill].concat());
    assert_eq!(ran.code, 137, "{ran:?}");
    // 30 MB fit.
    let fill = ["dd", "if=/dev/zero", "of=/dev/null", "bs=30M", "count=1"];
    let ran = coracle.run(&[&["run", "--rm"], words, &fill].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
}
