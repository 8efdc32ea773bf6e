//! A container's changes become a layer, and that on top of its image's a new image.

use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use fs_err::File;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::changes::Changes;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::import::{apply, rfc3339};
use crate::load::{HalfLayer, LoadOptions, Loaded, Unpacked};
use crate::oci::{Config, Descriptor, media};
use crate::plan::{PlannedLayer, plan};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::source::local;
use crate::staging::Staging;
use crate::store::{Store, to_json};
use crate::stream::Budget;

/// What the image of a container is to be.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// How a container of it runs; None: as one of the image that the container was made of.
    pub config: Option<Config>,
    /// Instructions as in a Dockerfile that change that: see [`Store::import`].
    pub changes: Vec<String>,
    /// Who made it.
    pub author: Option<String>,
    /// What its history says.
    pub message: Option<String>,
    /// The command that made the changes.
    pub created_by: String,
    /// Docker's media types in place of OCI's.
    pub docker: bool,
    /// Its name.
    pub name: Option<Reference>,
}

impl Store {
    /// Makes an image of what a container of the image `base` has changed.
    pub fn commit_changes(&self, base: Digest, changes: Changes, commit: &Commit) -> Result<Loaded> {
        self.staged(|staging| {
            let _hold = self.hold()?;
            self.commit_staged(base, changes, commit, staging)
        })
    }

    fn commit_staged(
        &self,
        base: Digest,
        changes: Changes,
        commit: &Commit,
        staging: &Staging,
    ) -> Result<Loaded> {
        let below = self.image_record(base)?;
        let mut descriptors = self.layer_descriptors(&below)?;
        let archive = staging.path.join("archive");
        let (diff_id, descriptor) = self.archive(&below.layers, changes, &archive)?;
        descriptors.push(descriptor);
        for descriptor in &mut descriptors {
            descriptor.media_type = media_type(&descriptor.media_type, commit.docker)?.to_owned();
        }
        let config = to_json(&self.committed_config(base, diff_id, commit)?);
        let id = Digest::of(&config);
        let mut plan = plan(id, config, descriptors.len(), &LoadOptions::default(), "the container")?;
        plan.names = commit.name.iter().map(|name| name.clone().or_latest()).collect();
        for descriptor in &descriptors[..descriptors.len() - 1] {
            let bytes = local("/dev/null".as_ref())?;
            plan.layers.push(PlannedLayer { descriptor: Some(descriptor.clone()), bytes });
        }
        plan.layers.push(PlannedLayer { descriptor: descriptors.last().cloned(), bytes: local(&archive)? });
        let manifest = manifest(&plan.documents[0].1, &descriptors, commit.docker);
        let kind = if commit.docker { media::DOCKER_MANIFEST } else { media::MANIFEST };
        let descriptor = Descriptor::of(&manifest, kind);
        plan.documents.push((descriptor.digest, manifest));
        (plan.target, plan.manifest) = (Some(descriptor.clone()), Some(descriptor));
        plan.below = Some(below.origin);
        let place = staging.path.join("layers");
        fs_err::create_dir(&place)?;
        let here = |key: &String| HalfLayer {
            path: place.join("below"),
            blob: None,
            sums: None,
            tree: Unpacked::Here(key.clone()),
        };
        let mut half: Vec<HalfLayer> = below.layers.iter().map(here).collect();
        let (budget, progress, top) =
            (Budget::new(LoadOptions::default().limits), Progress::default(), half.len());
        let path = place.join("top");
        fs_err::create_dir(&path)?;
        half.push(self.read_bytes(&plan, top, (None, false), (&budget, &progress), &path, &mut 0)?);
        let layers = self.complete(&plan, half)?;
        let record = self.commit(&plan, &layers, &place, staging)?;
        Ok(Loaded { names: plan.names, id: record.id })
    }

    /// Writes the compressed archive of the changes; gives the digest of the plain one, and what the manifest is to say of it.
    fn archive(
        &self,
        layers: &[String],
        changes: Changes,
        path: &std::path::Path,
    ) -> Result<(Digest, Descriptor)> {
        let stored = Digesting::new(BufWriter::with_capacity(128 << 10, File::create(path)?));
        let mut plain = Digesting::new(GzEncoder::new(stored, Level::default()));
        self.write_changes(layers, changes, &mut plain)?;
        let (encoder, diff_id, _) = plain.finish();
        let (mut file, digest, size) = encoder.finish()?.finish();
        file.flush()?;
        let descriptor = Descriptor {
            media_type: media::LAYER_GZIP.to_owned(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        };
        Ok((diff_id, descriptor))
    }

    /// The base's configuration with what is new; what is not read here stays as it is.
    fn committed_config(&self, base: Digest, diff_id: Digest, commit: &Commit) -> Result<Value> {
        let mut whole: Value = self.config_as(base)?;
        if !whole.is_object() || !whole["rootfs"].is_object() {
            return Err(Error::BadConfig { digest: base, reason: "it or its rootfs is no object" });
        }
        let mut config = match &commit.config {
            Some(config) => config.clone(),
            None => self.config(base)?.config,
        };
        for change in &commit.changes {
            apply(&mut config, change)?;
        }
        let bad = |reason| Error::BadConfig { digest: base, reason };
        if !whole["config"].is_object() {
            whole["config"] = json!({});
        }
        let known = whole["config"].as_object_mut().ok_or(bad("its config is no object"))?;
        // What is empty now is not written.
        for field in [
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Volumes",
            "WorkingDir",
            "Labels",
            "StopSignal",
        ] {
            known.remove(field);
        }
        if let Value::Object(fields) = serde_json::to_value(config).unwrap_or_default() {
            known.extend(fields);
        }
        let now = rfc3339(SystemTime::now());
        let diff_ids = whole["rootfs"]["diff_ids"].as_array_mut().ok_or(bad("its list of layers is none"))?;
        diff_ids.push(json!(diff_id));
        let mut step = json!({ "created": now, "created_by": commit.created_by });
        if let Some(author) = &commit.author {
            (step["author"], whole["author"]) = (json!(author), json!(author));
        }
        if let Some(message) = &commit.message {
            step["comment"] = json!(message);
        }
        whole["created"] = json!(now);
        match whole["history"].as_array_mut() {
            Some(history) => history.push(step),
            None => whole["history"] = json!([step]),
        }
        // docker's, of the container that the base was made by.
        if let Some(fields) = whole.as_object_mut() {
            fields.remove("container");
            fields.remove("container_config");
        }
        Ok(whole)
    }
}

/// A layer's media type in the form that is wanted.
fn media_type(known: &str, docker: bool) -> Result<&'static str> {
    const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    Ok(match (known, docker) {
        (media::LAYER | DOCKER, false) => media::LAYER,
        (media::LAYER | DOCKER, true) => DOCKER,
        (media::LAYER_ZSTD, false) => media::LAYER_ZSTD,
        (media::LAYER_ZSTD, true) => {
            return Err(Error::NoDockerForm { reason: "a layer of its image is compressed by zstd" });
        }
        (_, false) => media::LAYER_GZIP,
        (_, true) => DOCKER_GZIP,
    })
}

fn manifest(config: &[u8], layers: &[Descriptor], docker: bool) -> Vec<u8> {
    let (kind, config_kind) = match docker {
        true => (media::DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json"),
        false => (media::MANIFEST, media::CONFIG),
    };
    let config = Descriptor::of(config, config_kind);
    to_json(&json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers }))
}

/// A writer that digests what passes.
struct Digesting<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Digesting<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::finish(self.hash), self.count)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
