//! A copy of the workspace's sources that may be spoilt.
//!
//! What is the same already is not written again: cargo goes by the files' times. Deliberately absent: git, which a source
//! archive lacks and which does not list a new file before it is told of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Makes `to` the same as `from`, without build directories, `target`, and names that begin with a dot.
pub fn mirror(from: &Path, to: &Path, target: &Path) -> Result<()> {
    let wanted = files(from, target)?;
    for name in &wanted {
        let source = from.join(name);
        let content = fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        write_if_different(&to.join(name), &content)?;
    }
    if to.exists() {
        for name in files(to, target)?.difference(&wanted) {
            let stale = to.join(name);
            fs::remove_file(&stale).with_context(|| format!("removing {}", stale.display()))?;
        }
    }
    Ok(())
}

/// Writes a file and the directories above it, unless it has this content.
pub fn write_if_different(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, content));
    written.with_context(|| format!("writing {}", path.display()))
}

/// A file itself, or the files below a directory, in order of their names, without build directories and names that begin
/// with a dot.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    Ok(files(path, Path::new(""))?.into_iter().map(|name| path.join(name)).collect())
}

/// The files below `root`, relative to it. `target` is left out under whatever name, unless `root` is inside it.
fn files(root: &Path, target: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let failed = || format!("reading the directory {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let (name, path) = (entry.file_name(), entry.path());
            if name == "target" || name.to_string_lossy().starts_with('.') || path == target {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap_or(&path).to_path_buf());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn write(path: &Path, content: &str) {
        write_if_different(path, content.as_bytes()).unwrap();
    }

    #[test]
    fn the_copy_has_the_sources_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (from, to, target) =
            (root.path().join("from"), root.path().join("from/out/tree"), root.path().join("from/out"));
        for name in ["Cargo.toml", "a/src/lib.rs", "a/target/old.rs", "target/x", ".git/config", "a/.cache", "out/y"] {
            write(&from.join(name), name);
        }
        write(&to.join("b/gone.rs"), "of a crate that was removed");
        write(&to.join("Cargo.toml"), "spoilt");
        mirror(&from, &to, &target).unwrap();
        let expected = ["Cargo.toml", "a/src/lib.rs"].map(PathBuf::from);
        assert_eq!(files(&to, &target).unwrap(), BTreeSet::from(expected));
        assert_eq!(fs::read_to_string(to.join("Cargo.toml")).unwrap(), "Cargo.toml");
    }

    #[test]
    fn what_is_the_same_keeps_its_time() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for name in ["same", "other"] {
            write(&from.join(name), name);
            write(&to.join(name), "same");
            let long_ago = SystemTime::now() - Duration::from_secs(1000);
            fs::File::open(to.join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        let before = fs::metadata(to.join("same")).unwrap().modified().unwrap();
        mirror(&from, &to, Path::new("/nowhere")).unwrap();
        assert_eq!(fs::metadata(to.join("same")).unwrap().modified().unwrap(), before);
        assert!(fs::metadata(to.join("other")).unwrap().modified().unwrap() > before);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = mirror(Path::new("/nowhere/at/all"), Path::new("/nowhere/else"), Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error:#}");
    }
}
