//! What a file says: plain structs, named as in the specification. Fields that it does not have are refused, as it asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::error::{Error, Result};

/// A file as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    pub cdi_version: String,
    pub kind: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    /// For a container that uses any of the devices.
    #[serde(default)]
    pub container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub name: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub container_edits: Edits,
}

/// Changes to a container's configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<DeviceNode>,
    pub mounts: Vec<Mount>,
    pub hooks: Vec<Hook>,
    pub additional_gids: Vec<u32>,
    pub intel_rdt: Option<IntelRdt>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceNode {
    /// In the container.
    pub path: PathBuf,
    /// On the host; none is the same path.
    pub host_path: Option<PathBuf>,
    /// Type and numbers; what is missing is the host's.
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    pub file_mode: Option<u32>,
    /// Some of `rwm`, or `none`; empty is all.
    #[serde(default)]
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub host_path: String,
    pub container_path: PathBuf,
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    pub hook_name: String,
    pub path: PathBuf,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    #[serde(rename = "l3CacheSchema")]
    pub l3_cache_schema: Option<String>,
    #[serde(rename = "memBwSchema")]
    pub mem_bw_schema: Option<String>,
    #[serde(rename = "enableCMT")]
    pub enable_cmt: bool,
    #[serde(rename = "enableMBM")]
    pub enable_mbm: bool,
}

/// Reads a file: JSON by its name, else YAML. It is not checked yet.
pub(super) fn read(path: &Path) -> Result<File> {
    let text = fs_err::read_to_string(path).map_err(|source| Error::File { source })?;
    let wrong = |device, field: String, reason| Error::Field { file: path.to_owned(), device, field, reason };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let document = if is_json { json(&text) } else { yaml(&text) };
    let mut document = document.map_err(|reason| wrong(None, "the text as a whole".to_owned(), reason))?;
    forget_nulls(&mut document);
    serde_path_to_error::deserialize(&document).map_err(|error| {
        let device = device_at(&document, &error.path().to_string());
        wrong(device, error.path().to_string(), error.inner().to_string())
    })
}

fn json(text: &str) -> std::result::Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Octal numbers as in YAML 1.1, which vendors' tools write for `fileMode`.
fn yaml(text: &str) -> std::result::Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// Programs written in Go write `null` where there is nothing.
fn forget_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(forget_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_nulls),
        _ => {}
    }
}

/// The name of the device that a field belongs to.
fn device_at(document: &Value, field: &str) -> Option<String> {
    let place: usize = field.strip_prefix("devices[")?.split(']').next()?.parse().ok()?;
    Some(document.get("devices")?.get(place)?.get("name")?.as_str()?.to_owned())
}
