//! The built-in image `host`: this machine's programs without this machine's data.
//!
//! It is composed, not masked: what is not named here is not in it. The root directory is one that is generated, with
//! an `/etc` of a few files that programs cannot do without and that hold no secret; `/usr` (and `/bin`, `/sbin`,
//! `/lib*` where they are directories of their own) is the machine's, as a further union mount. Overlayfs cannot put a
//! directory's tree at a place below a layer's root, and in a user namespace it refuses the machine's `/` as a layer
//! but takes `/usr`: so this is the same for root and for everybody else.
//!
//! ```text
//! ROOT/image/host/current.json   which directory is the one, and what it was composed of
//! ROOT/image/host/KEY/fs         the generated root directory
//! ```
//!
//! It is composed anew when one of the machine's files that it was made of has changed, and once after each boot:
//! so nothing has to be made durable, which would cost `run` an fsync(2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::catalog::{Graft, Image, Inspection};
use crate::digest::Digest;
use crate::error::{Error, Result, system};
use crate::oci::{Config, ImageConfig, Platform, RootFs};
use crate::staging::Staging;
use crate::store::{RootDirectory, Store, Versioned, read_record, to_json, version};

/// The name. An image that was loaded under it is found in its stead.
pub(crate) const NAME: &str = "host";

/// What stands at the top of a machine: links to `/usr` on most, directories on some.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Directories of authorities' certificates, by Debian's, Fedora's and Arch's ways.
const CERTIFICATES: [&str; 4] =
    ["etc/ssl/certs", "etc/pki/tls/certs", "etc/pki/ca-trust/extracted/pem", "etc/ca-certificates/extracted"];

/// Directories that are empty, and their modes.
const EMPTY: [(&str, u32); 21] = [
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
protocols: files\nservices: files\nethers: files\nrpc: files\n";

/// Users and groups by the numbers that Debian and most others give them; those that own files below `/usr` among them.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
bin:x:2:2:bin:/bin:/usr/sbin/nologin\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nmail:x:8:\nwww-data:x:33:\nshadow:x:42:\n\
utmp:x:43:\nstaff:x:50:\nusers:x:100:\nnogroup:x:65534:\n";

/// The longest file of certificates that is read, in bytes; the usual bundle of all authorities has 250,000.
const CERTIFICATES_MAX: u64 = 16 << 20;

/// `host/current.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Current {
    version: u32,
    /// The boot in which it was composed.
    boot: String,
    id: Digest,
    /// The name of its directory.
    key: String,
    /// Bytes of its files.
    size: u64,
    /// Directories at the machine's top that are union mounts of their own, by name.
    grafts: Vec<String>,
    command: String,
    inputs: Vec<Input>,
}

impl Versioned for Current {
    fn version(&self) -> u32 {
        self.version
    }
}

/// A file of the machine's that the composition depends on, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    path: PathBuf,
    /// Whether a link is looked at itself.
    link: bool,
    state: Option<State>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change, of contents or attributes.
    changed: (i64, i64),
}

impl Input {
    fn look(path: PathBuf, link: bool) -> Self {
        let found = if link { fs_err::symlink_metadata(&path) } else { fs_err::metadata(&path) };
        let state = found.ok().map(|status| State {
            inode: status.ino(),
            size: status.size(),
            changed: (status.ctime(), status.ctime_nsec()),
        });
        Self { path, link, state }
    }

    fn is_same(&self) -> bool {
        Self::look(self.path.clone(), self.link) == *self
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    File(Vec<u8>),
    Link(PathBuf),
}

/// What shall be generated, and what it depends on.
#[derive(Debug)]
struct Composition {
    /// The machine's root directory.
    machine: PathBuf,
    /// By path below the root; a directory comes before what is in it.
    nodes: BTreeMap<PathBuf, Node>,
    grafts: Vec<String>,
    command: String,
    inputs: Vec<Input>,
}

impl Store {
    /// The image of this machine. Where nothing has changed it costs one small file and a few stat(2).
    pub(crate) fn host_image(&self, platform: Option<&Platform>) -> Result<Image> {
        let host = Platform::host();
        if let Some(wanted) = platform.filter(|wanted| !wanted.accepts(&host)) {
            return Err(Error::PlatformOfHost { wanted: wanted.to_string(), host: host.to_string() });
        }
        let current = self.current_host(Path::new("/"))?;
        let graft = |name: &String| {
            let target = Path::new("/").join(name);
            Graft { layers: vec![target.clone()], target }
        };
        Ok(Image {
            id: current.id,
            names: Vec::new(),
            platform: host,
            layers: vec![self.host_directory().join(&current.key).join("fs")],
            grafts: current.grafts.iter().map(graft).collect(),
            root: RootDirectory::DEFAULT,
            config: config(current.command),
        })
    }

    /// All that is known of the image of this machine.
    pub(crate) fn inspect_host(&self, platform: Option<&Platform>) -> Result<Inspection> {
        let image = self.host_image(platform)?;
        let size = self.current_host(Path::new("/"))?.size;
        let config = ImageConfig {
            created: None,
            architecture: image.platform.architecture,
            os: image.platform.os,
            variant: image.platform.variant,
            config: image.config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        };
        let config_json = serde_json::to_value(&config).unwrap_or_default();
        let mut layers = image.layers;
        layers.extend(image.grafts.into_iter().flat_map(|graft| graft.layers));
        Ok(Inspection {
            id: image.id,
            names: Vec::new(),
            manifest: image.id,
            config,
            config_json,
            size,
            layers,
        })
    }

    /// Removes generated directories that are no longer the one and that no container uses. The caller holds the store alone.
    pub(crate) fn prune_host(&self, in_use: &BTreeSet<Digest>) -> Result<()> {
        let current = read_record::<Current>(&self.host_directory().join("current.json")).ok();
        let entries = match fs_err::read_dir(self.host_directory()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some((id, _)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
            let is_current = current.as_ref().is_some_and(|current| *current.key == *name);
            if !is_current && Digest::from_hex(id).is_none_or(|id| !in_use.contains(&id)) {
                fs_err::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn host_directory(&self) -> PathBuf {
        self.root.join(NAME)
    }

    /// The composition as it stands, made anew where something has changed.
    fn current_host(&self, machine: &Path) -> Result<Current> {
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let path = self.host_directory().join("current.json");
        // One that cannot be read is one to be made anew: nothing is lost with it.
        if let Ok(current) = read_record::<Current>(&path)
            && current.boot == boot
            && self.host_directory().join(&current.key).join("fs").is_dir()
            && current.inputs.iter().all(Input::is_same)
        {
            return Ok(current);
        }
        let composition = Composition::of(machine)?;
        let id = Digest::of(composition.manifest().as_bytes());
        let staging = Staging::create(self)?;
        let made = self.compose(&staging, composition, id, boot);
        match &made {
            Ok(_) => staging.discard()?,
            // The error that matters is the first one; what cannot be removed now the next command removes. Not all the store
            // is cleaned: whoever runs a container holds it.
            Err(_) => drop(staging.discard()),
        }
        made
    }

    fn compose(
        &self,
        staging: &Staging,
        composition: Composition,
        id: Digest,
        boot: String,
    ) -> Result<Current> {
        let made = staging.path.join(NAME);
        fs_err::create_dir(&made)?;
        let size = composition.write(&made.join("fs"))?;
        let current = Current {
            version: version(),
            key: format!("{}-{boot}", id.hex()),
            boot,
            id,
            size,
            grafts: composition.grafts,
            command: composition.command,
            inputs: composition.inputs,
        };
        self.publish_host(staging, &made, &current)?;
        Ok(current)
    }

    fn publish_host(&self, staging: &Staging, made: &Path, current: &Current) -> Result<()> {
        // All that needs space comes first: a directory that no record names would stay.
        let record = staging.path.join("current.json");
        fs_err::write(&record, to_json(current))?;
        fs_err::create_dir_all(self.host_directory())?;
        let target = self.host_directory().join(&current.key);
        match fs_err::rename(made, &target) {
            // The same was composed before in this boot, by us or by a command beside us.
            Err(_) if target.join("fs").is_dir() => {}
            other => other?,
        }
        Ok(fs_err::rename(record, self.host_directory().join("current.json"))?)
    }
}

fn config(command: String) -> Config {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let title = ("org.opencontainers.image.title".to_owned(), NAME.to_owned());
    Config { env: vec![path], cmd: vec![command], labels: BTreeMap::from([title]), ..Config::default() }
}

impl Composition {
    /// Composes from the machine whose root directory is `machine`.
    fn of(machine: &Path) -> Result<Self> {
        let mut new = Self {
            machine: machine.to_owned(),
            nodes: BTreeMap::new(),
            grafts: vec!["usr".to_owned()],
            command: "/bin/sh".to_owned(),
            inputs: Vec::new(),
        };
        for (path, mode) in EMPTY {
            new.add(path, Node::Directory(mode));
        }
        new.add_programs()?;
        if new.look("bin/bash").is_some() {
            new.command = "/bin/bash".to_owned();
        }
        for (path, text) in [("passwd", PASSWD), ("group", GROUP), ("nsswitch.conf", NSSWITCH)] {
            new.add(Path::new("etc").join(path), Node::File(text.into()));
        }
        // The engine mounts its own on these.
        for path in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
            new.add(path, Node::File(Vec::new()));
        }
        if new.look("usr/lib/os-release").is_some() {
            new.add("etc/os-release", Node::Link("../usr/lib/os-release".into()));
        }
        new.add_loader_files()?;
        new.add_alternatives()?;
        for directory in CERTIFICATES {
            new.add_certificates(Path::new(directory))?;
        }
        Ok(new)
    }

    /// Adds a node, and the directories above it.
    fn add(&mut self, path: impl AsRef<Path>, node: Node) {
        let above = path.as_ref().ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        for directory in above {
            self.nodes.entry(directory.to_owned()).or_insert(Node::Directory(0o755));
        }
        self.nodes.insert(path.as_ref().to_owned(), node);
    }

    /// Notes that the composition depends on a path, and tells what is there.
    fn look(&mut self, path: impl AsRef<Path>) -> Option<std::fs::Metadata> {
        let path = self.machine.join(path);
        let found = fs_err::metadata(&path).ok();
        self.inputs.push(Input::look(path, false));
        found
    }

    /// The names in a directory of the machine's, sorted; none where it is not there.
    fn names(&mut self, directory: &Path) -> Result<Vec<PathBuf>> {
        if !self.look(directory).is_some_and(|status| status.is_dir()) {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        match fs_err::read_dir(self.machine.join(directory)) {
            // Not everybody's to see, so nothing that a program counts on.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            entries => {
                for entry in entries? {
                    names.push(PathBuf::from(entry?.file_name()));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The contents of a file that everybody may read; None for all else.
    fn public_file(&mut self, path: &Path) -> Result<Option<Vec<u8>>> {
        let is_public = |status: &std::fs::Metadata| {
            status.is_file() && status.mode() & 0o004 != 0 && status.size() <= CERTIFICATES_MAX
        };
        if !self.look(path).as_ref().is_some_and(is_public) {
            return Ok(None);
        }
        match fs_err::read(self.machine.join(path)) {
            // Behind a directory that is not everybody's, or gone since.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound
                ) =>
            {
                Ok(None)
            }
            other => Ok(Some(other?)),
        }
    }

    /// `/bin` and its like: links as the machine has them, directories as union mounts.
    fn add_programs(&mut self) -> Result<()> {
        for name in PROGRAMS {
            let path = self.machine.join(name);
            self.inputs.push(Input::look(path.clone(), true));
            let Ok(status) = fs_err::symlink_metadata(&path) else { continue };
            if status.is_dir() {
                self.add(name, Node::Directory(0o755));
                self.grafts.push(name.to_owned());
            } else if status.is_symlink() {
                let target = fs_err::read_link(&path)?;
                if is_below_usr(Path::new(""), &target) {
                    self.add(name, Node::Link(target));
                }
            }
        }
        Ok(())
    }

    /// What ld.so(8) and ldconfig(8) read.
    fn add_loader_files(&mut self) -> Result<()> {
        let directory = Path::new("etc/ld.so.conf.d");
        let mut paths = vec![PathBuf::from("etc/ld.so.cache"), PathBuf::from("etc/ld.so.conf")];
        let is_read = |name: &PathBuf| name.extension().is_some_and(|extension| extension == "conf");
        paths.extend(
            self.names(directory)?.iter().filter(|name| is_read(name)).map(|name| directory.join(name)),
        );
        for path in paths {
            if let Some(bytes) = self.public_file(&path)? {
                self.add(path, Node::File(bytes));
            }
        }
        Ok(())
    }

    /// update-alternatives(1)'s links into `/usr`.
    fn add_alternatives(&mut self) -> Result<()> {
        let directory = Path::new("etc/alternatives");
        for name in self.names(directory)? {
            let path = directory.join(name);
            if let Ok(target) = fs_err::read_link(self.machine.join(&path))
                && is_below_usr(directory, &target)
            {
                self.add(path, Node::Link(target));
            }
        }
        Ok(())
    }

    /// A directory of authorities' certificates: links into `/usr` and to its own files, and of files the certificates.
    fn add_certificates(&mut self, directory: &Path) -> Result<()> {
        for name in self.names(directory)? {
            let path = directory.join(name);
            if let Ok(target) = fs_err::read_link(self.machine.join(&path))
                && (is_below_usr(directory, &target) || target.components().count() == 1)
            {
                self.add(path, Node::Link(target));
            } else if let Some(bytes) = self.public_file(&path)? {
                let certificates = certificates_of(&String::from_utf8_lossy(&bytes));
                if !certificates.is_empty() {
                    self.add(path, Node::File(certificates.into_bytes()));
                }
            }
        }
        Ok(())
    }

    /// One line for each node: what the image's id is the digest of.
    fn manifest(&self) -> String {
        let mut text = format!("coracle host 1\ncommand {}\n", self.command);
        for graft in &self.grafts {
            let _ = writeln!(text, "mount /{graft}");
        }
        for (path, node) in &self.nodes {
            let path = path.display();
            let _ = match node {
                Node::Directory(mode) => writeln!(text, "directory /{path} {mode:o}"),
                Node::File(bytes) => writeln!(text, "file /{path} {}", Digest::of(bytes)),
                Node::Link(target) => writeln!(text, "link /{path} {}", target.display()),
            };
        }
        text
    }

    /// Writes all of it below `root`, which is made, and counts the bytes of files.
    fn write(&self, root: &Path) -> Result<u64> {
        let mut size = 0;
        make_directory(root, RootDirectory::DEFAULT.mode)?;
        for (path, node) in &self.nodes {
            let path = root.join(path);
            match node {
                Node::Directory(mode) => make_directory(&path, *mode)?,
                Node::Link(target) => fs_err::os::unix::fs::symlink(target, &path)?,
                Node::File(bytes) => {
                    size += bytes.len() as u64;
                    fs_err::write(&path, bytes)?;
                    set_mode(&path, 0o644)?;
                }
            }
        }
        Ok(size)
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    fs_err::create_dir(path)?;
    set_mode(path, mode)
}

/// Whatever this process's umask is.
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(system("chmod", path))
}

/// Whether a link in `directory` leads to `/usr`, by its text alone.
fn is_below_usr(directory: &Path, target: &Path) -> bool {
    let mut place: Vec<&std::ffi::OsStr> = directory.iter().collect();
    for part in target.components() {
        match part {
            std::path::Component::RootDir => place.clear(),
            std::path::Component::Normal(name) => place.push(name),
            std::path::Component::ParentDir => drop(place.pop()),
            _ => {}
        }
    }
    place.first().is_some_and(|first| *first == "usr")
}

/// The certificates of a PEM file, and nothing of what stands between them: RFC 7468.
fn certificates_of(text: &str) -> String {
    let mut out = String::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let line = line.trim_end();
        let label = |begin: &str| line.strip_prefix(begin).and_then(|rest| rest.strip_suffix("-----"));
        if let Some(label) = label("-----BEGIN ") {
            let is_certificate = matches!(label, "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE");
            block = is_certificate.then(String::new);
        }
        let Some(lines) = &mut block else { continue };
        lines.push_str(line);
        lines.push('\n');
        if label("-----END ").is_some() {
            out.push_str(lines);
            block = None;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of a few files, and a store beside it.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("coracle-host-{name}-{}", std::process::id()));
            fs_err::create_dir_all(path.join("machine")).unwrap();
            Self(path)
        }

        fn root(&self) -> PathBuf {
            self.0.join("machine")
        }

        fn store(&self) -> Store {
            Store::open(&self.0.join("store")).unwrap()
        }

        fn write(&self, path: &str, text: &str, mode: u32) {
            let path = self.root().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, text).unwrap();
            set_mode(&path, mode).unwrap();
        }

        fn link(&self, target: &str, path: &str) {
            let path = self.root().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::os::unix::fs::symlink(target, path).unwrap();
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs_err::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn only_what_is_named_is_taken() {
        let machine = Machine::new("named");
        // Its /bin is a directory of its own, its /lib a link.
        machine.write("bin/bash", "", 0o755);
        machine.link("usr/lib", "lib");
        machine.link("../root", "lib64");
        machine.write("usr/lib/os-release", "", 0o644);
        machine.write("etc/ld.so.conf", "include", 0o644);
        machine.write("etc/ld.so.conf.d/open.conf", "/usr/x", 0o644);
        machine.write("etc/ld.so.conf.d/closed.conf", "secret", 0o600);
        machine.write("etc/ld.so.conf.d/other", "secret", 0o644);
        machine.write("etc/alternatives/file", "secret", 0o644);
        machine.link("/usr/bin/vim", "etc/alternatives/vi");
        machine.link("/opt/own", "etc/alternatives/own");
        machine.write("etc/ssl/certs/key.pem", "-----BEGIN PRIVATE KEY-----\nsecret\n", 0o644);
        machine.write("etc/ssl/private/key.pem", "secret", 0o600);
        machine.write("etc/passwd", "secret", 0o644);
        machine.write("root/own", "secret", 0o644);
        let composition = Composition::of(&machine.root()).unwrap();
        let nodes = &composition.nodes;
        let has = |path: &str| nodes.contains_key(Path::new(path));
        assert_eq!(composition.grafts, ["usr", "bin"]);
        assert_eq!(composition.command, "/bin/bash");
        assert!(
            ["bin", "lib", "usr", "etc/ld.so.conf", "etc/ld.so.conf.d/open.conf", "etc/alternatives/vi"]
                .iter()
                .all(|path| has(path))
        );
        for path in [
            "lib64",
            "etc/ld.so.conf.d/closed.conf",
            "etc/ld.so.conf.d/other",
            "etc/alternatives/file",
            "etc/alternatives/own",
            "etc/ssl/certs/key.pem",
            "etc/ssl/private",
            "root/own",
        ] {
            assert!(!has(path), "{path}");
        }
        let secret =
            |node: &Node| matches!(node, Node::File(bytes) if bytes.windows(6).any(|word| word == b"secret"));
        assert!(!nodes.values().any(secret));
    }

    #[test]
    fn what_changed_is_composed_anew_and_what_is_used_is_kept() {
        let machine = Machine::new("anew");
        let (root, store) = (machine.root(), machine.store());
        machine.write("etc/ld.so.conf", "one", 0o644);
        let first = store.current_host(&root).unwrap();
        assert_eq!(store.current_host(&root).unwrap().key, first.key);
        machine.write("etc/ld.so.conf", "another", 0o644);
        let second = store.current_host(&root).unwrap();
        assert_ne!(second.id, first.id);
        let conf = |current: &Current| store.host_directory().join(&current.key).join("fs/etc/ld.so.conf");
        assert_eq!(fs_err::read_to_string(conf(&second)).unwrap(), "another");
        // The same contents make the same image.
        machine.write("etc/ld.so.conf", "one", 0o644);
        assert_eq!(store.current_host(&root).unwrap().key, first.key);
        store.prune_host(&BTreeSet::from([second.id])).unwrap();
        assert!(conf(&second).exists(), "a container uses it");
        store.prune_host(&BTreeSet::new()).unwrap();
        assert!(!conf(&second).exists());
        assert!(conf(&first).exists(), "it is the current one");
    }

    #[test]
    fn of_a_pem_file_only_certificates_are_taken() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nsecret\n";
        assert_eq!(
            certificates_of(&format!("secret\n{certificate}{key}secret\n{cut}{key}{certificate}{cut}")),
            [certificate, certificate].concat()
        );
        assert_eq!(certificates_of(key), "");
    }

    #[test]
    fn links_are_judged_by_their_text() {
        for (directory, target, is_below) in [
            ("", "usr/bin", true),
            ("", "/usr/bin", true),
            ("etc/alternatives", "/usr/bin/vi", true),
            ("etc/ssl/certs", "../../../usr/share/x", true),
            ("etc/ssl/certs", "../../usr/share/x", false),
            ("etc/alternatives", "/usr/../root/x", false),
            ("etc/alternatives", "../../../../usr/x", true),
            ("", "/", false),
        ] {
            assert_eq!(
                is_below_usr(Path::new(directory), Path::new(target)),
                is_below,
                "{directory} {target}"
            );
        }
    }
}
