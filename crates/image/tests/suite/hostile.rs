//! Archives that lie, break or attack. Each is refused with an error that says why, and leaves nothing behind.

use image::{Digest, Error, Limits, LoadOptions};
use serde_json::json;

use crate::forge::{
    CONFIG, INDEX, Layer, MANIFEST, Tar, config, descriptor, gzip, image, manifest, oci_archive, seal, zstd,
};
use crate::scratch::{Scratch, is_root};

/// Loads the bytes, which must fail with `words` in the error, leave an empty store, and touch nothing outside.
fn refused(bytes: &[u8], words: &str) {
    refused_with(bytes, words, LoadOptions::default());
}

fn refused_with(bytes: &[u8], words: &str, options: LoadOptions) {
    let scratch = Scratch::new();
    let file = scratch.write("hostile.tar", bytes);
    scratch.write("canary", b"untouched");
    let store = scratch.store();
    let error = store.load(&file.to_str().unwrap().parse().unwrap(), &options).unwrap_err();
    let text = format!("{error}");
    assert!(text.contains(words), "expected {words:?} in: {text}");
    assert!(!text.contains(['\u{1b}', '\n']), "{text:?}");
    scratch.assert_empty();
    assert_eq!(std::fs::read(scratch.join("canary")).unwrap(), b"untouched");
    let mut names: Vec<_> =
        std::fs::read_dir(&scratch.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["canary", "hostile.tar", "image"]);
}

fn layer_refused(tar: Tar, words: &str) {
    refused(&image("hostile:1", &[Layer::gzip(&tar.end())]), words);
}

#[test]
fn names_that_leave_the_root() {
    let up = "../".repeat(30);
    layer_refused(Tar::new().file("../canary", b"x"), "goes up");
    layer_refused(Tar::new().file("a/../../canary", b"x"), "goes up");
    layer_refused(Tar::new().file(&format!("a/{up}tmp/x"), b"x"), "goes up");
    layer_refused(Tar::new().file("/etc/passwd", b"x"), "absolute");
    layer_refused(Tar::new().dir("//x"), "absolute");
    layer_refused(Tar::new().pax(&[("path", b"../canary")]).file("x", b"x"), "goes up");
    layer_refused(Tar::new().symlink("evil", &format!("{up}tmp")).file("evil/x", b"x"), "leaves the root");
    layer_refused(
        Tar::new().dir("a").symlink("a/b", "..").symlink("c", "a/b/..").file("c/x", b"x"),
        "leaves the root",
    );
    layer_refused(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"x"), "do not end");
    layer_refused(Tar::new().file("a", b"").file("a/x", b"x"), "not a directory");
    layer_refused(Tar::new().file(".", b"x"), "root is not a directory");
    layer_refused(Tar::new().symlink("./", "/etc"), "root is not a directory");
}

#[test]
fn an_absolute_symbolic_link_stays_inside() {
    let scratch = Scratch::new();
    let tar = Tar::new().symlink("evil", "/tmp/inside").file("evil/x", b"x").end();
    scratch.write("i.tar", &image("a:1", &[Layer::gzip(&tar)]));
    scratch.load(scratch.join("i.tar").to_str().unwrap()).unwrap();
    let image = scratch.store().resolve("a:1", None).unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("tmp/inside/x")).unwrap(), b"x");
}

#[test]
fn hard_links_that_leave_the_root() {
    layer_refused(Tar::new().link("x", "../../../../etc/passwd"), "leaves the root");
    layer_refused(Tar::new().link("x", "/etc/passwd"), "leaves the root");
    layer_refused(Tar::new().link("x", "etc/passwd"), "does not exist");
    layer_refused(Tar::new().dir("d").link("x", "d"), "to a directory");
    layer_refused(Tar::new().link("x", "."), "to a directory");
    layer_refused(Tar::new().file("x", b"").link("x", "x"), "to itself");
    layer_refused(Tar::new().file(".wh.x", b"").link("y", "x"), "removes");
    let up = "../".repeat(30);
    layer_refused(Tar::new().symlink("s", &format!("{up}etc")).link("x", "s/passwd"), "leaves the root");
    layer_refused(Tar::new().link("x", "s/passwd").symlink("s", &format!("{up}etc")), "leaves the root");
}

#[test]
fn signs_that_belong_to_overlayfs() {
    layer_refused(Tar::new().device("gone", b'3', (0, 0)), "overlayfs");
    for key in
        ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.overlay.metacopy"]
    {
        let schily = format!("SCHILY.xattr.{key}");
        layer_refused(Tar::new().pax(&[(&schily, b"y")]).dir("d"), "belongs to overlayfs");
        layer_refused(Tar::new().pax(&[(&schily, b"y")]).file("f", b""), "belongs to overlayfs");
    }
    layer_refused(
        Tar::new().pax(&[("LIBARCHIVE.xattr.user.overlay.opaque", b"eQ")]).dir("d"),
        "belongs to overlayfs",
    );
    layer_refused(
        Tar::new().pax(&[("LIBARCHIVE.xattr.user%2eoverlay%2Eopaque", b"eQ")]).dir("d"),
        "overlayfs",
    );
    layer_refused(Tar::new().file("d/.wh..", b""), "names no file");
    layer_refused(Tar::new().file("d/.wh.", b""), "names no file");
}

#[test]
fn archives_that_break_off() {
    let tar = Tar::new().dir("a").file("a/b", &[7; 3000]).end();
    let whole = image("a:1", &[Layer::plain(tar.clone())]);
    for length in [1, 511, 513, 700, 2000, whole.len() / 2, whole.len() - 3000] {
        let scratch = Scratch::new();
        let file = scratch.write("x.tar", &whole[..length]);
        assert!(scratch.load(file.to_str().unwrap()).is_err(), "{length}");
        scratch.assert_empty();
    }
    let cut = |tar: &[u8]| image("a:1", &[Layer::plain(tar.to_vec())]);
    refused(&cut(&tar[..1700]), "ends inside an entry");
    refused(&cut(&tar[..700]), "ends inside an entry");
    let mut lying = Layer::gzip(&tar);
    lying.blob.truncate(lying.blob.len() - 9);
    refused(&image("a:1", &[lying]), "cannot be decompressed");
    let mut lying = Layer::zstd(&tar);
    lying.blob.truncate(lying.blob.len() - 5);
    refused(&image("a:1", &[lying]), "cannot be decompressed");
}

#[test]
fn data_after_the_end() {
    let tar = Tar::new().file("a", b"x").end();
    for garbage in [&b"garbage"[..], &[0; 512], b"\x1f\x8b\x08"] {
        let mut lying = Layer::gzip(&tar);
        lying.blob.extend_from_slice(garbage);
        refused(&image("a:1", &[lying]), "cannot be decompressed");
    }
    let mut lying = Layer::zstd(&tar);
    lying.blob.extend_from_slice(b"garbage");
    refused(&image("a:1", &[lying]), "cannot be decompressed");
    let mut longer = tar.clone();
    longer.extend_from_slice(&Tar::new().file("hidden", b"x").end());
    refused(&image("a:1", &[Layer::gzip(&longer)]), "data follows the end");
}

#[test]
fn digests_that_lie() {
    let tar = Tar::new().file("a", b"x").end();
    // The configuration's diff id.
    let mut lying = Layer::gzip(&tar);
    lying.diff_id = Digest::of(b"other");
    refused(&image("a:1", &[lying]), "has digest");
    // A blob under another's name.
    let layer = Layer::gzip(&tar);
    let (bytes, _) = manifest(std::slice::from_ref(&layer), &config(std::slice::from_ref(&layer), "amd64"));
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, &bytes)]});
    let config = config(std::slice::from_ref(&layer), "amd64");
    let swap = |name: &[u8], content: &[u8]| {
        let mut tar = Tar::new().file("index.json", &serde_json::to_vec(&index).unwrap());
        for blob in [&bytes[..], &config, &layer.blob] {
            let content = if blob == name { content } else { blob };
            tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), content);
        }
        tar.end()
    };
    let mut flipped = layer.blob.clone();
    let last = flipped.len() - 20;
    flipped[last] ^= 1;
    let scratch = Scratch::new();
    let file = scratch.write("x.tar", &swap(&layer.blob, &flipped));
    assert!(scratch.load(file.to_str().unwrap()).is_err());
    scratch.assert_empty();
    // Same length, other bytes, a valid archive.
    let other = Layer::plain(Tar::new().file("a", b"y").end());
    let plain = Layer::plain(tar.clone());
    let swapped = image("a:1", std::slice::from_ref(&plain));
    let at = swapped.windows(512).position(|window| window == &plain.blob[..512]).unwrap();
    let mut swapped = swapped;
    swapped[at..at + other.blob.len()].copy_from_slice(&other.blob);
    refused(&swapped, "has digest");
    refused(&swap(&bytes, &[&bytes[..], b" "].concat()), "bytes, not");
    refused(
        &swap(
            &config,
            &config.iter().map(|byte| if *byte == b'6' { b'7' } else { *byte }).collect::<Vec<_>>(),
        ),
        "has digest",
    );
    refused(&swap(&layer.blob, &layer.blob[1..]), "bytes, not");
}

#[test]
fn documents_that_contradict_themselves() {
    let layer = Layer::gzip(&Tar::new().file("a", b"x").end());
    let layers = std::slice::from_ref(&layer);
    let good = config(layers, "amd64");
    let with = |manifest: serde_json::Value, config: &[u8]| {
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, &bytes)]});
        oci_archive(&index, &[bytes, config.to_vec(), layer.blob.clone()])
    };
    let normal = json!({"schemaVersion": 2, "config": descriptor(CONFIG, &good), "layers": [descriptor(layer.media_type, &layer.blob)]});
    let mut both = normal.clone();
    both["manifests"] = json!([]);
    refused(&with(both, &good), "mixes");
    let mut typed = normal.clone();
    typed["mediaType"] = json!(INDEX);
    refused(&with(typed, &good), "mixes");
    let mut twice = normal.clone();
    twice["layers"] =
        json!([descriptor(layer.media_type, &layer.blob), descriptor(layer.media_type, &layer.blob)]);
    refused(&with(twice, &good), "another number of layers");
    let mut foreign = normal.clone();
    foreign["layers"] = json!([descriptor("application/vnd.in-toto+json", &layer.blob)]);
    refused(&with(foreign, &good), "no tar archive");
    let mut sha512 = normal.clone();
    sha512["config"]["digest"] = json!("sha512:00");
    refused(&with(sha512, &good), "malformed");
    let mut huge = normal.clone();
    huge["config"]["size"] = json!(u64::MAX);
    refused(&with(huge, &good), "bytes, not");
    refused(&with(json!([]), &good), "malformed");
    let text = String::from_utf8(good.clone()).unwrap();
    let double = text.replacen("\"os\":", "\"os\":\"x\",\"os\":", 1).into_bytes();
    let mut doubled = normal.clone();
    doubled["config"] = descriptor(CONFIG, &double);
    refused(&with(doubled, &double), "malformed");
    // An index that leads to itself cannot be made (digests); one nested too deeply can.
    let mut bytes = serde_json::to_vec(&normal).unwrap();
    let mut blobs = vec![bytes.clone(), good, layer.blob.clone()];
    for level in 0..8 {
        let kind = if level == 0 { MANIFEST } else { INDEX };
        bytes = serde_json::to_vec(
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(kind, &bytes)]}),
        )
        .unwrap();
        blobs.push(bytes.clone());
    }
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(INDEX, &bytes)]});
    refused(&oci_archive(&index, &blobs), "nested too deeply");
    // A missing blob.
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, b"nowhere")]});
    refused(&oci_archive(&index, &[]), "lacks blob");
}

#[test]
fn no_archives() {
    refused(b"", "neither index.json");
    refused(&[0; 10240], "neither index.json");
    refused(b"hello, this is a text and not an archive at all", "ends inside");
    refused(&[b'x'; 2048], "checksum");
    refused(&gzip(b""), "neither index.json");
    refused(&zstd(&[b'x'; 600]), "checksum");
    refused(b"BZh91AY&SY", "bzip2");
    refused(b"\xfd7zXZ\0", "xz");
    refused(&gzip(b"text")[..12], "cannot be decompressed");
    let twice = Tar::new().file("index.json", b"{}").file("index.json", b"{}").end();
    refused(&twice, "two files of one name");
    refused(&Tar::new().file("index.json", b"{").end(), "malformed");
    refused(&Tar::new().file("index.json", br#"{"schemaVersion":2,"manifests":[]}"#).end(), "empty");
    refused(&Tar::new().file("manifest.json", b"[]").end(), "empty");
    let docker = |text: &str| Tar::new().file("manifest.json", text.as_bytes()).end();
    refused(&docker(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#), "lacks");
    refused(&docker(r#"[{"Config":"/etc/passwd","Layers":[]}]"#), "lacks");
    refused(&docker(r#"[{"Config":"manifest.json","Layers":[]}]"#), "malformed");
    let long = vec![b' '; 5 << 20];
    refused(&Tar::new().file("index.json", &long).end(), "the most that is read");
}

#[test]
fn headers_that_lie() {
    let mut bad = Tar::new().file("a", b"x").0;
    bad[0] = b'b';
    layer_refused(Tar(bad), "checksum");
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut tar = Tar::new().file("a", b"x").0;
        change(&mut tar[..512]);
        seal(&mut tar[..512]);
        Tar(tar)
    };
    layer_refused(
        with(&|header| header[124..136].copy_from_slice(b"x0000000001\0")),
        "size is not a valid number",
    );
    layer_refused(
        with(&|header| header[124..136].copy_from_slice(&[0xff; 12])),
        "size is not a valid number",
    );
    layer_refused(with(&|header| header[124..136].copy_from_slice(b"77777777777\0")), "ends inside an entry");
    layer_refused(with(&|header| header[156] = b'M'), "not understood");
    layer_refused(with(&|header| header[0] = 0), "name is empty");
    layer_refused(
        with(&|header| header[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
        "owner",
    );
    layer_refused(Tar::new().raw(b"l", b'2', 0, (0, 0), 0, b"", (0, 0), 0, b""), "target is empty");
    layer_refused(Tar::new().pax_raw(b"8 path=a\n").file("x", b""), "malformed");
    layer_refused(Tar::new().pax_raw(b"999999999999999999999 path=a\n").file("x", b""), "malformed");
    layer_refused(Tar::new().pax(&[("path", b"a"), ("path", b"b")]).file("x", b""), "twice");
    layer_refused(Tar::new().pax(&[("path", b"a\0b")]).file("x", b""), "NUL");
    layer_refused(Tar::new().pax(&[("size", b"-1")]).file("x", b""), "size");
    layer_refused(Tar::new().pax(&[("size", b"99999999999999999999")]).file("x", b""), "size");
    layer_refused(Tar::new().pax(&[("uid", b"4294967295")]).file("x", b""), "owner");
    layer_refused(Tar::new().pax(&[("SCHILY.xattr.", b"x")]).file("x", b""), "attribute");
    layer_refused(Tar::new().pax(&[("path", b"a")]), "followed by no entry");
    let long = "x/".repeat(2500);
    layer_refused(Tar::new().pax(&[("path", long.as_bytes())]).file("x", b""), "longer");
    let deep = "x/".repeat(600);
    layer_refused(Tar::new().pax(&[("path", deep.as_bytes())]).dir("x"), "deep");
    let wide = "x".repeat(300);
    layer_refused(Tar::new().pax(&[("path", wide.as_bytes())]).file("x", b""), "name too long");
    let huge = Tar::new().raw(b"P", b'x', 0, (0, 0), 0, b"", (0, 0), 1 << 30, b"");
    layer_refused(huge, "longer than the limit");
    let name = Tar::new().file("a\u{1b}[31m/../x", b"");
    layer_refused(name, "goes up");
}

#[test]
fn sparse_maps_that_lie() {
    let sparse = |map: &[u8], size: &[u8]| {
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
                ("GNU.sparse.size", size),
                ("GNU.sparse.map", map),
            ])
            .file("s", b"1234")
    };
    layer_refused(sparse(b"0,2,1,2", b"10"), "sparse");
    layer_refused(sparse(b"0,2,8,3", b"10"), "sparse");
    layer_refused(sparse(b"8,4", b"10"), "sparse");
    layer_refused(sparse(b"0,4,9", b"10"), "sparse");
    layer_refused(sparse(b"9223372036854775807,4", b"9223372036854775807"), "sparse");
    layer_refused(sparse(b"0,4", b"9223372036854775807"), "limit");
    let version_1 = |body: &[u8]| {
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"10"),
                ("GNU.sparse.name", b"s"),
            ])
            .file("x", body)
    };
    layer_refused(version_1(b"1\n0\n"), "sparse");
    layer_refused(version_1(&[b"99999999999\n".as_slice(), &[0; 500]].concat()), "longer than the limit");
    layer_refused(version_1(&[b'1'; 512]), "sparse");
}

#[test]
fn bombs() {
    let options = |limits: Limits| LoadOptions { limits, ..LoadOptions::default() };
    let zeros = image("a:1", &[Layer::gzip(&Tar::new().file("z", &vec![0; 8 << 20]).end())]);
    refused_with(&zeros, "limit of 1048576 bytes", options(Limits { bytes: 1 << 20, ..Limits::default() }));
    let sparse = Tar::new()
        .pax(&[("GNU.sparse.size", b"1099511627776"), ("GNU.sparse.numblocks", b"0")])
        .file("s", b"")
        .end();
    refused_with(&image("a:1", &[Layer::gzip(&sparse)]), "bytes", LoadOptions::default());
    let many = (0..200).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), b"")).end();
    refused_with(
        &image("a:1", &[Layer::gzip(&many)]),
        "limit of 100 entries",
        options(Limits { entries: 100, ..Limits::default() }),
    );
    let two = [Layer::gzip(&many[..many.len() / 1024 * 512]), Layer::gzip(&many)];
    refused_with(
        &image("a:1", &two),
        "limit of 250 entries",
        options(Limits { entries: 250, ..Limits::default() }),
    );
    // A compressed outer archive is limited too.
    refused_with(
        &gzip(&vec![0; 8 << 20]),
        "limit of 1048576 bytes",
        options(Limits { bytes: 1 << 20, ..Limits::default() }),
    );
}

#[test]
fn an_error_says_what_to_do() {
    let scratch = Scratch::new();
    scratch.write("i.tar", &image("debian:12", &[Layer::gzip(&Tar::new().file("a", b"").end())]));
    scratch.load(scratch.join("i.tar").to_str().unwrap()).unwrap();
    let error = scratch.store().resolve("debain:12", None).unwrap_err();
    assert!(matches!(&error, Error::UnknownImage { nearest, .. } if nearest == &["debian:12"]), "{error}");
    assert_eq!(error.advice().unwrap(), "did you mean debian:12?");
    let error = scratch.load(&format!("oci-archive:{}:nope", scratch.join("i.tar").display())).unwrap_err();
    assert!(error.to_string().contains("it has: debian:12"), "{error}");
    let error = scratch.load("/nonexistent.tar").unwrap_err();
    assert!(error.to_string().contains("/nonexistent.tar: No such file"), "{error}");
    if !is_root() {
        eprintln!("not root: owners are not checked");
    }
}
