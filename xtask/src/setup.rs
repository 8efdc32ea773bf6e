//! `cargo xtask setup`: what the tests and benchmarks need of the machine.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fixtures;
use crate::process::{capture, command, is_root, run};
use crate::workspace::Workspace;

/// What building needs, as Debian packages: a linker and C's headers.
pub(crate) const BUILD_PACKAGES: &[&str] = &["gcc", "libc6-dev"];

/// What the tests and benchmarks need beside that.
const TEST_PACKAGES: &[&str] = &[
    // peers, which the tests compare with and the benchmarks measure
    "runc",
    "crun",
    "podman",
    "buildah",
    "skopeo",
    "umoci",
    "hyperfine",
    "strace",
    "time",
    // images and archives
    "mmdebstrap",
    "busybox-static",
    "zstd",
    "jq",
    "attr",
    "libcap2-bin",
    "uidmap",
    // registries
    "docker-registry",
    "apache2-utils",
    "openssl",
    // the runtime's callers, what they run in, and what asks the CRI
    "containerd",
    "docker.io",
    "tini",
    "curl",
    // 32-bit test programs for the seccomp filter
    "gcc-multilib",
    "libseccomp-dev",
    // the virtual machine with the oldest promised kernel
    "qemu-system-x86",
    "e2fsprogs",
    "cpio",
];

/// The rustup components that `ci` needs.
const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")];

/// Installs what is missing and makes the fixtures.
pub(crate) fn setup(workspace: &Workspace) -> Result<()> {
    install(BUILD_PACKAGES)?;
    install(TEST_PACKAGES)?;
    for (component, program) in COMPONENTS {
        if !crate::process::exists(program) {
            run(&mut command("rustup", ["component", "add", component]))?;
        }
    }
    fixtures::make_all(workspace)
}

/// Installs those of `packages` that are missing. Does nothing, and needs no root, when none is.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        let what = format!("these Debian packages are missing: {}", missing.join(" "));
        return Err(Error::Missing { what, remedy: format!("as root: apt-get update && {line}") });
    }
    eprintln!("installing {}", missing.join(" "));
    let _services = NoServices::until_dropped()?;
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-qq", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    run(command("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Keeps packages from starting their daemons: dockerd for one would write rules for the packet filter, and the tests start their own.
struct NoServices(Option<&'static Path>);

impl NoServices {
    /// Says so in the file that invoke-rc.d(8) asks, if the machine has none of its own; what that one says stays.
    fn until_dropped() -> Result<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        // 101: the action is not allowed
        fs_err::write(policy, "#!/bin/sh\nexit 101\n")?;
        let ours = Self(Some(policy));
        fs_err::set_permissions(policy, Permissions::from_mode(0o755))?;
        Ok(ours)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.map(fs_err::remove_file) {
            eprintln!("xtask: {error}");
        }
    }
}

/// Those of `packages` that dpkg does not know as installed.
fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if !crate::process::exists("dpkg-query") {
        let what = "dpkg-query is missing: this is not a Debian machine".to_owned();
        let remedy =
            format!("install what these Debian packages hold by other means: {}", packages.join(" "));
        return Err(Error::Missing { what, remedy });
    }
    let format = "-f=${db:Status-Status} ${Package}\n";
    // dpkg-query --show without a pattern lists every package and never fails because one is unknown.
    let listing = capture(&mut command("dpkg-query", ["--show", format]))?;
    let installed =
        |package: &str| listing.lines().any(|line| line.strip_prefix("installed ") == Some(package));
    Ok(packages.iter().copied().filter(|package| !installed(package)).collect())
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn missing_package_is_found() {
        assert_eq!(missing(&["dpkg", "coracle-no-such-package"]).unwrap(), ["coracle-no-such-package"]);
    }
}
