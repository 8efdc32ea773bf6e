//! `image prune`.

use std::process::{Command, Stdio};

use crate::coracle::{Coracle, Ran};
use crate::images::refused;
use crate::layered::{Layout, Made};

fn answered(mut command: Command, answer: &str) -> Ran {
    use std::io::Write as _;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn count(coracle: &Coracle, directory: &str) -> usize {
    std::fs::read_dir(coracle.root().join("image").join(directory)).unwrap().count()
}

#[test]
fn what_no_container_uses_goes() {
    let coracle = Coracle::with_busybox();
    let layout = Layout::new(coracle.directory().join("layout"));
    let large = "x".repeat(100_000);
    layout.add(
        "old",
        &Made { layers: &[&[("a", &large)]], created: "2020-01-01T00:00:00Z", ..Made::default() },
    );
    layout.add("new", &Made { layers: &[&[("b", "b")]], created: "2022-01-01T00:00:00Z", ..Made::default() });
    for tag in ["old", "new"] {
        coracle.ok(&["pull", "-q", &layout.source(tag)]);
    }
    let id = |name: &str| coracle.ok(&["inspect", "-f", "{{.Id}}", name]).trim().to_owned();
    let (old, new) = (id("layout:old"), id("layout:new"));
    coracle.ok(&["run", "--name", "user", "busybox", "true"]);
    // Nothing is without a name yet.
    assert_eq!(coracle.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
    coracle.ok(&["tag", "busybox", "layout:old"]);
    for answer in ["", "n\n", "\n"] {
        let ran = answered(coracle.command(&["image", "prune"]), answer);
        assert!(ran.code == 1 && ran.out.is_empty(), "{ran:?}");
        assert!(
            ran.err.starts_with("WARNING! This will remove all dangling images.\nAre you sure"),
            "{ran:?}"
        );
        assert!(ran.err.contains("nothing was removed") && ran.err.contains("--force"), "{ran:?}");
    }
    assert_eq!(
        coracle.ok(&["image", "prune", "-f", "--filter", "until=2019-01-01"]),
        "Total reclaimed space: 0B\n"
    );
    assert_eq!(
        coracle.ok(&["image", "prune", "-f", "--filter", "label=none"]),
        "Total reclaimed space: 0B\n"
    );
    let ran = answered(coracle.command(&["image", "prune"]), "y\n");
    let reclaimed =
        ran.out.strip_prefix(&format!("Deleted Images:\ndeleted: {old}\n\nTotal reclaimed space: "));
    // Its file of 100,000 bytes, and what little the file system adds.
    assert!(reclaimed.is_some_and(|size| size.starts_with("1") && size.ends_with("kB\n")), "{ran:?}");
    let all = coracle.ok(&["image", "prune", "-af"]);
    assert!(
        all.starts_with(&format!("Deleted Images:\nuntagged: layout:new\ndeleted: {new}\n\nTotal")),
        "{all}"
    );
    assert_eq!((count(&coracle, "layers"), count(&coracle, "images")), (1, 1));
    assert_eq!(coracle.ok(&["run", "--rm", "layout:old", "echo", "used"]), "used\n");
    coracle.ok(&["rm", "user"]);
    coracle.ok(&["image", "prune", "-a", "--force"]);
    assert_eq!((count(&coracle, "layers"), count(&coracle, "blobs/sha256")), (0, 0));
    refused(&coracle, &["image", "prune", "-f", "--filter", "dangling=true"], "filters here: until");
}

#[test]
fn blobs_that_a_registry_has_are_dropped_and_fetched_again() {
    let coracle = Coracle::with_busybox();
    let layout = Layout::new(coracle.directory().join("layout"));
    let base: &[(&str, &str)] = &[("base", "base")];
    let blobs = layout.add("two", &Made { layers: &[base, &[("top", "top")]], ..Made::default() });
    layout.add("local", &Made { layers: &[base, &[("own", "own")]], ..Made::default() });
    let registry = layout.serve();
    let name = format!("{}/team/app:two", registry.host);
    coracle.ok(&["pull", "-q", &name]);
    let before = count(&coracle, "blobs/sha256");
    let pruned = coracle.ok(&["image", "prune", "-f", "--blobs"]);
    let mut dropped: Vec<&str> = pruned.lines().filter(|line| line.starts_with("sha256:")).collect();
    let mut expected: Vec<&str> = blobs.iter().map(String::as_str).collect();
    dropped.sort_unstable();
    expected.sort_unstable();
    assert_eq!(dropped, expected, "{pruned}");
    assert!(pruned.contains("Total reclaimed space: ") && !pruned.contains("space: 0B"), "{pruned}");
    assert_eq!(count(&coracle, "blobs/sha256"), before - 2, "those of the archive stay");
    assert_eq!(coracle.ok(&["image", "prune", "-f", "--blobs"]), "Total reclaimed space: 0B\n");
    coracle.ok(&["run", "--rm", "busybox", "true"]);
    assert!(coracle.ok(&["history", &name]).contains("4B"));
    coracle.ok(&["pull", "-q", &name]);
    assert_eq!(count(&coracle, "blobs/sha256"), before);
    blobs.iter().for_each(|blob| assert_eq!(registry.asked(blob).len(), 2, "{blob}"));
    // An image that came from an archive has the lower blob too: it is not dropped.
    coracle.ok(&["pull", "-q", &layout.source("local")]);
    let pruned = coracle.ok(&["image", "prune", "-f", "--blobs"]);
    assert!(!pruned.contains(&blobs[0]) && pruned.contains(&blobs[1]), "{pruned}");
}
