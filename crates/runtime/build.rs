//! Links coracle-runtime with an entry of its own: see `kernel::entry`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=coracle-runtime=-Wl,-e,coracle_entry");
    // Relocations of a program that may lie anywhere, packed: a fortieth of the file.
    println!("cargo::rustc-link-arg-bin=coracle-runtime=-Wl,-z,pack-relative-relocs");
    // Functions of the same instructions once: nothing here compares the addresses of functions.
    println!("cargo::rustc-link-arg-bin=coracle-runtime=-Wl,--icf=all");
}
