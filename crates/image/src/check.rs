//! Looking over the whole store: records, what they lead to, what nothing leads to, and every byte of layers and blobs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::digest::Digest;
use crate::error::Result;
use crate::reference::Reference;
use crate::store::{ImageRecord, LayerRecord, ReferenceRecord, Store, read_record};
use crate::verify::Damage;

/// A part of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// An unpacked layer, by its key.
    Layer(String),
    /// A compressed layer, a manifest or a configuration.
    Blob(Digest),
    /// The record of an image.
    Image(Digest),
    /// The record of a name, by its file below `references`.
    Name(String),
    /// `index.json`.
    Index,
    /// A layer that no image has.
    UnusedLayer(String),
    /// A blob that no image has, by its file's name.
    UnusedBlob(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(key) | Self::UnusedLayer(key) => write!(f, "layer {}", short(key)),
            Self::Blob(digest) => write!(f, "blob {}", short(&digest.hex())),
            Self::UnusedBlob(name) => write!(f, "blob {}", short(name)),
            Self::Image(id) => write!(f, "image {}", short(&id.hex())),
            Self::Name(name) => write!(f, "name {name}"),
            Self::Index => f.write_str("index.json"),
        }
    }
}

fn short(text: &str) -> &str {
    text.get(..12).unwrap_or(text)
}

/// A part of the store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which one.
    pub part: Part,
    /// What is wrong with it.
    pub problem: String,
    /// The images that need it, by name where they have one.
    pub images: Vec<String>,
    /// The image that a name leads to and that is not here.
    pub(crate) missing: Option<Digest>,
}

impl Store {
    /// Reads all of the store and says what is wrong. Changes nothing; what runs meanwhile keeps it from saying that something is unused.
    pub fn check(&self) -> Result<Vec<Flaw>> {
        let _hold = self.hold()?;
        self.check_held()
    }

    /// The same for one who holds the store.
    pub(crate) fn check_held(&self) -> Result<Vec<Flaw>> {
        let mut look = Look { store: self, flaws: Vec::new() };
        // A load puts things in place and names them under this lock.
        let commit = self.moment()?;
        let images = look.images()?;
        let names = look.names(&images)?;
        // Where a record cannot be read it is not known what is used.
        if look.flaws.is_empty() {
            look.unused()?;
            look.index()?;
        }
        drop(commit);
        look.contents(&images, &names)?;
        Ok(look.flaws)
    }
}

struct Look<'a> {
    store: &'a Store,
    flaws: Vec<Flaw>,
}

impl Look<'_> {
    fn note(&mut self, part: Part, problem: impl Into<String>, images: Vec<String>) {
        self.flaws.push(Flaw { part, problem: problem.into(), images, missing: None });
    }

    /// The records of images that can be read.
    fn images(&mut self) -> Result<Vec<ImageRecord>> {
        let mut records = Vec::new();
        for id in self.store.image_ids()? {
            match self.store.image_record(id) {
                Ok(record) if record.id == id => records.push(record),
                Ok(_) => self.note(Part::Image(id), "its record is another image's", Vec::new()),
                Err(error) => self.note(Part::Image(id), error.to_string(), Vec::new()),
            }
        }
        Ok(records)
    }

    /// The records of names that can be read, and lead somewhere.
    fn names(&mut self, images: &[ImageRecord]) -> Result<Vec<ReferenceRecord>> {
        let mut records = Vec::new();
        let root = self.store.root.join("references");
        for path in self.store.reference_paths()? {
            let shown =
                path.strip_prefix(&root).unwrap_or(&path).display().to_string().replacen("/:", ":", 1);
            let record: ReferenceRecord = match read_record(&path) {
                Ok(record) => record,
                Err(error) => {
                    self.note(Part::Name(shown), error.to_string(), Vec::new());
                    continue;
                }
            };
            let name = record.reference.parse::<Reference>();
            if !name.is_ok_and(|name| self.store.reference_path(&name) == path) {
                self.note(Part::Name(shown), format!("its record is of {}", record.reference), Vec::new());
                continue;
            }
            for image in &record.images {
                if images.iter().all(|known| known.id != image.id) {
                    let problem = format!("it leads to image {}, which is not here", short(&image.id.hex()));
                    self.note(Part::Name(shown.clone()), problem, Vec::new());
                    self.flaws.iter_mut().rev().take(1).for_each(|flaw| flaw.missing = Some(image.id));
                }
            }
            records.push(record);
        }
        Ok(records)
    }

    fn unused(&mut self) -> Result<()> {
        let (layers, blobs) = self.store.unused()?;
        for key in layers {
            self.note(Part::UnusedLayer(key), "no image has it", Vec::new());
        }
        for name in blobs {
            self.note(Part::UnusedBlob(name), "no image has it", Vec::new());
        }
        Ok(())
    }

    fn index(&mut self) -> Result<()> {
        let found = fs_err::read(self.store.root.join("index.json")).unwrap_or_default();
        if found != crate::store::index(&self.store.make_listing()?) {
            self.note(Part::Index, "it is not the list of the images that are here", Vec::new());
        }
        Ok(())
    }

    fn contents(&mut self, images: &[ImageRecord], names: &[ReferenceRecord]) -> Result<()> {
        let shown = |record: &ImageRecord| {
            let has = |name: &&ReferenceRecord| name.images.iter().any(|image| image.id == record.id);
            let name = names.iter().find(has).and_then(|name| name.reference.parse::<Reference>().ok());
            name.map_or_else(|| short(&record.id.hex()).to_owned(), |name| name.to_string())
        };
        let layers: BTreeSet<&String> = images.iter().flat_map(|record| &record.layers).collect();
        for key in layers {
            let users = images.iter().filter(|record| record.layers.contains(key)).map(shown).collect();
            if let Some(problem) = self.layer(key)? {
                self.note(Part::Layer(key.clone()), problem, users);
            }
        }
        let fetchable = self.store.fetchable_blobs(images);
        let needed: Vec<BTreeSet<Digest>> = images
            .iter()
            .map(|record| {
                let mut needed = BTreeSet::from([record.id]);
                self.store.mark(&record.manifest, &mut needed, 0);
                needed
            })
            .collect();
        for digest in needed.iter().flatten().copied().collect::<BTreeSet<_>>() {
            if fetchable.contains(&digest) && !self.store.blob_path(digest).exists() {
                continue;
            }
            if let Some(damage) = self.store.verify_blob(digest)?.first() {
                let problem = match damage.found.as_str() {
                    "nothing" => "it is not here".to_owned(),
                    found => format!("its digest is {found}"),
                };
                let has = images.iter().zip(&needed).filter(|(_, needed)| needed.contains(&digest));
                let users: Vec<&ImageRecord> = has.map(|(record, _)| record).collect();
                self.note(Part::Blob(digest), problem, users.into_iter().map(shown).collect());
            }
        }
        Ok(())
    }

    /// What is wrong with a layer, in a line.
    fn layer(&self, key: &str) -> Result<Option<String>> {
        let path = self.store.layer_path(key);
        if let Err(error) = read_record::<LayerRecord>(&path.join("layer.json")) {
            return Ok(Some(error.to_string()));
        }
        let damage = self.store.verify_layer(key)?;
        let Some(first) = damage.first() else { return Ok(None) };
        let more = match damage.len() - 1 {
            0 => String::new(),
            count => format!(", and {count} more"),
        };
        Ok(Some(format!("{}{more}", told(first, &path))))
    }
}

/// A damage as a person reads it.
fn told(damage: &Damage, layer: &Path) -> String {
    let path = damage.path.strip_prefix(layer.join("fs")).or(damage.path.strip_prefix(layer));
    let path = path.unwrap_or(&damage.path).display();
    match (damage.expected.split_once(' '), damage.found.split_once(' ')) {
        (Some(("content", _)), Some(("content", _))) => format!("/{path} has other content"),
        _ => format!("/{path}: {}, not {}", damage.found, damage.expected),
    }
}
