//! Taking away what nothing needs: what killed and failed commands left, and what only removed images had.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Result;
use crate::staging::{self, Pins, Staging};
use crate::store::{ReferenceRecord, Store, remove_if_there};

impl Store {
    /// Removes staging directories of works that have ended, with what they had put in place and no image uses.
    pub(crate) fn clean(&self, stale: Vec<Staging>) -> Result<()> {
        // What may fill the disk goes first: all else needs a little space.
        stale.iter().try_for_each(Staging::empty)?;
        let commit = self.commit_lock()?;
        for staging in &stale {
            staging.forget_pins()?;
            for id in staging.announced()? {
                let is_named = |name: &ReferenceRecord| name.images.iter().any(|image| image.id == id);
                if !self.reference_records()?.iter().any(is_named) {
                    remove_if_there(&self.image_path(id))?;
                }
            }
        }
        self.collect_garbage(stale.first())?;
        match self.write_index() {
            Err(error) if error.is_full() => {
                stale.iter().try_for_each(Staging::empty)?;
                self.write_index()?;
            }
            other => other?,
        }
        drop(commit);
        stale.into_iter().try_for_each(Staging::discard)
    }

    /// Takes away layers and blobs that no image, no name and no work that goes on needs. The caller holds the commit lock alone.
    ///
    /// They are moved into `staging`, and deleted with it, when the lock is free again; at once where there is none, or no space for
    /// that.
    pub(crate) fn collect_garbage(&self, staging: Option<&Staging>) -> Result<()> {
        let pins = staging::pins(self)?;
        remove_empty_below(&self.root.join("references"))?;
        let (layers, blobs) = self.unneeded()?;
        for (directory, names) in [("layers", layers), ("blobs/sha256", blobs)] {
            for name in names {
                if !is_pinned(&pins, &name)? {
                    take_away(&self.root.join(directory).join(name), staging)?;
                }
            }
        }
        Ok(())
    }

    /// The names of the layers and of the blobs that no image, no name and no work that goes on needs.
    pub(crate) fn unused(&self) -> Result<(Vec<String>, Vec<String>)> {
        let pins = staging::pins(self)?;
        let is_free = |name: &String| !pins.iter().any(|pins| pins.names.contains(name));
        let (mut layers, mut blobs) = self.unneeded()?;
        layers.retain(is_free);
        blobs.retain(is_free);
        Ok((layers, blobs))
    }

    /// The names of the layers and of the blobs that no image and no name needs. No blobs where a manifest is damaged: which ones it needs
    /// is not known then.
    fn unneeded(&self) -> Result<(Vec<String>, Vec<String>)> {
        let mut needed = BTreeSet::new();
        let (mut blobs, mut are_known) = (BTreeSet::new(), true);
        for record in self.image_records()? {
            needed.extend(record.layers);
            blobs.insert(record.id);
            are_known &= self.blob_path(record.manifest.digest).exists();
            are_known &= self.mark(&record.manifest, &mut blobs, 0);
        }
        for record in self.reference_records()? {
            are_known &= self.mark(&record.target, &mut blobs, 0);
        }
        needed.extend(blobs.into_iter().map(|digest| digest.hex()));
        let names = |directory: &str| -> Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs_err::read_dir(self.root.join(directory))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if !needed.contains(&name) {
                    names.push(name);
                }
            }
            Ok(names)
        };
        Ok((names("layers")?, if are_known { names("blobs/sha256")? } else { Vec::new() }))
    }
}

/// Whether a work that goes on counts on a layer or blob; then it has to look at its end whether that is still so.
fn is_pinned(pins: &[Pins], name: &str) -> Result<bool> {
    let mut found = false;
    for pins in pins.iter().filter(|pins| pins.names.contains(name)) {
        pins.owe()?;
        found = true;
    }
    Ok(found)
}

fn take_away(path: &Path, staging: Option<&Staging>) -> Result<()> {
    match staging.map(|staging| staging.take_away(path)) {
        Some(Err(error)) if error.is_full() => {}
        Some(other) => return other,
        None => {}
    }
    staging::remove_all(path)
}

/// Removes the empty directories below `path`: of names that were taken away or never written.
fn remove_empty_below(path: &Path) -> Result<()> {
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty_below(&entry.path())?;
            if fs_err::read_dir(entry.path())?.next().is_none() {
                fs_err::remove_dir(entry.path())?;
            }
        }
    }
    Ok(())
}
