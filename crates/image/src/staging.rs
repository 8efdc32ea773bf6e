//! What is not complete yet, and what it counts on.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::durable;
use crate::error::{Error, Result, system};
use crate::store::{Store, remove_if_there};

/// Files of a staging directory: an image that it is about to add or to remove, names of layers and blobs that it counts on, a sign that garbage
/// was left in place because of them.
const ANNOUNCED: &str = "announced-";
const PINS: &str = "pins";
const OWED: &str = "owed";

/// What was taken out of the store, to be deleted.
const GONE: &str = "gone";

/// A directory for what is not complete yet. Its lock says that somebody works in it.
///
/// Dropped without [`Staging::discard`], it is rubbish for the next command, which then also looks for what was put in place
/// without being used.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) path: PathBuf,
    lock: OwnedFd,
}

impl Staging {
    pub(crate) fn create(store: &Store) -> Result<Self> {
        loop {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
                .map_err(system("getrandom", "a staging directory's name"))?;
            let path = store.root.join("staging").join(crate::digest::hex(&random));
            fs_err::create_dir(&path)?;
            // Between the two calls a cleaner may have taken it for rubbish.
            if let Some(staging) = Self::take(path)? {
                return Ok(staging);
            }
        }
    }

    /// Locks a staging directory; None when somebody else does or it is gone.
    pub(crate) fn take(path: PathBuf) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(system("open", &path)(errno)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if path.is_dir() => Ok(Some(Self { path, lock })),
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(system("flock", &path)(errno)),
        }
    }

    /// Removes the directory: what was taken away first, as many of it at once as there are processors.
    pub(crate) fn discard(self) -> Result<()> {
        let gone = match fs_err::read_dir(self.path.join(GONE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            entries => entries?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?,
        };
        let next = AtomicUsize::new(0);
        let remove = || -> Result<()> {
            while let Some(path) = gone.get(next.fetch_add(1, Ordering::Relaxed)) {
                remove_all(path)?;
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(gone.len());
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(remove)).collect();
            let own = remove();
            others.into_iter().fold(own, |result, other| result.and(other.join().unwrap_or(Ok(()))))
        })?;
        Ok(fs_err::remove_dir_all(&self.path)?)
    }

    /// Notes that this work is about to add an image, or to take its last name away: if the work is cut off and no name means the image, it
    /// is not to stay.
    pub(crate) fn announce(&self, id: Digest) -> Result<()> {
        fs_err::File::create(self.path.join(format!("{ANNOUNCED}{}", id.hex())))?;
        Ok(())
    }

    /// What was announced is done: whatever has that id later has nothing to do with this work.
    pub(crate) fn withdraw(&self, id: Digest) -> Result<()> {
        remove_if_there(&self.path.join(format!("{ANNOUNCED}{}", id.hex())))
    }

    /// Makes what was announced durable.
    pub(crate) fn sync_announced(&self) -> Result<()> {
        durable::names_in(&self.path)?;
        durable::name(&self.path)
    }

    pub(crate) fn announced(&self) -> Result<Vec<Digest>> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(&self.path)? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| Digest::from_hex(name.strip_prefix(ANNOUNCED)?)));
        }
        Ok(ids)
    }

    /// Removes the directories in it, which are what fills a disk.
    pub(crate) fn empty(&self) -> Result<()> {
        for entry in fs_err::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs_err::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Takes a file or directory of the store away. It goes with this staging directory, when no lock is held.
    pub(crate) fn take_away(&self, path: &Path) -> Result<()> {
        let place = self.path.join(GONE);
        match fs_err::create_dir(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::File(error));
            }
            _ => {}
        }
        // A layer and a blob may have the same name.
        let mut name = path.parent().and_then(Path::file_name).unwrap_or_default().to_owned();
        name.push("-");
        name.push(path.file_name().unwrap_or_default());
        Ok(fs_err::rename(path, place.join(name))?)
    }

    /// Writes down names of layers and blobs that this work counts on. The caller has the commit lock.
    pub(crate) fn add_pins(&self, names: &BTreeSet<String>) -> Result<()> {
        let mut file = fs_err::OpenOptions::new().append(true).create(true).open(self.path.join(PINS))?;
        let lines: String = names.iter().flat_map(|name| [name, "\n"]).collect();
        Ok(file.write_all(lines.as_bytes())?)
    }

    pub(crate) fn has_pins(&self) -> bool {
        self.path.join(PINS).exists()
    }

    /// Counts on nothing any more. The caller has the commit lock.
    pub(crate) fn forget_pins(&self) -> Result<()> {
        remove_if_there(&self.path.join(PINS))
    }

    /// Counts on nothing any more; true when something was left in place because of this work alone. The caller has the commit lock.
    pub(crate) fn unpin(&self) -> Result<bool> {
        self.forget_pins()?;
        Ok(self.path.join(OWED).exists())
    }

    /// Takes so many bytes of the disk's space for a while: a file to be removed before the space is needed.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<PathBuf> {
        let path = self.path.join("reserve");
        let file = fs_err::File::create(&path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // It cannot be known then.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(path),
            Err(errno) => Err(system("fallocate", &path)(errno)),
        }
    }

    /// Makes all that was written so far durable: syncfs(2).
    pub(crate) fn sync(&self) -> Result<()> {
        durable::everything(&self.lock, &self.path)
    }

    /// Writes a record where it belongs, durably: the file, its new name, and the directories above it.
    pub(crate) fn publish(&self, bytes: &[u8], target: &Path) -> Result<()> {
        let temporary = self.path.join("record");
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(bytes)?;
        durable::data(&file)?;
        let new = target.ancestors().skip(1).take_while(|above| !above.exists()).collect::<Vec<_>>();
        if let Some(parent) = target.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::rename(&temporary, target)?;
        durable::name(target)?;
        new.into_iter().try_for_each(durable::name)
    }
}

/// Removes a file or a directory with all that is in it.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    if fs_err::symlink_metadata(path)?.is_dir() {
        Ok(fs_err::remove_dir_all(path)?)
    } else {
        Ok(fs_err::remove_file(path)?)
    }
}

/// What the works that go on count on: each staging directory with names of layers and blobs. The caller has the commit lock alone.
pub(crate) fn pins(store: &Store) -> Result<Vec<Pins>> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(store.root.join("staging"))? {
        let directory = entry?.path();
        match fs_err::read_to_string(directory.join(PINS)) {
            Ok(text) => all.push(Pins { directory, names: text.lines().map(str::to_owned).collect() }),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound) => {}
            Err(error) => return Err(Error::File(error)),
        }
    }
    Ok(all)
}

/// What one work counts on.
pub(crate) struct Pins {
    directory: PathBuf,
    pub(crate) names: BTreeSet<String>,
}

impl Pins {
    /// Notes that something was left in place because of this work: it collects that at its end.
    pub(crate) fn owe(&self) -> Result<()> {
        match fs_err::write(self.directory.join(OWED), "") {
            // It has just ended, and was cleaned by another command.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }
}
