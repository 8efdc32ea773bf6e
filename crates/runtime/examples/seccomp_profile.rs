//! Prints docker's default filter for docker's default capabilities as `linux.seccomp` of an OCI configuration.

use runtime::seccomp::{docker_default, kernel_version};

/// The capabilities that docker gives a container by default.
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string(&docker_default(DEFAULT_CAPABILITIES, kernel_version()))?);
    Ok(())
}
