//! A component that begins with two MiB of memory: a tool that handles some kilobytes then never asks for more while it runs,
//! which costs two changes of its address space each time.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Only the component: the tests of the crate run on this machine, and its linker does not know the flag.
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=--initial-memory=2097152");
    }
}
