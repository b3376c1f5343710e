//! bpf-linker: finds one that can read what the compiler writes, else builds one with `cargo install`.
//!
//! The compiler hands over LLVM bitcode, so bpf-linker's LLVM must not be older than the compiler's. Deliberately
//! absent: the compiler (`toolchain.rs`) and how the two are called (`compile.rs`).

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::packages::{Package, Packages, may_install};
use crate::toolchain::parse_release;

/// The version that is installed, and the oldest that is used.
const VERSION: &str = "0.13.0";
const OLDEST: (u32, u32) = (0, 13);

/// Finds a bpf-linker for a compiler with LLVM `llvm`, installing one when there is none.
pub fn find_or_install(llvm: u32, packages: &Packages) -> Result<PathBuf> {
    let mut refused = Vec::new();
    if let Some(found) = find(llvm, &mut refused) {
        return Ok(found);
    }
    for line in &refused {
        eprintln!("not used: {line}");
    }
    install(llvm, packages)?;
    refused.clear();
    let Some(found) = find(llvm, &mut refused) else {
        bail!("installed bpf-linker {VERSION}, and still none is usable:\n{}", refused.join("\n"));
    };
    Ok(found)
}

fn find(llvm: u32, refused: &mut Vec<String>) -> Option<PathBuf> {
    exec::cargo_program_candidates("bpf-linker").into_iter().find(|path| match why_not(path, llvm) {
        None => true,
        Some(reason) => {
            refused.push(format!("{}: {reason}", path.display()));
            false
        }
    })
}

/// Why this bpf-linker will not do.
fn why_not(path: &Path, llvm: u32) -> Option<String> {
    let Some(text) = exec::output_of(exec::command(path).arg("--version")) else {
        return Some("`bpf-linker --version` does not run".into());
    };
    let version = text.split_whitespace().last().unwrap_or_default();
    if parse_release(version) < Some(OLDEST) {
        return Some(format!("is {version}; {VERSION} or later is needed"));
    }
    // One with LLVM inside does not tell which: it gets the benefit of the doubt.
    let libraries = exec::output_of(exec::command("ldd").arg(path)).unwrap_or_default();
    let own = llvm_in(&libraries)?;
    (own < llvm).then(|| format!("is built with LLVM {own}; the compiler writes LLVM {llvm}"))
}

fn install(llvm: u32, packages: &Packages) -> Result<()> {
    let purpose = "bpf-linker is built with it, and links the XDP program";
    if !may_install() {
        bail!(
            "missing: bpf-linker {VERSION} or later with LLVM {llvm} or later (it links the XDP program), and FAILOVER_NO_INSTALL is set\n\
             install LLVM {llvm} with its headers, then:\n  \
             LLVM_PREFIX=/usr/lib/llvm-{llvm} {}",
            install_words(llvm)
        );
    }
    let prefix = match llvm_prefix(llvm) {
        Some(prefix) => prefix,
        None => {
            let wanted = [
                Package::new(format!("llvm-{llvm}-dev"), "llvm-devel", "llvm"),
                Package::new(format!("libpolly-{llvm}-dev"), "", "polly"),
            ];
            packages.install(&wanted, purpose)?;
            llvm_prefix(llvm).with_context(|| {
                format!("LLVM {llvm} is installed, and its headers and library are still not found; set LLVM_PREFIX")
            })?
        }
    };
    eprintln!("installing bpf-linker {VERSION} with cargo (it links the XDP program; about a minute)");
    let mut command = exec::cargo_install(&install_words(llvm));
    command.env("LLVM_PREFIX", prefix);
    exec::run(&mut command, "installing bpf-linker")
}

fn install_words(llvm: u32) -> String {
    format!("cargo install bpf-linker --version {VERSION} --locked --no-default-features --features llvm-{llvm}")
}

/// Where LLVM `llvm` with its headers is installed.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let asked = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let fedora = PathBuf::from(format!("/usr/lib64/llvm{llvm}"));
    let configured = [format!("llvm-config-{llvm}"), "llvm-config".into()].into_iter().find_map(|program| {
        let version = exec::output_of(exec::command(&program).arg("--version"))?;
        let prefix = exec::output_of(exec::command(&program).arg("--prefix"))?;
        (parse_release(&version)?.0 == llvm).then(|| PathBuf::from(prefix.trim_end()))
    });
    asked.into_iter().chain([debian, fedora]).chain(configured).find(|prefix| is_llvm(prefix, llvm))
}

fn is_llvm(prefix: &Path, llvm: u32) -> bool {
    let header = prefix.join("include/llvm/Config/llvm-config.h");
    let define = format!("#define LLVM_VERSION_MAJOR {llvm}");
    // Debian's LLVM counts polly among its libraries, but ships it apart.
    let complete = prefix.join("lib/libPolly.a").exists() || !prefix.starts_with("/usr/lib/");
    complete && std::fs::read_to_string(header).is_ok_and(|text| text.lines().any(|line| line.trim_end() == define))
}

/// LLVM's major version among the libraries that `ldd` lists: `libLLVM.so.22.1`, `libLLVM-18.so`.
pub fn llvm_in(ldd: &str) -> Option<u32> {
    let name = ldd.split_whitespace().find(|word| word.starts_with("libLLVM"))?;
    name.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvms_version_is_in_its_librarys_name() {
        let debian = "\tlinux-vdso.so.1 (0x1)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x2)\n";
        assert_eq!(llvm_in(debian), Some(22));
        assert_eq!(llvm_in("\tlibLLVM-18.so.1 => /usr/lib/libLLVM-18.so.1 (0x2)\n"), Some(18));
        assert_eq!(llvm_in("\tlibLLVM-17.so => /usr/lib/libLLVM-17.so (0x2)\n"), Some(17));
    }

    #[test]
    fn one_with_llvm_inside_does_not_tell() {
        assert_eq!(llvm_in("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"), None);
        assert_eq!(llvm_in("\tnot a dynamic executable\n"), None);
    }
}
