//! What is made anew of a copy's manifests and layers on the way: layers compressed, documents in docker's or OCI's form.
//!
//! What need not change is left as it is, byte by byte. The configuration never changes, and so neither does the image's id.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use fs_err::File;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::compress::{Algorithm, compress};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::freight::{Blob, Freight, Passage, Payload, Root, read_manifest};
use crate::oci::{Descriptor, Document, media};
use crate::progress::{Progress, Stage};
use crate::store::to_json;
use crate::stream::{Budget, Limits, Plain, Range, Stored};
use crate::unpack;

/// How manifests and layers are to be where they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Which layers are compressed.
    pub layers: Layers,
    /// By what.
    pub algorithm: Algorithm,
    /// How much; None: as is usual.
    pub level: Option<i32>,
    /// Whose media types manifests have; None: as they are.
    pub form: Option<ManifestForm>,
}

impl Recipe {
    /// Everything as it is.
    pub const VERBATIM: Self =
        Self { layers: Layers::Verbatim, algorithm: Algorithm::Gzip, level: None, form: None };
}

/// Which layers are compressed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// None.
    Verbatim,
    /// Plain ones.
    Plain,
    /// All that are not compressed by the algorithm.
    Other,
    /// All.
    All,
}

/// Whose words manifests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestForm {
    /// OCI's image specification.
    Oci,
    /// docker's version 2, schema 2.
    Docker,
}

/// Media types of docker's that have one of OCI's for the same thing.
const SAME: [(&str, &str); 5] = [
    (media::DOCKER_MANIFEST, media::MANIFEST),
    (media::DOCKER_LIST, media::INDEX),
    (media::DOCKER_CONFIG, media::CONFIG),
    (media::DOCKER_LAYER, media::LAYER),
    (media::DOCKER_LAYER_GZIP, media::LAYER_GZIP),
];

impl Freight {
    /// Applies a recipe. Compressed layers are written below `place`.
    pub(crate) fn rewrite(&mut self, recipe: &Recipe, place: &Path, progress: &Progress) -> Result<()> {
        if recipe.layers == Layers::Verbatim && recipe.form.is_none() {
            return Ok(());
        }
        let mut renamed: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for (descriptor, bytes) in std::mem::take(&mut self.documents) {
            let document = read_manifest(descriptor.digest, &bytes)?;
            let mut value: Value = serde_json::from_slice(&bytes).map_err(|source| Error::BadJson {
                document: format!("manifest {}", descriptor.digest),
                source,
            })?;
            match document {
                Document::Manifest { layers, .. } => {
                    for (at, layer) in layers.iter().enumerate() {
                        let new = self.compressed(layer, recipe, place, progress, &mut renamed)?;
                        rename(&mut value["layers"][at], &new);
                    }
                    reword(&mut value["config"], recipe);
                    value["layers"]
                        .as_array_mut()
                        .into_iter()
                        .flatten()
                        .for_each(|layer| reword(layer, recipe));
                }
                Document::Index(entries) => {
                    for (at, entry) in entries.iter().enumerate() {
                        rename(&mut value["manifests"][at], renamed.get(&entry.digest).unwrap_or(entry));
                    }
                }
            }
            let (new, bytes) = reformed(&descriptor, bytes, value, recipe)?;
            renamed.insert(descriptor.digest, new.clone());
            self.documents.push((new, bytes));
        }
        for Root { descriptor, .. } in &mut self.roots {
            if let Some(new) = renamed.get(&descriptor.digest) {
                (descriptor.digest, descriptor.size) = (new.digest, new.size);
                descriptor.media_type.clone_from(&new.media_type);
            }
        }
        Ok(())
    }

    /// What a layer is after the recipe; where it is compressed, the blob is another one then.
    fn compressed(
        &mut self,
        layer: &Descriptor,
        recipe: &Recipe,
        place: &Path,
        progress: &Progress,
        renamed: &mut BTreeMap<Digest, Descriptor>,
    ) -> Result<Descriptor> {
        if let Some(known) = renamed.get(&layer.digest) {
            return Ok(known.clone());
        }
        let found = self.blobs.iter().position(|blob| blob.descriptor.digest == layer.digest);
        let (Some(at), true) = (found, wants_compression(layer, recipe)) else { return Ok(layer.clone()) };
        let passage = Passage::new(&self.blobs[at], progress, at);
        passage.enter(Stage::Compressing);
        let (digest, size) = recompress(&passage, recipe, &place.join(layer.digest.hex()))?;
        let media_type = compressed_type(layer, recipe.algorithm)?.to_owned();
        let new = Descriptor { media_type, digest, size, ..layer.clone() };
        let file = Arc::new(File::open(place.join(layer.digest.hex()))?.into_parts().0.into());
        let payload = Payload::File(Range { file, offset: 0, length: size });
        self.blobs[at] = Blob { descriptor: new.clone(), payload, origin: layer.digest };
        progress.replace(at, digest, size);
        renamed.insert(layer.digest, new.clone());
        Ok(new)
    }
}

fn wants_compression(layer: &Descriptor, recipe: &Recipe) -> bool {
    let has = match layer.media_type.as_str() {
        media::LAYER | media::DOCKER_LAYER => None,
        media::LAYER_GZIP | media::DOCKER_LAYER_GZIP => Some(Algorithm::Gzip),
        media::LAYER_ZSTD => Some(Algorithm::Zstd),
        // What is no layer of an image is nobody's to change.
        _ => return false,
    };
    match recipe.layers {
        Layers::Verbatim => false,
        Layers::Plain => has.is_none(),
        Layers::Other => has != Some(recipe.algorithm),
        Layers::All => true,
    }
}

fn compressed_type(layer: &Descriptor, algorithm: Algorithm) -> Result<&'static str> {
    let is_docker = [media::DOCKER_LAYER, media::DOCKER_LAYER_GZIP].contains(&layer.media_type.as_str());
    match algorithm {
        Algorithm::Gzip if is_docker => Ok(media::DOCKER_LAYER_GZIP),
        Algorithm::Gzip => Ok(media::LAYER_GZIP),
        // A manifest of docker's that is not to become one of OCI's is refused when it is written.
        Algorithm::Zstd => Ok(media::LAYER_ZSTD),
    }
}

/// Reads a layer to its end, whatever compresses it now, and writes it as the recipe says.
fn recompress(passage: &Passage<'_>, recipe: &Recipe, path: &Path) -> Result<(Digest, u64)> {
    let name = passage.digest().to_string();
    let budget = Budget::new(Limits::default());
    let failed = |error: io::Error| match passage.failure() {
        Some(error) => error,
        None => unpack::io_error(&name, error),
    };
    let reader = passage.reader(0, passage.size()).map_err(failed)?;
    let mut plain = Plain::new(Stored::new(reader, None), &budget).map_err(failed)?;
    let mut output = Summed { file: File::create(path)?, hash: Sha256::new(), count: 0 };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    compress(&mut plain, &mut output, recipe.algorithm, recipe.level, threads).map_err(failed)?;
    plain.finish().map_err(failed)?;
    passage.finish()?;
    Ok((Digest::finish(output.hash), output.count))
}

struct Summed {
    file: File,
    hash: Sha256,
    count: u64,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes an entry name another blob. All else that it says stays.
fn rename(entry: &mut Value, new: &Descriptor) {
    if entry["digest"] != json!(new.digest)
        || (entry["mediaType"].is_string() && entry["mediaType"] != json!(new.media_type))
    {
        entry["digest"] = json!(new.digest);
        entry["size"] = json!(new.size);
        entry["mediaType"] = json!(new.media_type);
    }
}

/// Gives a thing the media type that it has in the form that is wanted.
fn reword(thing: &mut Value, recipe: &Recipe) {
    let Some(form) = recipe.form else { return };
    let Some(kind) = thing["mediaType"].as_str() else { return };
    let found = SAME.iter().find(|(docker, oci)| kind == *docker || kind == *oci);
    if let Some((docker, oci)) = found {
        thing["mediaType"] = json!(if form == ManifestForm::Docker { docker } else { oci });
    }
}

/// A document after what it names was renamed; the very bytes that it had where nothing was.
fn reformed(
    descriptor: &Descriptor,
    bytes: Vec<u8>,
    mut value: Value,
    recipe: &Recipe,
) -> Result<(Descriptor, Vec<u8>)> {
    let digest = descriptor.digest;
    // It may leave out what it is.
    if recipe.form.is_some() {
        value["mediaType"] = json!(descriptor.media_type);
        reword(&mut value, recipe);
    }
    let kind = value["mediaType"].as_str().unwrap_or(&descriptor.media_type).to_owned();
    if kind == media::DOCKER_MANIFEST || kind == media::DOCKER_LIST {
        let entries = value["layers"].as_array().into_iter().flatten();
        let words: Vec<&str> =
            entries.chain([&value["config"]]).filter_map(|one| one["mediaType"].as_str()).collect();
        if words.contains(&media::LAYER_ZSTD) {
            return Err(Error::NoSuchForm {
                digest,
                reason: "docker's manifests have no layers compressed by zstd",
            });
        }
        let is_artifact = value.get("artifactType").is_some() || value.get("subject").is_some();
        if recipe.form == Some(ManifestForm::Docker)
            && (is_artifact || words.iter().any(|word| word.starts_with("application/vnd.oci.")))
        {
            return Err(Error::NoSuchForm {
                digest,
                reason: "docker's manifests describe nothing but images",
            });
        }
        if let Some(fields) = value.as_object_mut().filter(|_| recipe.form.is_some()) {
            fields.remove("annotations");
        }
    }
    let before: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if before == value {
        return Ok((descriptor.clone(), bytes));
    }
    let bytes = to_json(&value);
    let new = Descriptor::of(&bytes, &kind);
    Ok((
        Descriptor {
            platform: descriptor.platform.clone(),
            annotations: descriptor.annotations.clone(),
            ..new
        },
        bytes,
    ))
}
