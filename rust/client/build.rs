//! How the command is linked: with nothing that is not in this crate, at a fixed address, and small.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        // Neither the C library nor its beginning; no interpreter and no relocation, whatever the flags of the build say.
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        // Headers, constants and instructions in one mapping, data in another: fewer pages to be mapped in.
        "-Wl,-z,noseparate-code",
        "-Wl,-z,noexecstack",
        "-Wl,-z,norelro",
        "-Wl,--build-id=none",
        "-Wl,--no-eh-frame-hdr",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
