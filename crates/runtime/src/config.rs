//! A bundle's configuration: read, and checked as a whole before anything is made.
//!
//! Each rule is one of the specification's (config.md, config-linux.md) or one that runc adds to keep a container from
//! changing what is not its own. What only the machine can say, such as whether a path exists, is left to the step
//! that needs it.

mod error;
mod fuzz;
mod linux;
mod mounts;
mod process;
mod seccomp;
mod sysctl;

use std::path::Path;

use crate::features::VERSION_MAJOR;
use crate::spec::{Hooks, Linux, NamespaceKind, Process, Spec};

pub use error::{Error, Result, Warning};
pub use fuzz::fuzz_config;
pub(crate) use sysctl::sysctl_file;
pub use sysctl::{is_ipc_parameter, is_network_parameter};

/// Reads `config.json` of the bundle in this directory. It is not checked yet: [`validate`].
pub fn read(bundle: &Path) -> crate::Result<Spec> {
    let file = bundle.join("config.json");
    let text = match fs_err::read(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotFound { file }.into());
        }
        other => other?,
    };
    from_bytes(&text)
}

/// Reads the text of a `config.json`. It is not checked yet: [`validate`].
pub fn from_bytes(text: &[u8]) -> crate::Result<Spec> {
    Ok(parse("config.json", text)?)
}

/// Reads a process, as `exec --process` has it. It is not checked yet: [`validate_process`].
pub fn read_process(file: &Path) -> crate::Result<Process> {
    Ok(parse(&file.display().to_string(), &fs_err::read(file)?)?)
}

fn parse<T: serde::de::DeserializeOwned>(file: &str, text: &[u8]) -> Result<T> {
    let format = |path: String, error: &serde_json::Error| {
        let at = if path == "." { String::new() } else { format!("{path}: ") };
        Error::Format { file: file.to_owned(), reason: format!("{at}{error}"), path }
    };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| format(error.path().to_string(), error.inner()))?;
    deserializer.end().map_err(|error| format(".".to_owned(), &error))?;
    Ok(parsed)
}

/// Checks a configuration. What is passed over or mended is told as warnings.
pub fn validate(spec: &Spec) -> crate::Result<Vec<Warning>> {
    Ok(check(spec)?)
}

/// Checks a process that is to join a running container.
pub fn validate_process(process: &Process) -> crate::Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    process::validate(process, "process", &mut warnings)?;
    Ok(warnings)
}

fn check(spec: &Spec) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    version(&spec.oci_version)?;
    if spec.root.as_ref().is_none_or(|root| root.path.as_os_str().is_empty()) {
        let reason = "a container has a root file system";
        return Err(Error::Missing { path: "root.path".to_owned(), reason });
    }
    let Some(process) = &spec.process else {
        return Err(Error::Missing { path: "process".to_owned(), reason: "it is what the container runs" });
    };
    process::validate(process, "process", &mut warnings)?;
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    names(spec, linux)?;
    mounts::validate(&spec.mounts, linux, &mut warnings)?;
    hooks(spec.hooks.as_ref())?;
    linux::validate(linux, &mut warnings)?;
    sysctl::validate(linux)?;
    linux.seccomp.as_ref().map_or(Ok(()), seccomp::validate)?;
    Ok(warnings)
}

/// Semantic versions within the same major one are compatible; a runtime of 1.3 reads 1.9 and passes over what is new in it.
fn version(text: &str) -> Result<()> {
    let wrong = |reason| Err(Error::Version { value: text.to_owned(), reason });
    let core = text.split_once(['-', '+']).map_or(text, |(core, _)| core);
    let is_number = |part: &str| {
        let plain = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        plain && !part.is_empty()
    };
    let parts: Vec<&str> = core.split('.').collect();
    match parts.as_slice() {
        parts if parts.len() != 3 || !parts.iter().all(|part| is_number(part)) => {
            wrong("not a semantic version, as in 1.2.0")
        }
        [major, ..] if *major != VERSION_MAJOR => wrong("another major version"),
        _ => Ok(()),
    }
}

/// Host and domain name.
fn names(spec: &Spec, linux: &Linux) -> Result<()> {
    for (path, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if let Some(value) = name {
            needs(linux, NamespaceKind::Uts, path, value)?;
        }
    }
    Ok(())
}

fn hooks(hooks: Option<&Hooks>) -> Result<()> {
    for (name, list) in hooks.iter().flat_map(|hooks| hooks.all()) {
        for (place, hook) in list.iter().enumerate() {
            let path = format!("hooks.{name}[{place}]");
            absolute(&format!("{path}.path"), &hook.path)?;
            if let Some(timeout) = hook.timeout {
                range(&format!("{path}.timeout"), timeout, 1, i64::MAX)?;
            }
        }
    }
    Ok(())
}

/// Refuses what would change the host: it needs a namespace that the container gets or joins.
fn needs(linux: &Linux, kind: NamespaceKind, path: &str, value: &str) -> Result<()> {
    match linux.namespace(kind) {
        Some(_) => Ok(()),
        None => Err(Error::NeedsNamespace { path: path.to_owned(), value: value.to_owned(), kind }),
    }
}

fn absolute(path: &str, value: &Path) -> Result<()> {
    match value.is_absolute() {
        true => Ok(()),
        false => Err(Error::NotAbsolute { path: path.to_owned(), value: value.to_owned() }),
    }
}

fn range(path: &str, value: i64, least: i64, most: i64) -> Result<()> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::Range { path: path.to_owned(), value, least, most }),
    }
}

/// A value's name in JSON.
pub(crate) fn json_name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
