//! Which runtime is tested, and what an older one does not have.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// What runc has only since a version: the property and that version.
pub const NEWER: &[(&str, (u32, u32))] = &[
    ("domainname", (1, 2)),
    ("linux.memoryPolicy", (1, 4)),
    ("linux.netDevices", (1, 4)),
    ("linux.personality", (1, 2)),
    ("linux.resources.cpu.burst", (1, 2)),
    ("linux.resources.cpu.idle", (1, 2)),
    // Before, the words applied while the root was prepared, and are not seen on it.
    ("linux.rootfsPropagation", (1, 4)),
    ("linux.seccomp.flags", (1, 2)),
    ("linux.timeOffsets", (1, 2)),
    ("mounts.idmap", (1, 2)),
    ("process.execCPUAffinity", (1, 3)),
    ("process.ioPriority", (1, 2)),
    ("process.scheduler", (1, 2)),
];

/// The program under test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("RUNTIME") {
        return PathBuf::from(path);
    }
    match std::env::var_os("CORACLE_TEST_BIN_DIR") {
        Some(directory) => PathBuf::from(directory).join("coracle-runtime"),
        // target/<triple>/<profile>/deps/oci-… is where cargo puts this.
        None => std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("coracle-runtime"),
    }
}

/// The version, if it is runc.
pub fn runc() -> Option<(u32, u32)> {
    static VERSION: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Command::new(program()).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", program().display()));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut parts = text.strip_prefix("runc version ")?.split('.').map(|part| part.parse().unwrap());
        Some((parts.next()?, parts.next()?))
    })
}

/// Why this runtime cannot be asked for a property, if so.
pub fn lacks(property: &str) -> Option<String> {
    let (_, since) = NEWER.iter().find(|(name, _)| *name == property).unwrap_or_else(|| {
        panic!("{property} is not in the list of newer properties: a test of it needs no leave to run")
    });
    let (major, minor) = runc()?;
    ((major, minor) < *since)
        .then(|| format!("runc has {property} since {}.{}, this is {major}.{minor}", since.0, since.1))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The test's name as `oci::module::name`, whatever thread it runs in.
macro_rules! test_name {
    () => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        name.trim_end_matches("::here").trim_end_matches("::{{closure}}")
    }};
}

/// Says that this test is left out, and leaves it.
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIP: {}: {}", test_name!(), format!($($reason)*));
        return;
    }};
}

/// A fresh [`Bundle`](crate::bundle::Bundle), or leaves the test: `bundle!()`, or `bundle!("property")` of one that is
/// newer than the oldest runtime the suite runs on.
macro_rules! bundle {
    () => {{
        if !$crate::under_test::is_root() {
            skip!("needs root");
        }
        $crate::bundle::Bundle::new()
    }};
    ($property:literal) => {{
        if let Some(reason) = $crate::under_test::lacks($property) {
            skip!("{reason}");
        }
        bundle!()
    }};
}
