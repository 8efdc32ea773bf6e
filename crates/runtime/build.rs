//! Links coracle-runtime with an entry of its own: see `kernel::entry`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=coracle-runtime=-Wl,-e,coracle_entry");
    // Relocations of a program that may lie anywhere, packed: a fortieth of the file.
    println!("cargo::rustc-link-arg-bin=coracle-runtime=-Wl,-z,pack-relative-relocs");
}
