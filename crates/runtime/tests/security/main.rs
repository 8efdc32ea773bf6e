//! One test for each published flaw of runc and crun that a runtime of this kind can have, named after it.
//!
//! Each does what the flaw's report tells, on a bundle, and passes when nothing comes of it. For each there is a patch in `guards` that
//! takes out of the sources what keeps it from succeeding: `cargo xtask guards` applies one after the other and requires the test to
//! fail, so that no test passes for another reason than the one it is there for.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    dead_code,
    missing_docs,
    unreachable_pub
)]

#[macro_use]
#[path = "../oci/under_test.rs"]
mod under_test;
#[path = "../oci/bundle.rs"]
mod bundle;
#[path = "../oci/socket.rs"]
mod socket;

mod descriptors;
mod kernel_files;
mod places;
mod privileges;

/// A test whose guard is not known proves nothing, and a patch without a test is of a test that was lost.
#[test]
fn every_flaw_has_a_test_and_a_patch_of_its_guard() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/security");
    let Ok(files) = std::fs::read_dir(&directory) else {
        println!("SKIP: every_flaw_has_a_test_and_a_patch_of_its_guard: the sources are not here");
        return;
    };
    let mut tests = Vec::new();
    for file in files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some()) {
        let module = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let named = module == "main" || include_str!("main.rs").contains(&format!("mod {module};\n"));
        assert!(named, "{} is not named in main.rs", file.display());
        let text = std::fs::read_to_string(&file).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("fn cve_")?.split_once('('));
        tests.extend(names.map(|(name, _)| format!("cve_{name}")));
    }
    let patches = std::fs::read_dir(directory.join("guards")).unwrap();
    let mut patches: Vec<String> = patches
        .map(|patch| patch.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    tests.sort();
    patches.sort();
    assert_eq!(tests, patches);
}
