//! Made, joined, found, frozen, killed, removed.

use std::os::fd::AsFd;

use cgroup::{Error, Group, Limits};
use kernel::process::{self, CloneFlags, Cloned, Ended};

use crate::machine::{Guarded, hierarchies, mount_points, name, until};

fn pids(limit: i64) -> Limits {
    Limits { pids: Some(limit), ..Limits::default() }
}

#[test]
fn a_process_is_born_into_its_group() {
    for hierarchy in hierarchies() {
        let group = Guarded::new(&hierarchy, "born", &Limits::default());
        let (wait, go) = rustix::pipe::pipe().unwrap();
        let child = match process::clone3(CloneFlags::empty(), group.0.v2_directory()).unwrap() {
            Cloned::Child => {
                // Nothing but two system calls: the test has other threads.
                let mut byte = [0];
                let _ = rustix::io::read(&wait, &mut byte);
                process::exit(0)
            }
            Cloned::Parent(child) => child,
        };
        group.0.join(child.pid).unwrap();
        assert_eq!(group.0.processes().unwrap(), [child.pid]);
        assert!(!group.0.is_empty().unwrap());
        rustix::io::write(&go, b"x").unwrap();
        assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), Ended::Exited(0));
        assert!(group.0.wait_empty(None).unwrap());
    }
}

#[test]
fn a_group_with_processes_is_kept_and_found_again() {
    for hierarchy in hierarchies() {
        let id = name("kept");
        let group = Guarded(Group::create(&hierarchy, None, &id, &pids(9)).unwrap().unwrap());
        let sleeper = group.shell("exec sleep 1000");
        let error = group.0.remove().unwrap_err();
        assert!(
            matches!(&error, Error::InUse { processes, .. } if *processes == [sleeper.0.id()]),
            "{error}"
        );
        let error = Group::create(&hierarchy, None, &id, &pids(5)).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        let found = Group::open(&hierarchy, None, &id).unwrap().unwrap();
        assert_eq!(found.processes().unwrap(), [sleeper.0.id()]);
        assert_eq!(found.statistics().unwrap().pids_limit, Some(9));
        found.kill().unwrap();
        found.remove().unwrap();
        assert!(Group::open(&hierarchy, None, &id).unwrap().is_none());
        for point in mount_points(&hierarchy) {
            assert!(!point.join("coracle").join(&id).exists(), "{}", point.display());
        }
    }
}

#[test]
fn a_fork_bomb_is_killed_whole() {
    for hierarchy in hierarchies() {
        let group = Guarded::new(&hierarchy, "bomb", &pids(40));
        // Each process starts two more, and stays.
        let bomb = group.shell("b() { b & b & exec sleep 1000; }; b 2> /dev/null");
        until("the bomb fills its group", || group.0.statistics().unwrap().pids.unwrap() > 20);
        group.0.kill().unwrap();
        assert!(group.0.processes().unwrap().is_empty());
        drop(bomb);
    }
}

#[test]
fn frozen_processes_do_nothing_and_can_be_killed() {
    for hierarchy in hierarchies() {
        // Limited, so that time is counted on version 1 too: no statistics are needed where the file is of version 2.
        let group = Guarded::new(&hierarchy, "frozen", &Limits::default());
        let worker = group.shell("while :; do :; done");
        let used = || cpu_ticks(worker.0.id());
        until("it works", || used() > 2);
        group.0.freeze(true).unwrap();
        let before = used();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(used(), before);
        group.0.freeze(false).unwrap();
        until("it works again", || used() > before);
        group.0.freeze(true).unwrap();
        group.0.kill().unwrap();
        assert!(group.0.is_empty().unwrap());
    }
}

/// Clock ticks that a process has run: proc_pid_stat(5).
fn cpu_ticks(pid: u32) -> u64 {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn groups_made_below_go_too() {
    for hierarchy in hierarchies() {
        let id = name("nested");
        let group = Guarded(Group::create(&hierarchy, None, &id, &pids(9)).unwrap().unwrap());
        for point in mount_points(&hierarchy) {
            let own = point.join("coracle").join(&id);
            if own.exists() {
                fs_err::create_dir_all(own.join("a/b")).unwrap();
            }
        }
        group.0.remove().unwrap();
        assert!(Group::open(&hierarchy, None, &id).unwrap().is_none());
    }
}

#[test]
fn a_parent_can_be_given() {
    for hierarchy in hierarchies() {
        let (parent, id) = (name("coracle-parent"), name("below"));
        let group =
            Guarded(Group::create(&hierarchy, Some(&format!("/{parent}")), &id, &pids(9)).unwrap().unwrap());
        let there: Vec<_> = mount_points(&hierarchy)
            .into_iter()
            .map(|point| point.join(&parent))
            .filter(|path| path.exists())
            .collect();
        assert!(!there.is_empty() && there.iter().all(|path| path.join(&id).exists()));
        drop(group);
        // A parent that was named is the caller's: it stays.
        there.iter().for_each(|path| fs_err::remove_dir(path).unwrap());
    }
}

#[test]
fn failed_creation_leaves_nothing() {
    for hierarchy in hierarchies() {
        let (parent, id) = (name("coracle-failed"), name("failed"));
        let mut limits = pids(9);
        limits.cpu.cpus = Some("99999".to_owned());
        let error = Group::create(&hierarchy, Some(&parent), &id, &limits).unwrap_err();
        assert!(
            matches!(error, Error::Set { option: "--cpuset-cpus", .. } | Error::NoController { .. }),
            "{error}"
        );
        for point in mount_points(&hierarchy) {
            assert!(!point.join(&parent).exists(), "{}", point.display());
        }
    }
}
