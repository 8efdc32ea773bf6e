//! What cannot be enforced is refused, with what to do.

use cgroup::{Error, Group, Hierarchy, Limits, Place};

use crate::machine::{Guarded, again, is_v2, name, role};

#[test]
fn a_user_without_delegation_has_no_group_and_no_limit() {
    if role().is_none() {
        let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        again("refusals::a_user_without_delegation_has_no_group_and_no_limit", "user", &user);
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    assert!(Group::create(&hierarchy, None, &name("user"), &Limits::default()).unwrap().is_none());
    assert!(Group::open(&hierarchy, None, &name("user")).unwrap().is_none());
    let error =
        Group::create(&hierarchy, None, &name("user"), &Limits { pids: Some(20), ..Limits::default() })
            .unwrap_err();
    assert_eq!(
        error.to_string(),
        "--pids-limit cannot be enforced: no control group is delegated to this user"
    );
    let advice = error.advice().unwrap();
    let expected = if is_v2(&hierarchy) { "delegate a group" } else { "systemd.unified_cgroup_hierarchy=1" };
    assert!(advice.contains(expected) || advice.contains("loginctl enable-linger"), "{advice}");
}

#[test]
fn version_2_without_a_controller_says_so() {
    const TEST: &str = "refusals::version_2_without_a_controller_says_so";
    if role().is_none() {
        if is_v2(&Hierarchy::detect().unwrap()) {
            // Every controller is here; the message is tested where one is not.
            return;
        }
        let private =
            ["unshare", "-m", "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"", "sh"];
        again(TEST, "v2", &private);
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    assert!(is_v2(&hierarchy), "{hierarchy:?}");
    let error =
        Group::create(&hierarchy, None, &name("bare"), &Limits { pids: Some(20), ..Limits::default() })
            .unwrap_err();
    assert!(matches!(error, Error::NoController { controller: "pids", .. }), "{error}");
    assert!(error.advice().unwrap().contains("/proc/cgroups"));
    let id = name("bare");
    let group = Group::create(&hierarchy, None, &id, &Limits::default()).unwrap().unwrap();
    assert!(std::path::Path::new("/sys/fs/cgroup/coracle").join(id).exists());
    group.kill().unwrap();
    group.remove().unwrap();
}

#[test]
fn a_delegated_group_is_used_and_nothing_else() {
    const TEST: &str = "refusals::a_delegated_group_is_used_and_nothing_else";
    if role().is_some() {
        return in_delegated_group();
    }
    let Some(unified) = unified() else { return };
    // What an administrator does for a user: a group, its directory and two files given away. The user's shell stands in it.
    let base = unified.join(name("coracle-delegated"));
    fs_err::create_dir(&base).unwrap();
    let script = format!(
        "g={}; chown 65534:65534 $g $g/cgroup.procs $g/cgroup.subtree_control $g/cgroup.threads; \
         [ $(cat $g/cgroup.controllers | wc -w) -gt 0 ] || true; echo $$ > $g/cgroup.procs; \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"",
        base.display()
    );
    let command = ["sh", "-c", &script, "sh"];
    let outcome = std::panic::catch_unwind(|| again(TEST, "delegated", &command));
    let _ = fs_err::remove_dir(base.join("callers"));
    fs_err::remove_dir(&base).unwrap();
    outcome.unwrap();
}

fn unified() -> Option<std::path::PathBuf> {
    match Hierarchy::detect().unwrap() {
        Hierarchy::V2 { unified } | Hierarchy::Hybrid { unified, .. } => Some(unified.point),
        Hierarchy::V1 { .. } => None,
    }
}

fn in_delegated_group() {
    let hierarchy = Hierarchy::detect().unwrap();
    let own = fs_err::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
    let id = name("delegated");
    let group = Group::create(&hierarchy, None, &id, &Limits::default()).unwrap().unwrap();
    let path = unified().unwrap().join(&own).join("coracle").join(&id);
    assert!(path.exists(), "{}", path.display());
    group.remove().unwrap();
    a_path_starts_at_the_delegated_group(&hierarchy, &own);
    let limited = Group::create(&hierarchy, None, &id, &Limits { pids: Some(20), ..Limits::default() });
    match (&hierarchy, limited) {
        (Hierarchy::V2 { .. }, Ok(group)) => {
            // This very process stood in the delegated group, and was moved out of the way, within it.
            let group = group.unwrap();
            assert_eq!(group.statistics().unwrap().pids_limit, Some(20));
            let now = fs_err::read_to_string("/proc/self/cgroup").unwrap();
            assert!(now.contains(&format!("{own}/callers")), "{now}");
            group.remove().unwrap();
        }
        (Hierarchy::V2 { .. }, Err(error)) => panic!("{error}"),
        (_, limited) => {
            let error = limited.unwrap_err();
            assert!(matches!(error, Error::NotDelegated { option: "--pids-limit", .. }), "{error}");
        }
    }
}

/// A path is relative to what was delegated, and may be given as it is seen from the tree's root. Nobody is moved for statistics' sake.
fn a_path_starts_at_the_delegated_group(hierarchy: &Hierarchy, own: &str) {
    let base = unified().unwrap().join(own);
    for path in ["/x/y".to_owned(), format!("/{own}/x/y")] {
        let choice = Place::of_path(hierarchy, Some(&path), "unused").unwrap();
        let group = Group::create_everywhere(hierarchy, choice, &Limits::default()).unwrap().unwrap();
        assert!(base.join("x/y").exists(), "{path}");
        group.remove().unwrap();
        assert!(!base.join("x/y").exists(), "{path}");
        fs_err::remove_dir(base.join("x")).unwrap();
    }
    let error = Place::of_path(hierarchy, Some(&format!("/{own}")), "unused").unwrap_err();
    assert!(matches!(error, Error::Name { .. }), "{error}");
    let now = fs_err::read_to_string("/proc/self/cgroup").unwrap();
    assert!(now.lines().any(|line| line == format!("0::/{own}")), "{now}");
}

#[test]
fn a_parent_with_processes_is_refused() {
    let hierarchy = Hierarchy::detect().unwrap();
    if !is_v2(&hierarchy) {
        // Version 1 has no such rule.
        return;
    }
    let parent = name("coracle-occupied");
    let outer = Guarded(Group::create(&hierarchy, Some("/"), &parent, &Limits::default()).unwrap().unwrap());
    let sleeper = outer.shell("exec sleep 1000");
    let limits = Limits { pids: Some(20), ..Limits::default() };
    let error = Group::create(&hierarchy, Some(&parent), "inner", &limits).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    assert!(error.advice().unwrap().contains(&format!("{parent}/init")));
    drop(sleeper);
}

#[test]
fn every_write_is_recorded_with_its_reason() {
    const TEST: &str = "refusals::every_write_is_recorded_with_its_reason";
    if role().is_none() {
        again(TEST, "recorded", &["env"]);
        return;
    }
    let log = kernel::record::Log::create().unwrap();
    log.install();
    let limits = Limits { pids: Some(20), ..Limits::default() };
    let group =
        Group::create(&Hierarchy::detect().unwrap(), None, &name("recorded"), &limits).unwrap().unwrap();
    group.remove().unwrap();
    let events = log.events();
    let calls: Vec<&str> = events.iter().map(|event| event.call.as_str()).collect();
    assert!(
        calls.contains(&"mkdirat") && calls.contains(&"write") && calls.contains(&"unlinkat"),
        "{calls:?}"
    );
    assert!(events.iter().all(|event| event.why.len() > 20), "{events:?}");
    let written =
        events.iter().any(|event| event.args.iter().any(|arg| arg.to_string().contains("pids.max")));
    assert!(written, "{events:?}");
}

#[test]
fn the_table_is_the_documents() {
    let document = include_str!("../../../../docs/limits.md");
    let begin = document.find("| option |").unwrap_or(document.len());
    assert_eq!(&document[begin..], cgroup::table_markdown());
}
