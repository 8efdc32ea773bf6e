//! Programs that the runtime runs at points of a container's life: config.md, "POSIX-platform Hooks".

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::absent::null_is_default;

/// `hooks`: what is run, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// In the runtime's namespaces, after the container's are made (deprecated in favour of the next three).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after the container's are made and before `pivot_root`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces before `pivot_root`; the paths are the runtime's.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub create_container: Vec<Hook>,
    /// In the container, just before its program; the paths are the container's.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the program was started.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container is deleted.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// The points at which hooks run, as the specification names them and in its order.
    pub const NAMES: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

    /// Every list of hooks with its name.
    pub fn all(&self) -> [(&'static str, &[Hook]); 6] {
        let [prestart, create_runtime, create_container, start_container, poststart, poststop] = Self::NAMES;
        [
            (prestart, &self.prestart),
            (create_runtime, &self.create_runtime),
            (create_container, &self.create_container),
            (start_container, &self.start_container),
            (poststart, &self.poststart),
            (poststop, &self.poststop),
        ]
    }
}

/// One program to run. It gets the container's state on its standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments with its name as the first; none are only the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// Its whole environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Seconds until it is killed and has failed; none is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
