//! Groups as an OCI runtime's callers want them: at the path they name, in all trees, used if they are there, never their parents removed.

use cgroup::{Choice, Description, Error, Group, Hierarchy, Limits, Place};

use crate::machine::{Guarded, again, hierarchies, mount_points, name, role};

/// The parents of a test's group, removed with it.
struct Parents(Vec<std::path::PathBuf>);

impl Parents {
    fn new(hierarchy: &Hierarchy, parent: &str) -> Self {
        Self(mount_points(hierarchy).into_iter().map(|point| point.join(parent)).collect())
    }

    fn make(self) -> Self {
        self.0.iter().for_each(|path| fs_err::create_dir(path).unwrap());
        self
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs_err::remove_dir(path);
        }
    }
}

fn create(hierarchy: &Hierarchy, path: &str, limits: &Limits) -> cgroup::Result<Group> {
    let choice = Place::of_path(hierarchy, Some(path), "unused")?;
    Ok(Group::create_everywhere(hierarchy, choice, limits)?.expect("root has groups"))
}

fn pids(limit: i64) -> Limits {
    Limits { pids: Some(limit), ..Limits::default() }
}

#[test]
fn a_container_has_a_group_in_every_tree_at_the_path_that_was_named() {
    for hierarchy in hierarchies() {
        let parent = name("every");
        let parents = Parents::new(&hierarchy, &parent);
        let group = Guarded(create(&hierarchy, &format!("/{parent}/own.slice"), &pids(9)).unwrap());
        let sleeper = group.shell("exec sleep 1000");
        for path in &parents.0 {
            let text = fs_err::read_to_string(path.join("own.slice/cgroup.procs")).unwrap();
            assert_eq!(text.trim(), sleeper.0.id().to_string(), "{}", path.display());
        }
        group.0.kill().unwrap();
        group.0.remove().unwrap();
        group.0.remove().unwrap();
        for path in &parents.0 {
            assert!(path.exists() && !path.join("own.slice").exists(), "{}", path.display());
        }
    }
}

#[test]
fn a_path_that_is_relative_or_missing_is_below_the_usual_parent() {
    for hierarchy in hierarchies() {
        let (relative, id) = (name("relative"), name("none"));
        for path in [Some(relative.as_str()), None] {
            let choice = Place::of_path(&hierarchy, path, &id).unwrap();
            let group = Group::create_everywhere(&hierarchy, choice, &Limits::default()).unwrap().unwrap();
            let group = Guarded(group);
            let own = path.unwrap_or(&id);
            for point in mount_points(&hierarchy) {
                assert!(point.join("coracle").join(own).exists(), "{}", point.display());
            }
            drop(group);
        }
    }
}

#[test]
fn paths_that_lead_upwards_are_refused() {
    for hierarchy in hierarchies() {
        for path in ["/../x", "a/../../b", "/"] {
            let error = Place::of_path(&hierarchy, Some(path), "x").unwrap_err();
            assert!(matches!(error, Error::Name { .. }), "{path}: {error}");
        }
    }
}

#[test]
fn a_group_that_is_there_is_used_unless_it_has_processes() {
    for hierarchy in hierarchies() {
        let own = name("there");
        let path = format!("/{own}");
        let made = Parents::new(&hierarchy, &own).make();
        let group = Guarded(create(&hierarchy, &path, &pids(9)).unwrap());
        let _sleeper = group.shell("exec sleep 1000");
        let error = create(&hierarchy, &path, &pids(9)).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
        group.0.kill().unwrap();
        group.0.freeze(true).unwrap();
        let error = create(&hierarchy, &path, &pids(9)).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup unexpectedly frozen");
        group.0.freeze(false).unwrap();
        assert!(made.0.iter().all(|path| path.exists()));
        group.0.remove().unwrap();
        assert!(made.0.iter().all(|path| !path.exists()));
    }
}

#[test]
fn failed_creation_leaves_what_was_there() {
    for hierarchy in hierarchies() {
        let parent = name("stays");
        let made = Parents::new(&hierarchy, &parent).make();
        let mut limits = pids(9);
        limits.cpu.cpus = Some("99999".to_owned());
        let error = create(&hierarchy, &format!("/{parent}/a/b"), &limits).unwrap_err();
        assert!(
            matches!(error, Error::Set { option: "--cpuset-cpus", .. } | Error::NoController { .. }),
            "{error}"
        );
        for path in &made.0 {
            assert!(path.exists() && !path.join("a").exists(), "{}", path.display());
        }
    }
}

#[test]
fn a_group_is_opened_again_by_its_description() {
    for hierarchy in hierarchies() {
        let parent = name("described");
        let _parents = Parents::new(&hierarchy, &parent);
        let group = Guarded(create(&hierarchy, &format!("/{parent}/x"), &pids(9)).unwrap());
        let description = group.0.description();
        let unified = matches!(hierarchy, Hierarchy::V1 { .. }).then_some("pids").unwrap_or_default();
        assert!(description.directories[unified].ends_with(format!("{parent}/x")));
        let text = serde_json::to_string(&description).unwrap();
        let read: Description = serde_json::from_str(&text).unwrap();
        assert_eq!(read, description);
        let again = Group::open_described(&hierarchy, &read).unwrap().unwrap();
        assert_eq!(again.description(), description);
        let sleeper = group.shell("exec sleep 1000");
        assert_eq!(again.processes().unwrap(), [sleeper.0.id()]);
        again.kill().unwrap();
        again.remove().unwrap();
        assert!(Group::open_described(&hierarchy, &read).unwrap().is_none());
    }
}

#[test]
fn where_no_group_can_be_made_there_is_none_or_a_refusal() {
    const OWN: &str = "runtime::where_no_group_can_be_made_there_is_none_or_a_refusal";
    if role().is_none() {
        let command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        again(OWN, "nobody", &command);
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    let choice = || Place::of_path(&hierarchy, Some("/x/y"), "y").unwrap();
    assert!(matches!(choice(), Choice::Nowhere { with_parent: true, .. }));
    let error = Group::create_everywhere(&hierarchy, choice(), &pids(9)).unwrap_err();
    assert!(matches!(error, Error::NotDelegated { option: "--pids-limit", .. }), "{error}");
    let choice = Place::of_path(&hierarchy, None, "y").unwrap();
    assert!(Group::create_everywhere(&hierarchy, choice, &Limits::default()).unwrap().is_none());
}
