//! `load ROOT SOURCE`: loads images into the store below ROOT and prints their ids, for measuring.

use std::path::PathBuf;

fn main() -> image::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(root), Some(source)) = (args.next().map(PathBuf::from), args.next()) else {
        eprintln!("usage: load ROOT SOURCE");
        std::process::exit(2);
    };
    let store = image::Store::open(&root)?;
    for loaded in store.load(&source.parse()?, &image::LoadOptions::default())? {
        println!("{}", loaded.id);
    }
    Ok(())
}
