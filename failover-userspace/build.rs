//! Embeds the XDP program that `cargo xtask build` made, or nothing: then everything compiles and
//! tests without a BPF toolchain, and loading says what is missing.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=FAILOVER_EBPF_OBJECT");
    let object = match env::var_os("FAILOVER_EBPF_OBJECT") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&path).display());
            fs::read(path)?
        }
        None => Vec::new(),
    };
    let out_dir = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(PathBuf::from(out_dir).join("failover-xdp"), object)
}
