//! Verifies the images of a store: `verify ROOT [NAME]`. A line for each damage; `cargo xtask crash` asks it after each power cut.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (root, name) = (arguments.next().unwrap_or_default(), arguments.next());
    let damage = image::Store::open(root.as_ref()).and_then(|store| store.verify(name.as_deref()));
    match damage {
        Ok(damage) => {
            for image::Damage { path, expected, found } in &damage {
                println!("{}: {expected} -> {found}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
