//! What a layer means, by the letter of the specification and the kernel.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use image::{Image, Store};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::forge::{Layer, Tar, gzip, image};
use crate::scratch::{Scratch, describe, is_root, xattrs};

/// The image as a container sees it: a detached mount, which is gone when it is closed.
pub struct Merged(rustix::fd::OwnedFd);

impl Merged {
    pub fn new(scratch: &Scratch, image: &Image) -> Self {
        // The upper directory's attributes are the root's.
        let top = scratch.join("top");
        std::fs::create_dir_all(&top).unwrap();
        rustix::fs::chmod(&top, Mode::from_raw_mode(image.root.mode)).unwrap();
        let owner = (rustix::fs::Uid::from_raw(image.root.uid), rustix::fs::Gid::from_raw(image.root.gid));
        rustix::fs::chown(&top, Some(owner.0), Some(owner.1)).unwrap();
        Self::mount(&top, image, false)
    }

    /// The same where only `user.overlay.*` attributes can be.
    pub fn in_user_namespace(scratch: &Scratch, image: &Image) -> Self {
        let top = scratch.join("top");
        std::fs::create_dir_all(&top).unwrap();
        Self::mount(&top, image, true)
    }

    fn mount(top: &Path, image: &Image, userxattr: bool) -> Self {
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        if userxattr {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), "userxattr").unwrap();
        }
        for layer in std::iter::once(top).chain(image.layers.iter().rev().map(|path| path.as_path())) {
            // A kernel before 6.5 takes any setting, as many as fit into a page.
            match rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", layer) {
                Err(rustix::io::Errno::INVAL) => return Self::mount_by_options(top, image, userxattr),
                result => result.unwrap(),
            }
        }
        // "off" means "follow" where the module's redirect_always_follow is on, which userxattr refuses.
        for (option, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")] {
            rustix::mount::fsconfig_set_string(fs.as_fd(), option, value).unwrap();
        }
        match rustix::mount::fsconfig_create(fs.as_fd()) {
            Err(rustix::io::Errno::INVAL) => return Self::mount_by_options(top, image, userxattr),
            result => result.unwrap(),
        }
        Self(
            rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
                .unwrap(),
        )
    }

    /// For kernels without `lowerdir+`: mount(2) takes a page of options, so the layers get short names.
    fn mount_by_options(top: &Path, image: &Image, userxattr: bool) -> Self {
        let layers = std::iter::once(top).chain(image.layers.iter().rev().map(|path| path.as_path()));
        let own = top.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let short = Path::new("/tmp").join(own.replace("coracle-image-", "m"));
        std::fs::create_dir_all(&short).unwrap();
        let mut lower = Vec::new();
        for (number, layer) in layers.enumerate() {
            let name = short.join(number.to_string());
            let _ = std::fs::remove_file(&name);
            std::os::unix::fs::symlink(layer, &name).unwrap();
            lower.push(name.to_str().unwrap().to_owned());
        }
        let user = if userxattr { ",userxattr" } else { "" };
        let options =
            format!("lowerdir={},redirect_dir=nofollow,metacopy=off,index=off{user}", lower.join(":"));
        // What is beyond the page is cut off without a word.
        assert!(options.len() < 4096, "{} bytes of options", options.len());
        let options = std::ffi::CString::new(options).unwrap();
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &short, "overlay", none, Some(options.as_c_str())).unwrap();
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, &short, clone);
        rustix::mount::unmount(&short, rustix::mount::UnmountFlags::DETACH).unwrap();
        std::fs::remove_dir_all(&short).unwrap();
        Self(tree.unwrap())
    }

    pub fn path(&self) -> std::path::PathBuf {
        format!("/proc/self/fd/{}/.", std::os::fd::AsRawFd::as_raw_fd(&self.0)).into()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = describe(&self.path())
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names
    }
}

pub fn load(scratch: &Scratch, layers: &[Layer]) -> (Store, Image) {
    let file = scratch.write("i.tar", &image("test:1", layers));
    scratch.load(file.to_str().unwrap()).unwrap();
    let store = scratch.store();
    let image = store.resolve("test:1", None).unwrap();
    assert_eq!(store.verify(None).unwrap(), []);
    (store, image)
}

fn merged_names(layers: &[Tar]) -> Vec<String> {
    let scratch = Scratch::new();
    let layers: Vec<_> = layers.iter().map(|tar| Layer::gzip(&tar.clone().end())).collect();
    let (_, image) = load(&scratch, &layers);
    Merged::new(&scratch, &image).names()
}

#[test]
fn whiteouts_do_not_depend_on_their_place() {
    if !is_root() {
        return eprintln!("skipped: mounting overlayfs needs root");
    }
    let base = Tar::new().dir("d").file("d/old", b"").file("gone", b"").dir("sub").file("sub/x", b"");
    // The directory comes back, empty but for what the layer puts there.
    let entries = [Tar::new().file(".wh.d", b""), Tar::new().dir("d"), Tar::new().file("d/new", b"")];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let top = Tar(order.iter().flat_map(|at| entries[*at].0.clone()).collect());
        assert_eq!(merged_names(&[base.clone(), top]), ["d", "d/new", "gone", "sub", "sub/x"], "{order:?}");
    }
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let entries =
            [Tar::new().file("d/.wh..wh..opq", b""), Tar::new().dir("d"), Tar::new().file("d/new", b"")];
        let top = Tar(order.iter().flat_map(|at| entries[*at].0.clone()).collect());
        assert_eq!(merged_names(&[base.clone(), top]), ["d", "d/new", "gone", "sub", "sub/x"], "{order:?}");
    }
    // A file of the same layer is not taken away.
    for top in [
        Tar::new().file(".wh.gone", b"").file("gone", b"2"),
        Tar::new().file("gone", b"2").file(".wh.gone", b""),
    ] {
        assert_eq!(merged_names(&[base.clone(), top]), ["d", "d/old", "gone", "sub", "sub/x"]);
    }
    assert_eq!(
        merged_names(&[base.clone(), Tar::new().file(".wh.gone", b"").file("sub/.wh.x", b"")]),
        ["d", "d/old", "sub"]
    );
    // A whiteout of nothing, twice, and a note of aufs.
    let top = Tar::new().file(".wh.none", b"").file(".wh.none", b"").file(".wh..wh.aufs", b"");
    assert_eq!(merged_names(&[base.clone(), top]), ["d", "d/old", "gone", "sub", "sub/x"]);
    // An opaque root hides all layers below.
    let top = Tar::new().file(".wh..wh..opq", b"").file("only", b"");
    assert_eq!(merged_names(&[base, top]), ["only"]);
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    if !is_root() {
        return eprintln!("skipped: mounting overlayfs needs root");
    }
    let base = Tar::new().dir("d").file("d/low", b"");
    let top =
        Tar::new().dir("d").file("d/a", b"").file("d", b"file").dir("d").file("d/b", b"").symlink("d/b", "x");
    assert_eq!(merged_names(&[base.clone(), top]), ["d", "d/b"]);
    let top = Tar::new().symlink("d", "elsewhere").dir("d").file("d/c", b"");
    assert_eq!(merged_names(&[base, top]), ["d", "d/c"]);
}

#[test]
fn what_a_layer_leaves_out_comes_from_below() {
    if !is_root() {
        return eprintln!("skipped: owners need root");
    }
    let scratch = Scratch::new();
    let base = Tar::new()
        .dir_with("tmp", 0o1777, (5, 6))
        .dir_with("tmp/deep", 0o700, (7, 8))
        .file("target", b"linked")
        .symlink("lib", "usr/lib");
    let middle = Tar::new().file("other", b"");
    let top = Tar::new()
        .file("tmp/deep/new", b"x")
        .link("name", "target")
        .link("tmp/name2", "target")
        .file("lib/x", b"");
    let layers = [base, middle, top].map(|tar| Layer::gzip(&tar.end()));
    let (store, image) = load(&scratch, &layers);
    let merged = Merged::new(&scratch, &image);
    let stat = |path: &str| std::fs::symlink_metadata(merged.path().join(path)).unwrap();
    assert_eq!((stat("tmp").mode() & 0o7777, stat("tmp").uid(), stat("tmp").gid()), (0o1777, 5, 6));
    assert_eq!((stat("tmp/deep").mode() & 0o7777, stat("tmp/deep").uid()), (0o700, 7));
    assert_eq!(stat("tmp").mtime(), 1_100_000_000);
    assert_eq!(stat("name").ino(), stat("target").ino());
    assert_eq!(stat("tmp/name2").ino(), stat("target").ino());
    assert_eq!(std::fs::read(merged.path().join("name")).unwrap(), b"linked");
    // As docker's overlay2: the directory takes the link's place.
    assert!(stat("lib").is_dir());
    // Not self-contained: the key is of the whole chain, so the same layer on another base is another directory.
    assert!(image.layers[2].to_str().unwrap().contains("-chain-"));
    assert!(!image.layers[1].to_str().unwrap().contains("-chain-"));
    let other = Layer::gzip(&Tar::new().dir_with("tmp", 0o711, (1, 1)).file("target", b"2").end());
    let file = scratch.write("j.tar", &crate::forge::image("test:2", &[other, layers[2].clone()]));
    scratch.load(file.to_str().unwrap()).unwrap();
    let image2 = store.resolve("test:2", None).unwrap();
    assert_ne!(image.layers[2], image2.layers[1]);
    assert_eq!(std::fs::metadata(image2.layers[1].join("tmp")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(store.verify(None).unwrap(), []);
}

#[test]
fn every_kind_of_file_is_kept() {
    if !is_root() {
        return eprintln!("skipped: devices and owners need root");
    }
    let scratch = Scratch::new();
    let long = "n".repeat(200);
    let path = format!("{long}/{long}");
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let gnu_long = |tar: Tar, name: &str| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        tar.raw(b"././@LongLink", b'L', 0, (0, 0), 0, b"", (0, 0), bytes.len() as u64, &bytes)
    };
    let mut tar = Tar::new()
        .dir_with("./", 0o750, (3, 4))
        .raw(b"suid", b'0', 0o6755, (10, 20), 1_234_567_890, b"", (0, 0), 1, b"x")
        .link("suid2", "suid")
        .device("null", b'3', (1, 3))
        .device("disk", b'4', (8, 1))
        .device("pipe", b'6', (0, 0))
        .symlink("link", "/a/b")
        .pax(&[("path", path.as_bytes())])
        .file("short", b"long name")
        .pax(&[("uid", b"3000000"), ("gid", b"4000000"), ("mtime", b"1700000000.123456789")])
        .file("big-ids", b"")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .file("capable", b"")
        .pax(&[("LIBARCHIVE.xattr.user.%61", b"AQI"), ("SCHILY.xattr.user.b", b"v=1\n")])
        .file("xattrs", b"")
        .pax(&[("SCHILY.xattr.trusted.note", b"n")])
        .symlink("xlink", "nowhere")
        .pax(&[("mtime", b"-5.5")])
        .file("old", b"");
    tar = gnu_long(tar, "gnu/".repeat(60).trim_end_matches('/')).file("x", b"g");
    let mut negative = Tar::new().file("base256", b"").0;
    negative[136..148]
        .copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf6]);
    crate::forge::seal(&mut negative[..512]);
    tar.0.extend(negative);
    let (_, image) = load(&scratch, &[Layer::gzip(&tar.end())]);
    assert_eq!((image.root.mode, image.root.uid, image.root.gid), (0o750, 3, 4));
    let root = &image.layers[0];
    let stat = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!((stat("suid").mode() & 0o7777, stat("suid").uid(), stat("suid").gid()), (0o6755, 10, 20));
    assert_eq!((stat("suid").mtime(), stat("suid").nlink()), (1_234_567_890, 2));
    assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(stat("disk").rdev(), rustix::fs::makedev(8, 1));
    assert_eq!(stat("pipe").mode() & 0o170000, 0o010000);
    assert_eq!(std::fs::read_link(root.join("link")).unwrap(), Path::new("/a/b"));
    assert_eq!(std::fs::read(root.join(&path)).unwrap(), b"long name");
    assert_eq!((stat("big-ids").uid(), stat("big-ids").gid()), (3_000_000, 4_000_000));
    assert_eq!((stat("big-ids").mtime(), stat("big-ids").mtime_nsec()), (1_700_000_000, 123_456_789));
    assert_eq!((stat("old").mtime(), stat("old").mtime_nsec()), (-6, 500_000_000));
    assert_eq!(stat("base256").mtime(), -10);
    assert_eq!(xattrs(&root.join("capable")), [("security.capability".to_owned(), capability.to_vec())]);
    assert_eq!(
        xattrs(&root.join("xattrs")),
        [("user.a".to_owned(), vec![1, 2]), ("user.b".to_owned(), b"v=1\n".to_vec())]
    );
    assert_eq!(xattrs(&root.join("xlink")), [("trusted.note".to_owned(), b"n".to_vec())]);
    assert_eq!(std::fs::read(root.join("gnu/".repeat(60).trim_end_matches('/'))).unwrap(), b"g");
}

#[test]
fn sparse_files_of_every_format() {
    let scratch = Scratch::new();
    let mut expected = vec![0; 100_000];
    expected[4096..4100].copy_from_slice(b"abcd");
    expected[50_000..50_002].copy_from_slice(b"ef");
    let body = b"abcdef";
    let old = {
        let mut tar = Tar::new().raw(b"old", b'S', 0o644, (0, 0), 0, b"", (0, 0), 6, body).0;
        tar[257..265].copy_from_slice(b"ustar  \0");
        for (at, value) in [(386, 4096), (398, 4), (410, 50_000), (422, 2), (483, 100_000)] {
            tar[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
        }
        crate::forge::seal(&mut tar[..512]);
        tar
    };
    let mut map = b"2\n4096\n4\n50000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(body);
    let mut tar = Tar(old)
        .pax(&[
            ("GNU.sparse.size", b"100000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"4096"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", b"50000"),
            ("GNU.sparse.numbytes", b"2"),
        ])
        .file("p00", body)
        .pax(&[
            ("GNU.sparse.size", b"100000"),
            ("GNU.sparse.map", b"4096,4,50000,2"),
            ("GNU.sparse.name", b"p01"),
        ])
        .file("GNUSparseFile.1/p01", body)
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"p10"),
            ("GNU.sparse.realsize", b"100000"),
        ])
        .file("GNUSparseFile.1/p10", &map);
    // What GNU tar itself writes.
    let file = scratch.write("sparse", b"");
    let handle = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    for at in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&handle, b"data", at * 65536 + 100).unwrap();
    }
    handle.set_len(5_000_000).unwrap();
    let real = std::fs::read(&file).unwrap();
    let mut names = vec![];
    for format in [
        "--format=gnu",
        "--format=pax --sparse-version=0.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=1.0",
    ] {
        let out = scratch.join("gnu.tar");
        let name = format!("g{}", names.len());
        std::fs::rename(scratch.join("sparse"), scratch.join(&name)).unwrap();
        let dir = scratch.path.to_str().unwrap();
        let mut args = vec!["-C", dir, "-S", "-cf", out.to_str().unwrap(), "-b1"];
        args.extend(format.split(' '));
        args.push(&name);
        crate::scratch::run("tar", &args);
        std::fs::rename(scratch.join(&name), scratch.join("sparse")).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        assert!(bytes.len() < 1_000_000);
        // All but the two blocks of the end.
        tar.0.extend_from_slice(&bytes[..bytes.len() - 1024]);
        names.push(name);
    }
    let (_, image) = load(&scratch, &[Layer::gzip(&tar.end())]);
    for name in ["old", "p00", "p01", "p10"] {
        let path = image.layers[0].join(name);
        assert_eq!(std::fs::read(&path).unwrap(), expected, "{name}");
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 30_000, "{name} has no holes");
    }
    for name in names {
        assert_eq!(std::fs::read(image.layers[0].join(&name)).unwrap(), real, "{name}");
    }
}

#[test]
fn gzip_of_several_members_and_zstd_of_several_frames() {
    let scratch = Scratch::new();
    let tar = Tar::new().file("a", &[b'x'; 5000]).file("b", &[b'y'; 5000]).end();
    let mut members = Layer::gzip(&tar);
    members.blob = [gzip(&tar[..700]), gzip(b""), gzip(&tar[700..5000]), gzip(&tar[5000..])].concat();
    let mut frames = Layer::zstd(&tar);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    frames.blob = [crate::forge::zstd(&tar[..900]), skippable, crate::forge::zstd(&tar[900..])].concat();
    let (_, image) = load(&scratch, &[members, frames]);
    // One content, one directory, mounted once.
    assert_eq!(image.layers.len(), 1);
    assert_eq!(std::fs::read(image.layers[0].join("b")).unwrap(), [b'y'; 5000]);
}

#[test]
fn an_image_of_120_layers() {
    let scratch = Scratch::new();
    let layers: Vec<_> = (0..120)
        .map(|at| {
            Layer::gzip(
                &Tar::new()
                    .dir("d")
                    .file(&format!("d/{at}"), at.to_string().as_bytes())
                    .file("last", at.to_string().as_bytes())
                    .end(),
            )
        })
        .collect();
    let (_, image) = load(&scratch, &layers);
    assert_eq!(image.layers.len(), 120);
    if is_root() {
        let merged = Merged::new(&scratch, &image);
        assert_eq!(std::fs::read_dir(merged.path().join("d")).unwrap().count(), 120);
        assert_eq!(std::fs::read(merged.path().join("last")).unwrap(), b"119");
    }
}

#[test]
fn a_directory_that_nobody_may_enter() {
    let scratch = Scratch::new();
    let tar = Tar::new().dir_with("closed", 0, (0, 0)).file("closed/x", b"in").end();
    let (_, image) = load(&scratch, &[Layer::gzip(&tar)]);
    assert_eq!(std::fs::metadata(image.layers[0].join("closed")).unwrap().mode() & 0o7777, 0);
    assert_eq!(rustix::fs::openat(CWD, &image.layers[0], OFlags::PATH, Mode::empty()).map(drop), Ok(()));
}
