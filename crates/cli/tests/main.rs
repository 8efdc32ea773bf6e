//! The command line end to end: real kernel, real images. One binary, so that it is linked once.
//!
//! Needs the programs that `cargo xtask setup` installs and the fixtures it makes; `cargo xtask test` names both.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub
)]

#[path = "suite/anatomy.rs"]
mod anatomy;
#[path = "suite/apparmor.rs"]
mod apparmor;
#[path = "suite/cdi.rs"]
mod cdi;
#[path = "suite/changes.rs"]
mod changes;
#[path = "suite/check.rs"]
mod check;
#[path = "suite/copy.rs"]
mod copy;
#[path = "suite/coracle.rs"]
mod coracle;
#[path = "suite/dockerd.rs"]
mod dockerd;
#[path = "suite/errors.rs"]
mod errors;
#[path = "suite/explain.rs"]
mod explain;
#[path = "suite/explain_image.rs"]
mod explain_image;
#[path = "suite/files.rs"]
mod files;
#[path = "suite/history.rs"]
mod history;
#[path = "suite/host.rs"]
mod host;
#[path = "suite/images.rs"]
mod images;
#[path = "suite/isolation.rs"]
mod isolation;
#[path = "suite/layered.rs"]
mod layered;
#[path = "suite/life.rs"]
mod life;
#[path = "suite/limits.rs"]
mod limits;
#[path = "suite/options.rs"]
mod options;
#[path = "suite/prune.rs"]
mod prune;
#[path = "suite/pull.rs"]
mod pull;
#[path = "suite/push.rs"]
mod push;
#[path = "suite/registry.rs"]
mod registry;
#[path = "suite/removal.rs"]
mod removal;
#[path = "suite/rootless.rs"]
mod rootless;
#[path = "suite/run.rs"]
mod run;
#[path = "suite/running.rs"]
mod running;
#[path = "suite/save.rs"]
mod save;
#[path = "suite/security.rs"]
mod security;
#[path = "suite/systemd.rs"]
mod systemd;
#[path = "suite/talk.rs"]
mod talk;
#[path = "suite/tokens.rs"]
mod tokens;

#[path = "suite/usage.rs"]
mod usage;

/// A file that no line above names would never be run.
#[test]
fn every_file_of_the_suite_is_named_here() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let source = include_str!("main.rs");
    let Ok(files) = std::fs::read_dir(&directory) else {
        println!("SKIP: every_file_of_the_suite_is_named_here: the sources are not here");
        return;
    };
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(source.contains(&format!("\"suite/{name}\"")), "{name} is not in tests/main.rs");
    }
}
