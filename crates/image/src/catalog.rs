//! Names of images: what they mean, new ones, and taking them away.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::durable;
use crate::error::{Error, Result};
use crate::host;
use crate::listing::Listed;
use crate::oci::{Config, Descriptor, ImageConfig, Platform};
use crate::reference::Reference;
use crate::staging::Staging;
use crate::store::{ImageRecord, PlatformImage, ReferenceRecord, RootDirectory, Store, read_record, to_json};

/// An image that a container can be made of.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// The name by which it was found; empty when it was an id. `Store::inspect` gives all names.
    pub names: Vec<Reference>,
    /// How a container of it runs.
    pub config: Config,
    /// What it is for.
    pub platform: Platform,
    /// The unpacked layers that overlayfs shall merge, bottom first; none twice.
    pub layers: Vec<PathBuf>,
    /// What the root directory shall be: the layers' own roots do not say.
    pub root: RootDirectory,
    /// Union mounts on directories below the root. Only the built-in image `host` has any.
    pub grafts: Vec<Graft>,
}

/// A directory of an image that is a union mount of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graft {
    /// Where, for example `/usr`.
    pub target: PathBuf,
    /// The directories that are merged there, bottom first.
    pub layers: Vec<PathBuf>,
}

/// What a name means.
pub(crate) struct Meaning {
    /// A manifest or index.
    pub(crate) target: Descriptor,
    /// The manifest of one image.
    pub(crate) image: Descriptor,
    /// The name by which it was found; none where that was an id.
    pub(crate) names: Vec<Reference>,
    /// The repository that the image's blobs were fetched from last.
    pub(crate) repository: Option<String>,
}

/// A line of `images`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The name without tag as people write it; None for an image that no name means.
    pub repository: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The digest of the manifest or index that the name means.
    pub digest: Digest,
    /// The digest of the configuration.
    pub id: Digest,
    /// When the image was made (RFC 3339), as the image says.
    pub created: Option<String>,
    /// Bytes of all files of all layers.
    pub size: u64,
    /// What it is for.
    pub platform: Platform,
}

/// All that is known of an image.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The digest of its configuration.
    pub id: Digest,
    /// All its names.
    pub names: Vec<Reference>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The whole configuration.
    pub config: ImageConfig,
    /// The configuration as it came, with what is not read here.
    pub config_json: serde_json::Value,
    /// Bytes of all files of all layers.
    pub size: u64,
    /// The unpacked layers, bottom first.
    pub layers: Vec<PathBuf>,
}

/// What `remove` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// This name means nothing any more.
    Untagged(Reference),
    /// This image is gone, with the layers that no other image has.
    Deleted(Digest),
}

/// What a user's words lead to.
struct Found {
    /// The name's record, when it was a name.
    name: Option<ReferenceRecord>,
    images: Vec<PlatformImage>,
}

impl Store {
    /// Finds the image that `name` means: a name with or without a tag, a name with a digest, or the beginning of an id.
    ///
    /// For a multi-platform name `platform` chooses; None means this machine's platform, or the only one that is here. Reads
    /// three small files and writes nothing.
    ///
    /// `host` is the image of this machine itself, unless an image was loaded under that name.
    pub fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        if self.is_built_in(name)? {
            return self.host_image(platform);
        }
        let (record, names) = self.find_image(name, platform)?;
        let config = self.config(record.id)?;
        Ok(Image {
            id: record.id,
            names,
            config: config.config,
            platform: record.platform,
            layers: record.mounted.iter().map(|key| self.layer_path(key).join("fs")).collect(),
            root: record.root,
            grafts: Vec::new(),
        })
    }

    /// All that is known of an image.
    pub fn inspect(&self, name: &str, platform: Option<&Platform>) -> Result<Inspection> {
        if self.is_built_in(name)? {
            return self.inspect_host(platform);
        }
        let (record, _) = self.find_image(name, platform)?;
        let path = self.blob_path(record.id);
        let bad =
            |error: serde_json::Error| Error::BadRecord { path: path.clone(), reason: error.to_string() };
        Ok(Inspection {
            id: record.id,
            names: self.names_of(record.id)?,
            manifest: record.manifest.digest,
            config: self.config(record.id)?,
            config_json: serde_json::from_slice(&fs_err::read(&path)?).map_err(bad)?,
            size: record.size,
            layers: record.layers.iter().map(|key| self.layer_path(key).join("fs")).collect(),
        })
    }

    /// All images, one line for each name and platform, sorted by name; those without a name last.
    pub fn images(&self) -> Result<Vec<Summary>> {
        let listing = self.listing()?;
        let mut summaries = Vec::new();
        for reference in listing.names() {
            let name: Reference = reference.reference.parse()?;
            for PlatformImage { id, .. } in &reference.images {
                let Some(image) = listing.image(*id) else {
                    let reason = format!("the image {id} that it means is not here");
                    return Err(Error::BadRecord { path: self.reference_path(&name), reason });
                };
                let mut summary = summary(image, reference.target.digest);
                summary.repository = Some(name.repository().to_owned());
                summary.tag = name.tag().map(str::to_owned);
                summaries.push(summary);
            }
        }
        summaries.extend(listing.nameless().map(|image| summary(image, image.manifest.digest)));
        Ok(summaries)
    }

    /// Makes `target` mean what `source` means, all its platforms.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        self.refuse_built_in(source)?;
        self.staged(|staging| self.tag_staged(source, target, staging))
    }

    fn tag_staged(&self, source: &str, target: &Reference, staging: &Staging) -> Result<()> {
        let _commit = self.commit_lock()?;
        let found = self.find(source)?;
        let mut record = match (found.name, &found.images[..]) {
            (Some(record), _) => record,
            (None, [image, ..]) => {
                let target = self.image_record(image.id)?.manifest;
                ReferenceRecord { version: 1, reference: String::new(), target, images: found.images }
            }
            (None, []) => return Err(self.unknown(source)?),
        };
        let target = target.clone().or_latest();
        if target.digest().is_some() {
            let text = target.to_string();
            return Err(Error::BadReference { text, reason: "a new name has a tag, not a digest" });
        }
        record.reference = target.canonical();
        // What has a name is not to fail for want of space.
        let reserve = self.reserve(staging)?;
        staging.publish(&to_json(&record), &self.reference_path(&target))?;
        fs_err::remove_file(reserve)?;
        self.write_index()
    }

    /// Takes a name away, and the image with it when that was its last name; an id takes all names away. Layers and blobs that
    /// no other image has are removed.
    ///
    /// Refused when `in_use` holds the image's id and the last name would go, and when an id has several names; `force` overrides
    /// the second only, since a container cannot lose its layers. `in_use` is asked when no container can begin to use an image.
    pub fn remove<E: From<Error>>(
        &self,
        name: &str,
        force: bool,
        in_use: impl FnOnce() -> std::result::Result<BTreeSet<Digest>, E>,
    ) -> std::result::Result<Vec<Removed>, E> {
        self.refuse_built_in(name)?;
        let alone = self.hold_alone()?;
        let in_use = in_use()?;
        let mut alone = Some(alone);
        // A staging directory marks the work, so that what a killed removal has not reached goes with the next command.
        let removed = self.staged(|staging| {
            let removed = self.remove_marked(name, force, &in_use, Some(staging))?;
            // Files are deleted when nobody waits.
            alone = None;
            Ok(removed)
        });
        match removed {
            // There may be no space for the directory, nor for the index before something is gone: the removal, which makes
            // space, goes on unmarked.
            Err(error) if error.is_full() && alone.is_some() => {
                Ok(self.remove_marked(name, force, &in_use, None)?)
            }
            other => Ok(other?),
        }
    }

    fn remove_marked(
        &self,
        name: &str,
        force: bool,
        in_use: &BTreeSet<Digest>,
        staging: Option<&Staging>,
    ) -> Result<Vec<Removed>> {
        let _commit = self.commit_lock()?;
        let found = self.find(name)?;
        let ids: BTreeSet<Digest> = found.images.iter().map(|image| image.id).collect();
        let all = self.reference_records()?;
        let uses = |record: &ReferenceRecord| record.images.iter().any(|image| ids.contains(&image.id));
        let untag: Vec<&ReferenceRecord> = match &found.name {
            Some(name) => all.iter().filter(|record| record.reference == name.reference).collect(),
            None => all.iter().filter(|record| uses(record)).collect(),
        };
        if found.name.is_none() && untag.len() > 1 && !force {
            let names = untag.iter().map(|record| shown(&record.reference)).collect();
            return Err(Error::SeveralNames { id: name.to_owned(), names });
        }
        let gone: BTreeSet<Digest> = ids
            .iter()
            .filter(|id| {
                let has = |record: &&ReferenceRecord| record.images.iter().any(|image| image.id == **id);
                !all.iter()
                    .filter(has)
                    .any(|record| untag.iter().all(|other| other.reference != record.reference))
            })
            .copied()
            .collect();
        if !gone.is_disjoint(in_use) {
            return Err(Error::InUse { name: name.to_owned() });
        }
        let removed = self.forget(&untag, &gone, staging)?;
        // Space is freed before any is needed.
        self.collect_garbage(staging)?;
        self.prune_host(in_use)?;
        self.write_index()?;
        Ok(removed)
    }

    /// Takes names and images away, but not yet what they alone used. The caller holds both locks alone.
    pub(crate) fn forget(
        &self,
        untag: &[&ReferenceRecord],
        gone: &BTreeSet<Digest>,
        staging: Option<&Staging>,
    ) -> Result<Vec<Removed>> {
        // An image that has lost its last name is not to come back without one, if we are cut off before it is gone.
        if let (Some(staging), false) = (staging, gone.is_empty()) {
            gone.iter().try_for_each(|id| staging.announce(*id))?;
            staging.sync_announced()?;
        }
        let mut removed = Vec::new();
        for record in untag {
            let reference: Reference = record.reference.parse()?;
            let path = self.reference_path(&reference);
            fs_err::remove_file(&path)?;
            durable::name(&path)?;
            removed.push(Removed::Untagged(reference));
        }
        for id in gone {
            fs_err::remove_file(self.image_path(*id))?;
            removed.push(Removed::Deleted(*id));
        }
        durable::names_in(&self.root.join("images"))?;
        if let Some(staging) = staging {
            gone.iter().try_for_each(|id| staging.withdraw(*id))?;
        }
        Ok(removed)
    }

    /// Whether a name means the image of this machine: nothing was loaded under it.
    fn is_built_in(&self, name: &str) -> Result<bool> {
        Ok(name == host::NAME && self.find_name(&name.parse()?)?.is_none())
    }

    fn refuse_built_in(&self, name: &str) -> Result<()> {
        if self.is_built_in(name)? { Err(Error::BuiltIn { name: name.to_owned() }) } else { Ok(()) }
    }

    /// What a name or an id means, and the image of it for a platform, or this machine's.
    pub(crate) fn meaning(&self, name: &str, platform: Option<&Platform>) -> Result<Meaning> {
        self.refuse_built_in(name)?;
        let (record, names) = self.find_image(name, platform)?;
        let found = self.find(name)?;
        let target = found.name.map_or_else(|| record.manifest.clone(), |name| name.target);
        let repository = record.origin.repositories.last().cloned();
        Ok(Meaning { target, image: record.manifest, names, repository })
    }

    /// The file that says what a name means: `references/HOST/PATH/:TAG`. No part of a path begins with a colon.
    pub(crate) fn reference_path(&self, reference: &Reference) -> PathBuf {
        let tag = reference.tag().unwrap_or("latest");
        self.root.join("references").join(reference.name()).join(format!(":{tag}"))
    }

    /// The record of the image that a name means, for this machine's platform or the only one that is here.
    pub(crate) fn named_record(&self, name: &str) -> Result<ImageRecord> {
        self.refuse_built_in(name)?;
        Ok(self.find_image(name, None)?.0)
    }

    pub(crate) fn config(&self, id: Digest) -> Result<ImageConfig> {
        self.config_as(id)
    }

    /// The configuration as far as `T` reads it.
    pub(crate) fn config_as<T: DeserializeOwned>(&self, id: Digest) -> Result<T> {
        let path = self.blob_path(id);
        serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| Error::BadRecord { path, reason: error.to_string() })
    }

    fn find_image(&self, name: &str, platform: Option<&Platform>) -> Result<(ImageRecord, Vec<Reference>)> {
        let found = self.find(name)?;
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let fits = |image: &&PlatformImage| wanted.accepts(&image.platform);
        let image = match (found.images.iter().find(fits), &found.images[..], platform) {
            (Some(image), _, _) => image,
            (None, [only], None) => only,
            _ => {
                let available = found.images.iter().map(|image| image.platform.to_string()).collect();
                return Err(Error::PlatformMissing {
                    name: name.to_owned(),
                    wanted: wanted.clone(),
                    available,
                });
            }
        };
        let record = self.image_record(image.id)?;
        if record.layers.iter().any(|key| !key.ends_with(&format!("-{}", self.form))) {
            let reason = "its layers were unpacked by another user or in another user namespace".to_owned();
            return Err(Error::BadRecord { path: self.image_path(image.id), reason });
        }
        let names = found.name.map(|name| name.reference.parse()).transpose()?;
        Ok((record, names.into_iter().collect()))
    }

    /// Looks a name up, then an id.
    fn find(&self, text: &str) -> Result<Found> {
        let name = text.parse::<Reference>();
        if let Ok(name) = &name
            && let Some(record) = self.find_name(name)?
        {
            return Ok(Found { images: record.images.clone(), name: Some(record) });
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_prefix = !prefix.is_empty()
            && prefix.len() <= 64
            && prefix.bytes().all(|byte| crate::digest::nibble(byte).is_some());
        if !is_prefix {
            return Err(match name {
                Ok(_) => self.unknown(text)?,
                Err(error) => error,
            });
        }
        let mut ids = self.image_ids()?;
        ids.retain(|id| id.hex().starts_with(prefix));
        match ids[..] {
            [] => Err(self.unknown(text)?),
            [id] => {
                let platform = self.image_record(id)?.platform;
                Ok(Found { name: None, images: vec![PlatformImage { platform, id }] })
            }
            _ => Err(Error::AmbiguousId { prefix: text.to_owned(), count: ids.len() }),
        }
    }

    fn find_name(&self, name: &Reference) -> Result<Option<ReferenceRecord>> {
        let Some(digest) = name.digest() else {
            return match read_record(&self.reference_path(&name.clone().or_latest())) {
                Ok(record) => Ok(Some(record)),
                Err(Error::File(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        };
        let directory = self.root.join("references").join(name.name());
        let entries = match fs_err::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::File(error)),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let record: ReferenceRecord = read_record(&entry.path())?;
                let is_tag = name.tag().is_none_or(|tag| record.reference.ends_with(&format!(":{tag}")));
                if is_tag && record.target.digest == digest {
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn names_of(&self, id: Digest) -> Result<Vec<Reference>> {
        let records = self.reference_records()?;
        let has = |record: &&ReferenceRecord| record.images.iter().any(|image| image.id == id);
        records.iter().filter(has).map(|record| record.reference.parse()).collect()
    }

    /// The error for a name that means nothing, with up to three names that are like it.
    fn unknown(&self, name: &str) -> Result<Error> {
        if let Some(owner) = self.owner_of(name)? {
            return Ok(Error::DigestOfAnother { name: name.to_owned(), owner });
        }
        let mut names: Vec<(usize, String)> = Vec::new();
        let known = self.reference_records()?.into_iter().map(|record| shown(&record.reference));
        for known in known.chain([host::NAME.to_owned()]) {
            let bare =
                |text: &str| text.rsplit('/').next().unwrap_or(text).trim_end_matches(":latest").to_owned();
            let distance = distance(name, &known).min(distance(&bare(name), &bare(&known)));
            if distance <= 1 + bare(name).len() / 3 {
                names.push((distance, known));
            }
        }
        names.sort();
        let nearest = names.into_iter().take(3).map(|(_, name)| name).collect();
        Ok(Error::UnknownImage { name: name.to_owned(), nearest })
    }

    /// Whose manifest or index a digest is: a digest alone, or behind a name that does not have it.
    fn owner_of(&self, text: &str) -> Result<Option<String>> {
        let digest = text.rsplit('@').next().unwrap_or(text);
        let digest = if digest.contains(':') { digest.to_owned() } else { format!("sha256:{digest}") };
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(None) };
        let records = self.reference_records()?;
        if let Some(record) = records.iter().find(|record| record.target.digest == digest) {
            return Ok(Some(shown(&record.reference)));
        }
        let images = self.image_records()?;
        let has = |image: &&ImageRecord| image.manifest.digest == digest || image.id == digest;
        let Some(image) = images.iter().find(has) else { return Ok(None) };
        let name = self.names_of(image.id)?.first().map(Reference::to_string);
        Ok(Some(name.unwrap_or_else(|| image.id.to_string())))
    }
}

fn shown(canonical: &str) -> String {
    canonical.parse::<Reference>().map_or_else(|_| canonical.to_owned(), |name| name.to_string())
}

fn summary(image: &Listed, digest: Digest) -> Summary {
    Summary {
        repository: None,
        tag: None,
        digest,
        id: image.id,
        created: image.created.clone(),
        size: image.size,
        platform: image.platform.clone(),
    }
}

/// How many letters must be added, removed or changed to make one text the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(300).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(300).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn distances() {
        for (a, b, count) in [("", "", 0), ("a", "", 1), ("debain", "debian", 2), ("busybox", "busybx", 1)] {
            assert_eq!(super::distance(a, b), count);
        }
    }
}
