//! The project's own rules for source files, read from their text.
//!
//! - the election core names no runtime, socket, clock or log: time comes in as an argument, actions go out as values
//! - `unsafe` in the frame path is in one file
//! - a file over 600 lines is remarked on
//!
//! Deliberately absent: anything rustc or clippy can check.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::exec;

/// The frame path's only file with unsafe code: bounded packet access, helpers, map pointers.
pub const UNSAFE_FILE: &str = "failover-ebpf/src/kernel.rs";

/// What the scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Broken rules.
    pub errors: Vec<String>,
    /// What a reader should know and may accept.
    pub remarks: Vec<String>,
}

/// Scans every source file of the workspace at `root`.
pub fn scan(root: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    for file in sources(root)? {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        check(&name, &exec::read(&file)?, &mut findings);
    }
    Ok(findings)
}

/// Every source file of the workspace at `root`, sorted.
pub fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for member in MEMBERS {
        collect(&root.join(member), &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// Applies the rules to one file, `name` being its path in the workspace.
pub fn check(name: &str, source: &str, findings: &mut Findings) {
    let lines = source.lines().count();
    if lines > LINES_MAX {
        findings.remarks.push(format!("{name} has {lines} lines; more than {LINES_MAX} wants a division by concern"));
    }
    let code = code_only(source);
    for (line, word, next) in words(&code) {
        if name.starts_with(ELECTION) && FORBIDDEN_IN_ELECTION.contains(&word) {
            findings.errors.push(format!(
                "{name}:{line}: the election core may not name `{word}`: time and events come in as arguments, \
                 actions go out as values"
            ));
        }
        // `unsafe(...)` only occurs in attributes, such as #[unsafe(no_mangle)].
        if name.starts_with(FRAME_PATH) && name != UNSAFE_FILE && word == "unsafe" && next != Some('(') {
            findings.errors.push(format!("{name}:{line}: `unsafe` in the frame path belongs into {UNSAFE_FILE}"));
        }
    }
}

/// Each word with its line, and the first character after it that is not blank.
fn words(code: &str) -> impl Iterator<Item = (usize, &str, Option<char>)> {
    code.lines().enumerate().flat_map(|(index, line)| {
        line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).map(move |word| {
            let end = word.as_ptr() as usize - line.as_ptr() as usize + word.len();
            (index + 1, word, line[end..].trim_start().chars().next())
        })
    })
}

/// The source with comments and literals blanked out, line breaks kept.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut after_word = false;
    while let Some(c) = rest.chars().next() {
        let skipped = if after_word && c != '"' { None } else { literal_length(rest) };
        let skipped = skipped.or_else(|| comment_length(rest));
        let length = skipped.unwrap_or(c.len_utf8());
        if skipped.is_some() {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(c);
        }
        after_word = skipped.is_none() && is_word(c);
        rest = &rest[length..];
    }
    code
}

/// The length of the comment that `text` starts with. Block comments nest.
fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    Some(text.len())
}

/// The length of the string or character literal that `text` starts with. A lifetime is none.
fn literal_length(text: &str) -> Option<usize> {
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let quote = unprefixed.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let body = &unprefixed[1..];
    if quote == '\'' && !body.starts_with('\\') && body.chars().nth(1) != Some('\'') {
        return None;
    }
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote && !(quote == '\'' && at == 0) {
            return Some(prefix + 1 + at + 1);
        }
    }
    Some(text.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("reading the directory {}", directory.display());
    for entry in std::fs::read_dir(directory).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

const MEMBERS: [&str; 5] = ["failover-common", "failover-ebpf", "failover-userspace", "tests", "xtask"];
const ELECTION: &str = "failover-userspace/src/election";
const FRAME_PATH: &str = "failover-ebpf/src/";
const FORBIDDEN_IN_ELECTION: [&str; 9] =
    ["tokio", "aya", "tracing", "socket", "socket2", "rustix", "rtnetlink", "Instant", "SystemTime"];
const LINES_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(name: &str, source: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(name, source, &mut findings);
        findings.errors
    }

    #[test]
    fn the_election_may_not_name_a_runtime_or_a_clock() {
        let source = "use std::time::Duration;\nuse std::time::Instant;\nfn f() { tokio::spawn(g()) }\n";
        let found = errors("failover-userspace/src/election/machine.rs", source);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("failover-userspace/src/election/machine.rs:2: "), "{found:?}");
        assert!(found[1].contains(":3: ") && found[1].contains("`tokio`"), "{found:?}");
        assert!(errors("failover-userspace/src/controller.rs", source).is_empty());
    }

    #[test]
    fn comments_and_literals_may_name_anything() {
        let source = "//! no tokio, no socket\n/* tracing /* nested */ aya */\nconst A: &str = \"a \\\" socket\";\n\
                      const B: &str = r#\"a \" tokio\"#;\nconst C: &[u8] = b\"aya\";\nfn f<'a>(x: &'a u8, q: char) \
                      -> bool { q == '\"' || q == '\\'' || q == '/' }\nfn socket_count() {}\n";
        assert_eq!(errors("failover-userspace/src/election/mod.rs", source), Vec::<String>::new());
    }

    #[test]
    fn code_after_a_literal_is_still_read() {
        let name = "failover-userspace/src/election/mod.rs";
        assert_eq!(errors(name, "fn f(q: char) { if q == '\"' { aya() } }").len(), 1);
        assert_eq!(errors(name, "const S: &str = \"\\\\\"; use aya;").len(), 1);
        assert_eq!(errors(name, "fn f<'a>(x: &'a str) { socket(x) }").len(), 1);
        assert_eq!(errors(name, "// one\nuse tracing; // two").len(), 1);
    }

    #[test]
    fn unsafe_code_of_the_frame_path_is_in_one_file() {
        let source = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(errors("failover-ebpf/src/arp.rs", source).len(), 1);
        assert!(errors(UNSAFE_FILE, source).is_empty());
        assert!(errors("failover-userspace/src/clock.rs", source).is_empty());
        let attribute = "#[unsafe(link_section = \"license\")]\n#[unsafe(no_mangle)]\nstatic LICENSE: u8 = 0;\n";
        assert!(errors("failover-ebpf/src/main.rs", attribute).is_empty());
    }

    #[test]
    fn a_long_file_is_a_remark() {
        let mut findings = Findings::default();
        check("xtask/src/a.rs", &"\n".repeat(600), &mut findings);
        assert_eq!(findings, Findings::default());
        check("xtask/src/a.rs", &"\n".repeat(601), &mut findings);
        assert_eq!((findings.errors.len(), findings.remarks.len()), (0, 1));
    }
}
