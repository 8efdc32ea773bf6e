//! What the tests and benchmarks read: images and archives made by other people's tools, and the virtual machine's
//! disk. Nothing of it is checked in; it is made once per target directory.
//!
//! | file | what it is |
//! |---|---|
//! | `busybox/` | a root file system with a static busybox |
//! | `busybox.oci/`, `busybox-zstd.oci/` | OCI layouts with gzip and zstd layers, tag `latest` |
//! | `busybox.oci.tar`, `busybox-zstd.oci.tar` | the same as archives |
//! | `busybox.oci.tar.gz`, `busybox.oci.tar.zst` | the first archive, itself compressed |
//! | `busybox.docker.tar`, `busybox.podman.tar`, `busybox.docker-save.tar` | docker-archives of skopeo, podman and docker |
//! | `debian/` | Debian 12, minimal, with what the virtual machine needs |
//! | `debian.oci/`, `debian.oci.tar` | the same as an image |
//! | `bench.oci.tar` | 5 gzip layers with 60,000 files in 230 MB |
//! | `vm/` | kernel and disk of the virtual machine |

pub(crate) mod bench_archive;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process::{is_root, quiet, script};
use crate::workspace::Workspace;

/// Raised whenever a recipe below changes: fixtures of another version are made again.
const RECIPES: &str = "7";

/// A fixture's name and how to make it. A script gets the path to make as `$1`; it runs in the fixtures' directory.
enum Recipe {
    Script(&'static str),
    Function(fn(&Path) -> Result<()>),
}

/// In the order of their dependencies.
const FIXTURES: &[(&str, Recipe)] = &[
    ("busybox", Recipe::Script(include_str!("fixtures/busybox.sh"))),
    ("busybox.oci", Recipe::Script(include_str!("fixtures/busybox-oci.sh"))),
    (
        "busybox-zstd.oci",
        Recipe::Script(
            "skopeo --insecure-policy copy -q --dest-compress --dest-compress-format zstd oci:busybox.oci:latest oci:$1:latest",
        ),
    ),
    (
        "busybox.oci.tar",
        Recipe::Script("skopeo --insecure-policy copy -q oci:busybox.oci:latest oci-archive:$1:latest"),
    ),
    (
        "busybox-zstd.oci.tar",
        Recipe::Script("skopeo --insecure-policy copy -q oci:busybox-zstd.oci:latest oci-archive:$1:latest"),
    ),
    ("busybox.oci.tar.gz", Recipe::Script("gzip -nc busybox.oci.tar > $1")),
    ("busybox.oci.tar.zst", Recipe::Script("zstd -qc busybox.oci.tar > $1")),
    (
        "busybox.docker.tar",
        Recipe::Script(
            "skopeo --insecure-policy copy -q oci:busybox.oci:latest docker-archive:$1:docker.io/library/busybox:latest",
        ),
    ),
    ("busybox.podman.tar", Recipe::Script(include_str!("fixtures/podman-save.sh"))),
    ("busybox.docker-save.tar", Recipe::Script(include_str!("fixtures/docker-save.sh"))),
    ("debian", Recipe::Script(include_str!("fixtures/debian.sh"))),
    ("debian.oci", Recipe::Script(include_str!("fixtures/debian-oci.sh"))),
    (
        "debian.oci.tar",
        Recipe::Script("skopeo --insecure-policy copy -q oci:debian.oci:latest oci-archive:$1:latest"),
    ),
    ("bench.oci.tar", Recipe::Function(bench_archive::make)),
    ("vm", Recipe::Script(include_str!("fixtures/vm.sh"))),
];

/// Makes the fixtures that are missing.
pub(crate) fn make_all(workspace: &Workspace) -> Result<()> {
    let directory = workspace.fixtures();
    let stamp = directory.join(".recipes");
    if directory.exists() && fs_err::read_to_string(&stamp).ok().as_deref() != Some(RECIPES) {
        fs_err::remove_dir_all(&directory)?;
    }
    fs_err::create_dir_all(&directory)?;
    fs_err::write(&stamp, RECIPES)?;
    for (name, recipe) in FIXTURES {
        let path = directory.join(name);
        if !path.exists() {
            make(&directory, &path, recipe)?;
        }
    }
    Ok(())
}

/// Makes one fixture under another name and renames it, so that one half made is never taken for whole.
fn make(directory: &Path, path: &Path, recipe: &Recipe) -> Result<()> {
    if !is_root() {
        let what = format!("only root can make the fixture {}", path.display());
        return Err(Error::Missing { what, remedy: "as root: cargo xtask setup".into() });
    }
    eprintln!("making {}", path.display());
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    quiet(&mut remove(&partial))?;
    match recipe {
        Recipe::Script(text) => quiet(script(text, [&partial]).current_dir(directory))?,
        Recipe::Function(function) => function(&partial)?,
    }
    Ok(fs_err::rename(&partial, path)?)
}

fn remove(path: &Path) -> Command {
    crate::process::command("rm", [Path::new("-rf"), path])
}
