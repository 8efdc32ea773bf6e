//! What is loaded from archives is what was in them.

use crate::forge::{Layer, Tar, image};
use crate::scratch::{Scratch, is_root};

#[test]
fn an_oci_archive_becomes_layers() {
    let scratch = Scratch::new();
    let first = Tar::new().dir("etc/").file("etc/a", b"one").file("etc/b", b"two").end();
    let second = Tar::new().dir("etc/").file("etc/.wh.a", b"").file("c", b"three").end();
    scratch.write("i.tar", &image("demo:1", &[Layer::gzip(&first), Layer::zstd(&second)]));
    let loaded = scratch.load(&format!("oci-archive:{}", scratch.join("i.tar").display())).unwrap();
    assert_eq!(loaded[0].names[0].to_string(), "demo:1");
    let image = scratch.store().resolve("demo:1", None).unwrap();
    assert_eq!(image.id, loaded[0].id);
    assert_eq!(image.config.env, ["A=b"]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(std::fs::read(image.layers[0].join("etc/a")).unwrap(), b"one");
    assert_eq!(std::fs::read(image.layers[1].join("c")).unwrap(), b"three");
    assert!(is_root());
}
