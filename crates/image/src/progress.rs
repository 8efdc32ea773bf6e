//! How far a load is, for whoever shows it while it runs.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;

/// The layers of the image that is being loaded or sent. Shared: who does it writes, another thread looks.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Vec<Arc<Layer>>>);

/// One layer.
#[derive(Debug)]
struct Layer {
    digest: Digest,
    size: u64,
    read: AtomicU64,
    stage: Mutex<Stage>,
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing yet.
    Waiting,
    /// Its bytes are read, verified and unpacked. So many were here from an earlier time.
    Reading(u64),
    /// It was in the store.
    Here,
    /// It was where it is sent to.
    There,
    /// The registry that it is sent to took it from another repository.
    Mounted,
    /// It is compressed to be sent.
    Compressing,
    /// It is unpacked, or sent.
    Done,
}

/// A layer at one moment.
#[derive(Debug, Clone, Copy)]
pub struct LayerProgress {
    /// Its digest.
    pub digest: Digest,
    /// Its stored bytes.
    pub size: u64,
    /// As many of them have been read.
    pub read: u64,
    /// What happens to it.
    pub stage: Stage,
}

impl Progress {
    /// All layers now, bottom first.
    pub fn layers(&self) -> Vec<LayerProgress> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |layer: &Arc<Layer>| LayerProgress {
            digest: layer.digest,
            size: layer.size,
            read: layer.read.load(Ordering::Relaxed),
            stage: *layer.stage.lock().unwrap_or_else(PoisonError::into_inner),
        };
        layers.iter().map(now).collect()
    }

    /// Another image begins.
    pub(crate) fn begin(&self, layers: impl Iterator<Item = (Digest, u64)>) {
        let new = |(digest, size)| {
            Arc::new(Layer { digest, size, read: AtomicU64::new(0), stage: Mutex::new(Stage::Waiting) })
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = layers.map(new).collect();
    }

    pub(crate) fn enter(&self, at: usize, stage: Stage) {
        if let Some(layer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at) {
            *layer.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
            layer.read.store(0, Ordering::Relaxed);
        }
    }

    /// Another blob is sent in place of a layer: the layer, compressed.
    pub(crate) fn replace(&self, at: usize, digest: Digest, size: u64) {
        if let Some(layer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
            let (read, stage) = (AtomicU64::new(0), Mutex::new(Stage::Waiting));
            *layer = Arc::new(Layer { digest, size, read, stage });
        }
    }

    /// A layer is sent from byte `offset` on.
    pub(crate) fn go_on(&self, at: usize, offset: u64) {
        if let Some(layer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at) {
            *layer.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Reading(offset);
            layer.read.store(offset, Ordering::Relaxed);
        }
    }

    /// `reader`, counted for a layer.
    pub(crate) fn counted<'a>(
        &self,
        at: usize,
        reader: Box<dyn Read + Send + 'a>,
    ) -> Box<dyn Read + Send + 'a> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at) {
            Some(layer) => Box::new(Counted { reader, layer: Arc::clone(layer) }),
            None => reader,
        }
    }
}

struct Counted<'a> {
    reader: Box<dyn Read + Send + 'a>,
    layer: Arc<Layer>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.layer.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
