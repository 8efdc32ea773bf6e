//! How an image came about, step by step, as its configuration tells.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::Result;
use crate::oci::null_as_empty;
use crate::store::{ImageRecord, LayerRecord, Store, read_record};

/// A step in the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// When it was done (RFC 3339).
    pub created: Option<String>,
    /// The command that did it.
    pub created_by: String,
    /// Who did it.
    pub author: String,
    /// What was noted about it.
    pub comment: String,
    /// The layer that it made; None for a step that changed only the configuration.
    pub layer: Option<LayerSize>,
}

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSize {
    /// The digest of its archive.
    pub diff_id: Digest,
    /// Bytes of all its files.
    pub size: u64,
}

/// An entry of `history` in a configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    created: Option<String>,
    #[serde(deserialize_with = "null_as_empty")]
    created_by: String,
    #[serde(deserialize_with = "null_as_empty")]
    author: String,
    #[serde(deserialize_with = "null_as_empty")]
    comment: String,
    #[serde(deserialize_with = "null_as_empty")]
    empty_layer: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct History {
    #[serde(deserialize_with = "null_as_empty")]
    history: Vec<Entry>,
}

impl Store {
    /// The image's id, and the steps in which it was made, the first one first.
    ///
    /// Layers that the history does not tell of, or all of them where it contradicts their number, stand for themselves.
    pub fn history(&self, name: &str) -> Result<(Digest, Vec<Step>)> {
        let record = self.named_record(name)?;
        let steps = self.steps(&record)?;
        Ok((record.id, steps))
    }

    /// The labels of an image's configuration.
    pub fn labels(&self, id: Digest) -> Result<BTreeMap<String, String>> {
        Ok(self.config(id)?.config.labels)
    }

    pub(crate) fn layer_record(&self, key: &str) -> Result<LayerRecord> {
        read_record(&self.layer_path(key).join("layer.json"))
    }

    pub(crate) fn steps(&self, record: &ImageRecord) -> Result<Vec<Step>> {
        let history: History = self.config_as(record.id)?;
        let mut layers = Vec::new();
        for key in &record.layers {
            let layer = self.layer_record(key)?;
            layers.push(LayerSize { diff_id: layer.diff_id, size: layer.size });
        }
        Ok(steps(history.history, layers))
    }
}

fn steps(history: Vec<Entry>, layers: Vec<LayerSize>) -> Vec<Step> {
    let told = history.iter().filter(|entry| !entry.empty_layer).count();
    let of_layer = |layer| Step { layer: Some(layer), ..Step::default() };
    if told > layers.len() {
        return layers.into_iter().map(of_layer).collect();
    }
    // Some tools write no history for the layers of the image that they began with.
    let mut layers = layers.into_iter();
    let untold = layers.len() - told;
    let mut steps: Vec<Step> = layers.by_ref().take(untold).map(of_layer).collect();
    steps.extend(history.into_iter().map(|entry| Step {
        layer: if entry.empty_layer { None } else { layers.next() },
        created: entry.created,
        created_by: entry.created_by,
        author: entry.author,
        comment: entry.comment,
    }));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_belongs_to_one_step() {
        let layer = |text: &str| LayerSize { diff_id: Digest::of(text.as_bytes()), size: 1 };
        let read = |text: &str| serde_json::from_str::<History>(text).unwrap().history;
        let told =
            r#"{"history":[{"created_by":"ADD"},{"created_by":"CMD","empty_layer":true},{"comment":null}]}"#;
        let of = |text: &str, layers: &[&str]| -> Vec<(String, Option<Digest>)> {
            let steps = steps(read(text), layers.iter().map(|text| layer(text)).collect());
            steps.into_iter().map(|step| (step.created_by, step.layer.map(|layer| layer.diff_id))).collect()
        };
        let id = |text: &str| Some(Digest::of(text.as_bytes()));
        let by = |text: &str, id| (text.to_owned(), id);
        assert_eq!(of(told, &["a", "b"]), [by("ADD", id("a")), by("CMD", None), by("", id("b"))]);
        assert_eq!(
            of(told, &["z", "a", "b"]),
            [by("", id("z")), by("ADD", id("a")), by("CMD", None), by("", id("b"))]
        );
        assert_eq!(of(told, &["a"]), [by("", id("a"))]);
        assert_eq!(of("{}", &["a"]), [by("", id("a"))]);
        assert_eq!(of(r#"{"history":null}"#, &[]), []);
    }
}
