//! The runtime under those who call it elsewhere: podman, containerd, its CRI plugin, dockerd and its swarm.
//!
//! Each test has a caller of its own with roots of its own, in a place (`place.rs`) that takes everything with it when it goes. The runtime is
//! `coracle-runtime`, or what `NEIGHBOUR_RUNTIME` names: these tests pass on runc too.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub
)]

mod client;
mod containerd;
mod cri;
mod docker;
mod place;
mod podman;
mod protobuf;
mod rootless;

/// A file that no line above names would never be run.
#[test]
fn every_file_is_named_here() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/neighbours");
    let source = include_str!("main.rs");
    let Ok(files) = std::fs::read_dir(&directory) else {
        println!("SKIP: every_file_is_named_here: the sources are not here");
        return;
    };
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(module == "main" || source.contains(&format!("mod {module};")), "{name} is not in main.rs");
    }
}
