//! What the fuzz targets try without end, in small: damaged archives and names neither panic nor leave the root.

use crate::forge::{Layer, Tar, gzip, image};
use crate::scratch::Scratch;

/// Numbers that look random and are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn sample() -> Tar {
    Tar::new()
        .dir("d")
        .file("d/f", b"content")
        .symlink("s", "d")
        .link("h", "d/f")
        .file("s/x", b"")
        .file("d/.wh.y", b"")
        .pax(&[("path", b"long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("p", b"1")
        .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"1,2,5,2")])
        .file("z", b"abcd")
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at.max(1)),
            3 => bytes[at] = *b"/.07=,\n "[random.below(8)..].first().unwrap(),
            _ => {
                let from = random.below(bytes.len()) / 512 * 512;
                let block = bytes[from..(from + 512).min(bytes.len())].to_vec();
                let at = at / 512 * 512;
                bytes.splice(at..at, block);
            }
        }
    }
    // Most changes would only be seen by the checksum.
    for header in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        crate::forge::seal(header);
    }
}

#[test]
fn of_archives_are_read_without_panic() {
    let mut random = Random(88_172_645_463_325_252);
    for _ in 0..4_000 {
        let mut bytes = sample().end();
        mutate(&mut bytes, &mut random);
        image::fuzz_archive(&bytes);
    }
}

#[test]
fn of_layers_stay_in_the_root() {
    let mut random = Random(1_234_567);
    let scratch = Scratch::new();
    scratch.write("canary", b"untouched");
    let mut loaded = 0;
    for _ in 0..200 {
        let mut bytes = sample().0;
        mutate(&mut bytes, &mut random);
        bytes.extend_from_slice(&[0; 1024]);
        let file =
            scratch.write("i.tar", &image("m:1", &[Layer { blob: gzip(&bytes), ..Layer::gzip(&bytes) }]));
        if let Ok(images) = scratch.load(file.to_str().unwrap()) {
            loaded += 1;
            let store = scratch.store();
            assert_eq!(store.verify(None).unwrap(), []);
            scratch.remove(&images[0].id.hex(), true, &[]).unwrap();
        }
    }
    assert!(loaded > 10, "only {loaded} were good enough to be loaded");
    scratch.assert_empty();
    assert_eq!(std::fs::read(scratch.join("canary")).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(&scratch.path).unwrap().count(), 3);
}

#[test]
fn of_names_are_read_without_panic() {
    let mut random = Random(42);
    for _ in 0..20_000 {
        let mut text = b"localhost:5000/a/b_c.d-e:tag@sha256:00".to_vec();
        for _ in 0..random.below(6) {
            let at = random.below(text.len());
            text[at] = b"/:@._-aZ0[]\xc3"[random.below(12)];
        }
        text.truncate(1 + random.below(38));
        image::fuzz_reference(&text);
    }
}
