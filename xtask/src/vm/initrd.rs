//! The first file system of a guest: busybox, the modules that reach this machine's files, and `init.sh`.
//!
//! Written as a cpio archive of the form that Linux calls "newc". Deliberately absent: compression; it is a few megabytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const INIT: &str = include_str!("init.sh");
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const END: &str = "TRAILER!!!";

/// Writes the archive to `file`.
pub fn write(file: &Path, busybox: &Path, modules: &[PathBuf]) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut archive = Vec::new();
    for directory in ["bin", "modules"] {
        append(&mut archive, directory, DIRECTORY, &[]);
    }
    append(&mut archive, "init", PROGRAM, INIT.as_bytes());
    append(&mut archive, "bin/busybox", PROGRAM, &read(busybox)?);
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        append(&mut archive, &format!("modules/{name}"), PROGRAM, &read(module)?);
        order += &format!("{name}\n");
    }
    append(&mut archive, "modules/order", PROGRAM, order.as_bytes());
    append(&mut archive, END, 0, &[]);
    fs::write(file, archive).with_context(|| format!("writing {}", file.display()))
}

/// One entry: 13 numbers of 8 hexadecimal digits, the name, the content; each of the two padded to whole words.
fn append(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    // Numbers that are alike are hard links of one file.
    let inode = archive.len() as u32 + 1;
    let fields = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0]
        .map(|field| format!("{field:08x}"));
    archive.extend(format!("070701{}{name}\0", fields.concat()).bytes());
    pad(archive);
    archive.extend(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Vec::new();
        append(&mut archive, "init", PROGRAM, b"hello");
        // 6 for the magic, 13 numbers, the name with its zero; then five bytes; each rounded up to four.
        assert_eq!(archive.len(), (6_usize + 13 * 8 + 5).next_multiple_of(4) + 8);
        assert!(archive.starts_with(b"07070100000001000081ed"));
        assert_eq!(&archive[54..62], b"00000005");
        assert_eq!(&archive[116..], b"hello\0\0\0");
    }
}
