//! How `coracle` is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relocations of a program that may lie anywhere, packed: fewer bytes to read at each start.
    println!("cargo::rustc-link-arg-bin=coracle=-Wl,-z,pack-relative-relocs");
    // Functions of the same instructions once: nothing here compares the addresses of functions.
    println!("cargo::rustc-link-arg-bin=coracle=-Wl,--icf=all");
}
