//! How an OCI runtime behaves: every command in every state with its texts, and every property of the runtime
//! specification, set and then observed from inside the container or in the control groups.
//!
//! The runtime is `RUNTIME`, a path or a name on PATH, else `coracle-runtime`. The suite passes on runc 1.1.5; what that
//! does not have yet is listed in [`under_test::NEWER`] and skipped there. Needs root and a static busybox.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub
)]

#[macro_use]
mod under_test;
mod attributes;
mod bundle;
mod checkpoint;
mod fallback;
mod life;
mod properties;
mod socket;
mod stress;
mod systemd;
mod table;
mod texts;

/// A file that no `mod` line names would never be run.
#[test]
fn every_file_of_the_suite_is_named() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oci");
    for (directory, source) in [
        (directory.clone(), include_str!("main.rs")),
        (directory.join("properties"), include_str!("properties/mod.rs")),
    ] {
        let Ok(files) = std::fs::read_dir(&directory) else {
            println!("SKIP: oci::every_file_of_the_suite_is_named: the sources are not here");
            return;
        };
        for file in files {
            let name = file.unwrap().file_name().into_string().unwrap();
            let module = name.trim_end_matches(".rs");
            let named = module == "main" || module == "mod" || source.contains(&format!("mod {module};\n"));
            assert!(named, "{name} is not named in {}", directory.display());
        }
    }
}
