//! The index can be lost, old or wrong at any time: what is listed follows from the files.

use std::path::PathBuf;

use image::Store;

use crate::forge::{Layer, Tar, image};
use crate::scratch::Scratch;

fn load(scratch: &Scratch, name: &str) {
    let layer = Layer::gzip(&Tar::new().file("f", name.as_bytes()).end());
    let file = scratch.write("i.tar", &image(name, &[layer]));
    scratch.load(file.to_str().unwrap()).unwrap();
}

fn index(scratch: &Scratch) -> PathBuf {
    scratch.join("image/listing.json")
}

fn listed(store: &Store) -> String {
    format!("{:#?}", store.images().unwrap())
}

/// What the files alone say.
fn truth(scratch: &Scratch) -> String {
    for name in ["listing.json", "listing.old"] {
        let _ = std::fs::remove_file(scratch.join("image").join(name));
    }
    listed(&scratch.store())
}

#[test]
fn what_is_listed_follows_from_the_files() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut olds = Vec::new();
    let mut check = |what: &str| {
        let found = listed(&store);
        // What commands left, not what a look at the images made of it.
        olds.push(std::fs::read(index(&scratch)).unwrap());
        assert_eq!(found, truth(&scratch), "{what}");
        for old in &olds[..olds.len() - 1] {
            std::fs::write(index(&scratch), old).unwrap();
            assert_eq!(found, listed(&store), "{what}: with an old index");
            std::fs::write(scratch.join("image/listing.old"), old).unwrap();
            std::fs::remove_file(index(&scratch)).unwrap();
            assert_eq!(found, listed(&store), "{what}: made from an old index");
        }
        let good = std::fs::read(index(&scratch)).unwrap();
        for at in [0, 70, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(index(&scratch), bad).unwrap();
            assert_eq!(found, listed(&store), "{what}: a flipped bit at {at}");
            std::fs::write(index(&scratch), &good[..at]).unwrap();
            assert_eq!(found, listed(&store), "{what}: {at} bytes");
        }
        found
    };
    let empty = check("nothing");
    load(&scratch, "a:1");
    load(&scratch, "b.org/x/y:1");
    let two = check("two images");
    // What has not been changed for a while is not read again from here on.
    std::thread::sleep(std::time::Duration::from_secs(4));
    store.tag("a:1", &"a:2".parse().unwrap()).unwrap();
    store.tag("a:1", &"b.org/x/z:3".parse().unwrap()).unwrap();
    let four = check("four names");
    assert_eq!(four.matches("Summary").count(), 4);
    store.tag("b.org/x/y:1", &"a:2".parse().unwrap()).unwrap();
    assert_ne!(check("a name that moved"), four);
    store.tag("a:1", &"a:2".parse().unwrap()).unwrap();
    assert_eq!(check("and back"), four);
    scratch.remove("a:2", false, &[]).unwrap();
    scratch.remove("b.org/x/z:3", false, &[]).unwrap();
    assert_eq!(check("two again"), two);
    // By hand, which no command would do.
    std::fs::remove_file(scratch.join("image/references/b.org/x/y/:1")).unwrap();
    assert!(check("a name taken away by hand").contains("repository: None"));
    for image in store.images().unwrap() {
        scratch.remove(&image.id.hex(), true, &[]).unwrap();
    }
    assert_eq!(check("nothing again"), empty);
}

#[test]
fn a_look_writes_the_index_once() {
    let scratch = Scratch::new();
    load(&scratch, "a:1");
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(index(&scratch)).unwrap());
    let written = inode();
    listed(&scratch.store());
    assert_eq!(inode(), written, "the load's is good");
    std::fs::remove_file(index(&scratch)).unwrap();
    listed(&scratch.store());
    let made = inode();
    listed(&scratch.store());
    assert_eq!(inode(), made);
}
