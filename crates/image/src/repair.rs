//! Mending what [`Store::check`] finds: only what is bad is made anew, from a sound blob if there is one, else from the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::check::{Flaw, Part};
use crate::digest::Digest;
use crate::durable;
use crate::error::{Error, Result, system};
use crate::load::{HalfLayer, LoadOptions, Unpacked};
use crate::oci::{Descriptor, Document, ImageConfig, ManifestOrIndex, media};
use crate::plan::{Plan, PlannedLayer, plan};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Access, Repository};
use crate::source::{Bytes, DOCUMENT_MAX, local};
use crate::staging::Staging;
use crate::store::{ImageRecord, ReferenceRecord, Store, read_record, remove_if_there};
use crate::stream::Budget;

/// A flaw, and what became of it: how it was mended, or why it was not.
pub type Mended = (Flaw, std::result::Result<&'static str, String>);

/// How [`Store::repair`] works.
pub struct Repair<'a> {
    /// How registries are talked to.
    pub access: &'a Access,
    /// Whether the directory of a layer is mounted: asked when nobody can begin to mount it.
    pub in_use: &'a dyn Fn(&Path) -> bool,
    /// Where to say how far it is.
    pub progress: &'a Progress,
}

impl Store {
    /// Checks the store and mends what can be mended. Nobody else uses the store meanwhile; what is good is not touched.
    pub fn repair(&self, repair: &Repair<'_>) -> Result<Vec<Mended>> {
        self.staged(|staging| {
            let _alone = self.hold_alone()?;
            let flaws = self.check_held()?;
            let mut work = Work { store: self, repair, staging, outcome: BTreeMap::new(), number: 0 };
            work.records(&flaws)?;
            work.documents(&flaws)?;
            work.layers(&flaws)?;
            work.rest(&flaws)?;
            let outcome = work.outcome;
            let told = |flaw: Flaw| {
                let outcome = outcome.get(&flaw.part).cloned();
                let otherwise = || Err(advice(&flaw.part).to_owned());
                let outcome = outcome.unwrap_or_else(otherwise);
                (flaw, outcome)
            };
            Ok(flaws.into_iter().map(told).collect())
        })
    }
}

/// What to do about what is not mended here.
fn advice(part: &Part) -> &'static str {
    match part {
        Part::Image(_) => "remove that file and get the image anew: coracle pull, coracle load",
        Part::Name(_) => "get the image anew: coracle pull, coracle load",
        Part::Layer(_) | Part::Blob(_) => "it came from no registry; get the image anew: coracle load",
        Part::Index | Part::UnusedLayer(_) | Part::UnusedBlob(_) => {
            "mend the other flaws first, then repair again"
        }
    }
}

struct Work<'a> {
    store: &'a Store,
    repair: &'a Repair<'a>,
    staging: &'a Staging,
    outcome: BTreeMap<Part, std::result::Result<&'static str, String>>,
    number: usize,
}

impl Work<'_> {
    fn images(&self) -> Result<Vec<ImageRecord>> {
        let ids = self.store.image_ids()?;
        Ok(ids.into_iter().filter_map(|id| self.store.image_record(id).ok()).collect())
    }

    /// A new directory of its own.
    fn place(&mut self) -> PathBuf {
        self.number += 1;
        self.staging.path.join(format!("repair{}", self.number))
    }

    fn repository(&self, record: &ImageRecord) -> Option<Result<Arc<Repository>>> {
        let name = record.origin.repositories.last()?;
        let reference = name.parse::<Reference>().map(Reference::or_latest);
        Some(reference.and_then(|reference| Repository::open(&reference, self.repair.access)))
    }

    /// Records of images that cannot be read, or that names lead to and that are not here: from the manifest, as long as all of its layers
    /// are here.
    fn records(&mut self, flaws: &[Flaw]) -> Result<()> {
        let store = self.store;
        let mut lost: BTreeSet<Digest> = flaws.iter().filter_map(bad_image).collect();
        let names = store.reference_paths()?;
        for name in names.iter().filter_map(|path| read_record::<ReferenceRecord>(path).ok()) {
            lost.extend(
                name.images.iter().map(|image| image.id).filter(|id| !store.image_path(*id).exists()),
            );
        }
        let mut plans = Vec::new();
        for id in lost {
            let plan = self.manifest_of(id).and_then(|manifest| self.plan_of(id, manifest));
            let Some(plan) = plan else { continue };
            plans.push(plan);
            // One that cannot be read keeps the list of all from being written.
            remove_if_there(&store.image_path(id))?;
        }
        for (plan, half) in plans {
            let place = self.place();
            fs_err::create_dir(&place)?;
            let layers = store.complete(&plan, half)?;
            match store.commit(&plan, &layers, &place, self.staging) {
                // Another record cannot be read, and keeps the list of all from being written: this one is there.
                Ok(_) | Err(Error::BadRecord { .. }) => {}
                Err(error) => return Err(error),
            }
            self.outcome.insert(Part::Image(plan.id), Ok("made anew from its manifest"));
            for flaw in flaws.iter().filter(|flaw| flaw.missing == Some(plan.id)) {
                self.outcome.insert(flaw.part.clone(), Ok("the record of its image is made anew"));
            }
        }
        Ok(())
    }

    /// The manifest whose configuration this is.
    fn manifest_of(&self, id: Digest) -> Option<Descriptor> {
        for entry in fs_err::read_dir(self.store.blob_path(id).parent()?).ok()?.flatten() {
            if entry.metadata().ok()?.len() > DOCUMENT_MAX {
                continue;
            }
            let bytes = fs_err::read(entry.path()).ok()?;
            let Ok(document) = serde_json::from_slice::<ManifestOrIndex>(&bytes) else { continue };
            let kind = document.media_type.clone();
            let kind = if kind.is_empty() { media::MANIFEST.to_owned() } else { kind };
            if let Ok(Document::Manifest { config, .. }) = document.document(Digest::of(&bytes))
                && config.digest == id
            {
                return Some(Descriptor::of(&bytes, &kind));
            }
        }
        None
    }

    /// What is needed to commit an image of which all is here.
    fn plan_of(&self, id: Digest, manifest: Descriptor) -> Option<(Plan, Vec<HalfLayer>)> {
        let config = fs_err::read(self.store.blob_path(id)).ok().filter(|bytes| Digest::of(bytes) == id)?;
        let parsed: ImageConfig = serde_json::from_slice(&config).ok()?;
        let diff_ids = &parsed.rootfs.diff_ids;
        let mut plan = plan(id, config, diff_ids.len(), &LoadOptions::default(), "the store").ok()?;
        plan.documents.push((manifest.digest, fs_err::read(self.store.blob_path(manifest.digest)).ok()?));
        (plan.target, plan.manifest) = (Some(manifest.clone()), Some(manifest));
        let here = |at| {
            let key = self.store.layer_here(&diff_ids[..=at])?;
            let tree = Unpacked::Here(key);
            Some(HalfLayer { path: PathBuf::new(), blob: None, sums: None, tree })
        };
        let half = (0..diff_ids.len()).map(here).collect::<Option<Vec<_>>>()?;
        Some((plan, half))
    }

    /// Manifests and configurations.
    fn documents(&mut self, flaws: &[Flaw]) -> Result<()> {
        let bad: BTreeSet<Digest> = flaws.iter().filter_map(bad_blob).collect();
        for record in self.images()? {
            let is_manifest = bad.contains(&record.manifest.digest);
            if !is_manifest && !bad.contains(&record.id) {
                continue;
            }
            let Some(repository) = self.repository(&record) else { continue };
            for digest in
                [record.manifest.digest, record.id].into_iter().filter(|digest| bad.contains(digest))
            {
                let fetched = match &repository {
                    Ok(repository) if digest == record.manifest.digest => {
                        repository.manifest(&digest.to_string()).map(|(_, bytes)| bytes)
                    }
                    Ok(repository) => repository.document(&Descriptor {
                        media_type: String::new(),
                        digest,
                        size: 0,
                        platform: None,
                        annotations: BTreeMap::new(),
                    }),
                    Err(error) => Err(not_reached(error)),
                };
                let outcome = match fetched {
                    Ok(bytes) if Digest::of(&bytes) == digest => {
                        self.staging.publish(&bytes, &self.store.blob_path(digest))?;
                        Ok("fetched anew")
                    }
                    Ok(_) => Err("the registry has it no more".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                self.outcome.insert(Part::Blob(digest), outcome);
            }
        }
        Ok(())
    }

    /// Layers and their blobs.
    fn layers(&mut self, flaws: &[Flaw]) -> Result<()> {
        for record in self.images()? {
            let is_bad = |part: &Part| {
                flaws.iter().any(|flaw| flaw.part == *part) && !matches!(self.outcome.get(part), Some(Ok(_)))
            };
            let Ok(descriptors) = self.store.layer_descriptors(&record) else { continue };
            let needs: Vec<(bool, bool)> = record
                .layers
                .iter()
                .zip(&descriptors)
                .map(|(key, descriptor)| {
                    (is_bad(&Part::Layer(key.clone())), is_bad(&Part::Blob(descriptor.digest)))
                })
                .collect();
            if needs.iter().any(|(layer, blob)| *layer || *blob)
                && let Err(error) = self.renew(&record, &descriptors, &needs)
            {
                for ((key, descriptor), (layer, blob)) in record.layers.iter().zip(&descriptors).zip(&needs) {
                    let parts = [(Part::Layer(key.clone()), layer), (Part::Blob(descriptor.digest), blob)];
                    for (part, _) in parts.into_iter().filter(|(_, is_bad)| **is_bad) {
                        self.outcome.entry(part).or_insert_with(|| Err(error.to_string()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the bad layers of an image anew, from the bottom up, and puts each in the place of the bad one.
    fn renew(
        &mut self,
        record: &ImageRecord,
        descriptors: &[Descriptor],
        needs: &[(bool, bool)],
    ) -> Result<()> {
        let config = fs_err::read(self.store.blob_path(record.id))?;
        let mut plan = plan(record.id, config, descriptors.len(), &LoadOptions::default(), "the store")?;
        let mut remote = None;
        for (at, descriptor) in descriptors.iter().enumerate() {
            let blob = self.store.blob_path(descriptor.digest);
            let is_sound = blob.exists() && !needs[at].1;
            let bytes = if is_sound {
                local(&blob)?
            } else if (needs[at].0 || needs[at].1) && record.is_fetchable(at) {
                if remote.is_none() {
                    remote = self.repository(record);
                }
                match &remote {
                    Some(Ok(repository)) => Bytes::Remote(Arc::clone(repository)),
                    Some(Err(error)) => return Err(not_reached(error)),
                    None => continue,
                }
            } else {
                // Nowhere to get it from, or nothing to be done.
                local(Path::new("/dev/null"))?
            };
            plan.layers.push(PlannedLayer { descriptor: Some(descriptor.clone()), bytes });
        }
        let place = self.place();
        fs_err::create_dir(&place)?;
        let mut half = Vec::new();
        for (at, (layer, blob)) in needs.iter().enumerate() {
            let key = &record.layers[at];
            let can_be = matches!(plan.layers[at].bytes, Bytes::Remote(_)) || !blob;
            let path = place.join(at.to_string());
            if !(*layer || *blob) || !can_be || self.is_kept(key, *layer) {
                half.push(HalfLayer { path, blob: None, sums: None, tree: Unpacked::Here(key.clone()) });
            } else {
                half.push(self.read(&plan, at, (!layer).then(|| key.clone()), &path)?);
            }
        }
        self.put(record, &plan, half, needs)
    }

    /// Whether a layer must not be replaced now, as it is mounted; that is noted then.
    fn is_kept(&mut self, key: &str, is_bad: bool) -> bool {
        let is_kept = is_bad && (self.repair.in_use)(&self.store.layer_path(key));
        if is_kept {
            let why =
                "a running container or coracle image mount uses it: end that, then repair again".to_owned();
            self.outcome.insert(Part::Layer(key.to_owned()), Err(why));
        }
        is_kept
    }

    fn read(&self, plan: &Plan, at: usize, here: Option<String>, path: &Path) -> Result<HalfLayer> {
        let layer = &plan.layers[at];
        if let (Bytes::Remote(_), Some(descriptor)) = (&layer.bytes, &layer.descriptor) {
            // What has its name and another digest is no copy of it.
            remove_if_there(&self.store.blob_path(descriptor.digest))?;
        }
        let (budget, mut resumed) = (Budget::new(LoadOptions::default().limits), 0);
        let has_blob = matches!(layer.bytes, Bytes::Local(_));
        let mut read = || {
            fs_err::create_dir(path)?;
            let shared = (&budget, self.repair.progress);
            self.store.read_bytes(plan, at, (here.clone(), has_blob), shared, path, &mut resumed)
        };
        match read() {
            Err(error) if error.is_damage() && !has_blob => {
                // What came of it earlier was damaged too, and is gone now.
                fs_err::remove_dir_all(path)?;
                read()
            }
            other => other,
        }
    }

    fn put(
        &mut self,
        record: &ImageRecord,
        plan: &Plan,
        half: Vec<HalfLayer>,
        needs: &[(bool, bool)],
    ) -> Result<()> {
        let store = self.store;
        let ready = store.complete(plan, half)?;
        self.staging.sync()?;
        let _commit = store.commit_lock()?;
        for (at, layer) in ready.iter().enumerate() {
            let how = match plan.layers[at].bytes {
                Bytes::Remote(_) => "fetched anew",
                Bytes::Local(_) => "unpacked again from its blob",
            };
            if let (Some(blob), Some(sums)) = (&layer.blob, &layer.sums) {
                fs_err::rename(blob, store.blob_path(sums.digest))?;
                remove_if_there(&store.partial_path(sums.digest, sums.size))?;
                durable::name(&store.blob_path(sums.digest))?;
                if needs[at].1 {
                    self.outcome.insert(Part::Blob(sums.digest), Ok(how));
                }
            }
            if let Some(staged) = &layer.staged {
                let key = &record.layers[at];
                exchange(staged, &store.layer_path(key))?;
                durable::name(&store.layer_path(key))?;
                self.outcome.insert(Part::Layer(key.clone()), Ok(how));
            }
        }
        Ok(())
    }

    /// What is not used, and the index.
    fn rest(&mut self, flaws: &[Flaw]) -> Result<()> {
        let rubbish = |part: &Part| matches!(part, Part::UnusedLayer(_) | Part::UnusedBlob(_) | Part::Index);
        let parts: Vec<&Part> = flaws.iter().map(|flaw| &flaw.part).filter(|part| rubbish(part)).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let _commit = self.store.commit_lock()?;
        if parts.iter().any(|part| **part != Part::Index) {
            self.store.collect_garbage(Some(self.staging))?;
        }
        self.store.write_index()?;
        for part in parts {
            let how = if *part == Part::Index { "written anew" } else { "removed" };
            self.outcome.insert(part.clone(), Ok(how));
        }
        Ok(())
    }
}

fn bad_image(flaw: &Flaw) -> Option<Digest> {
    match flaw.part {
        Part::Image(id) => Some(id),
        _ => None,
    }
}

fn bad_blob(flaw: &Flaw) -> Option<Digest> {
    match flaw.part {
        Part::Blob(digest) => Some(digest),
        _ => None,
    }
}

/// The same error for another part of the store.
fn not_reached(error: &Error) -> Error {
    Error::NotRepaired { reason: error.to_string() }
}

/// Puts a whole directory in the place of another one, which is then where this one was; or where none is.
fn exchange(staged: &Path, target: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Ok(fs_err::rename(staged, target)?),
        Err(errno) => Err(system("rename", target)(errno)),
    }
}
