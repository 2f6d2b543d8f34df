//! Gives the extension its static program: `PYRT_INIT` is the path that `spawner.rs` includes.
//!
//! The build backend has built it already and says where; plain cargo builds it here, in a target
//! folder of its own, because cargo holds a lock on the outer one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The same words as in packaging/pyrt_build.py: no interpreter and no relocation, so that it runs from a memfd anywhere.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static";

fn main() {
    for part in ["init/src", "init/Cargo.toml", "container/src", "container/Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed=../{part}");
    }
    println!("cargo::rerun-if-env-changed=PYRT_INIT");
    let program = env::var_os("PYRT_INIT").map_or_else(build, PathBuf::from);
    println!("cargo::rerun-if-changed={}", program.display());
    println!("cargo::rustc-env=PYRT_INIT={}", program.display());
}

fn build() -> PathBuf {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../init/Cargo.toml");
    let folder = Path::new(&variable("OUT_DIR")).join("static");
    // A named target, if only this machine's own, keeps the flags from procedural macros, which can't be static.
    let target = variable("TARGET");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--profile", "init", "--locked", "--manifest-path"])
        .arg(manifest)
        .args(["--target", &target])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", STATIC)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // Under `cargo clippy` this is clippy, which would judge the program a second time.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "building pyrt-init: {status}");
    folder.join(target).join("init/pyrt-init")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
