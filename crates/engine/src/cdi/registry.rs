//! The files of all directories, and which of them has a device.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::file::{self, File};
use super::{Asked, DIRECTORIES, DeviceName, check};

/// What the directories hold.
pub(super) struct Registry {
    directories: Vec<Directory>,
}

struct Directory {
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    /// Those that cannot be used. They stand in nobody's way who finds a device elsewhere, as in other engines.
    broken: Vec<Error>,
}

impl Registry {
    pub fn read(asked: &Asked) -> Result<Self> {
        let paths = match asked.directories.as_slice() {
            [] => DIRECTORIES.map(PathBuf::from).to_vec(),
            given => given.to_vec(),
        };
        let directories = paths.into_iter().map(Directory::read).collect::<Result<_>>()?;
        Ok(Self { directories })
    }

    /// The file that has a device, and the device's place in it. A later directory goes before an earlier one; within one directory
    /// the device may be in one file only.
    pub fn find(&self, device: &DeviceName) -> Result<(&Path, &File, usize)> {
        for directory in self.directories.iter().rev() {
            let mut found = directory.files.iter().filter_map(|(path, file)| {
                let place = file.devices.iter().position(|other| other.name == device.name);
                Some((path.as_path(), file, place.filter(|_| file.kind == device.kind)?))
            });
            match (found.next(), found.next()) {
                (Some((first, ..)), Some((second, ..))) => {
                    let (first, second) = (first.to_owned(), second.to_owned());
                    return Err(Error::Conflict { device: device.clone(), first, second });
                }
                (Some(found), None) => return Ok(found),
                (None, _) => {}
            }
        }
        Err(self.not_found(device))
    }

    /// Also says what there is.
    fn not_found(&self, device: &DeviceName) -> Error {
        let all = self.directories.iter().flat_map(|directory| &directory.files);
        let names = all
            .flat_map(|(_, file)| file.devices.iter().map(|device| format!("{}={}", file.kind, device.name)));
        let known: std::collections::BTreeSet<_> = names.collect();
        let directories = self.directories.iter().map(|directory| directory.path.clone()).collect();
        Error::NotFound { device: device.clone(), directories, known: known.into_iter().collect() }
    }

    /// The first file that cannot be used.
    pub fn into_broken(self) -> Option<Error> {
        self.directories.into_iter().rev().flat_map(|directory| directory.broken).next()
    }
}

impl Directory {
    /// One that does not exist is empty.
    fn read(path: PathBuf) -> Result<Self> {
        let mut directory = Self { path, files: Vec::new(), broken: Vec::new() };
        let entries = match fs_err::read_dir(&directory.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(directory),
            other => other.map_err(|source| Error::File { source })?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|source| Error::File { source })?.path());
        }
        let is_file = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("json" | "yaml")) && path.is_file()
        };
        paths.retain(is_file);
        paths.sort();
        for path in paths {
            match file::read(&path).and_then(|file| check::check(&path, &file).map(|()| file)) {
                Ok(file) => directory.files.push((path, file)),
                Err(error) => directory.broken.push(error),
            }
        }
        Ok(directory)
    }
}
