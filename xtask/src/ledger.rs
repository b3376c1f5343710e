//! The ledger of the RFCs, `docs/rfc9568.md`: every requirement has an id of its own and a status, what is done has a
//! test, what has no test has a reason, and every test that is named exists.
//!
//! Deliberately absent: whether a test shows what its row says. That takes a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use crate::exec;
use crate::tidy;

/// Where it is.
pub const LEDGER: &str = "docs/rfc9568.md";

/// What the second word of a row may be, and whether that needs a test.
const STATUSES: [(&str, bool); 4] = [("yes", true), ("partly", true), ("not applicable", false), ("no", false)];
/// id, requirement, status, positive test, negative test.
const COLUMNS: usize = 5;

/// Reads the ledger of the workspace at `root` and returns what is wrong with it, a line each.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let text = exec::read(&root.join(LEDGER))?;
    let mut tests = BTreeMap::new();
    for path in tidy::sources(root)? {
        let source = exec::read(&path)?;
        let name = path.strip_prefix(root).context("a source outside the workspace")?;
        tests.insert(name.to_string_lossy().into_owned(), test_names(&source));
    }
    Ok(check_text(&text, &tests))
}

/// The functions of a source file that `#[test]` stands before, also inside `proptest!`.
fn test_names(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            is_test = false;
        }
    }
    names
}

/// The rules, with the tests of each file.
fn check_text(text: &str, tests: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut report = |what: String| wrong.push(format!("{LEDGER}:{number}: {what}"));
        for named in quoted(line).filter(|word| word.contains("::")) {
            find(named, tests).unwrap_or_else(&mut report);
        }
        let Some(cells) = row(line) else { continue };
        if cells.len() != COLUMNS {
            report(format!("a row of {} cells, not {COLUMNS}", cells.len()));
            continue;
        }
        let id = cells[0].trim_matches('`');
        if id.is_empty() || !ids.insert(id) {
            report(format!("the id `{id}` is missing or taken"));
        }
        let Some((status, needs_test)) = STATUSES.into_iter().find(|(status, _)| starts_with(cells[2], status)) else {
            report(format!("{id}: the status is none of {}", STATUSES.map(|(status, _)| status).join(", ")));
            continue;
        };
        let names_test = |cell: &str| quoted(cell).any(|word| word.contains("::"));
        if needs_test && !names_test(cells[3]) {
            report(format!("{id}: \"{status}\" without a positive test"));
        }
        if needs_test && cells[4].is_empty() {
            report(format!("{id}: neither a negative test nor the reason why there is none"));
        }
        if status != "yes" && reason(cells[2], status).is_empty() {
            report(format!("{id}: \"{status}\" without a reason"));
        }
    }
    if ids.is_empty() {
        wrong.push(format!("{LEDGER}: no row at all"));
    }
    wrong
}

/// The cells of a table's row; `None` for what is none, and for a table's head.
fn row(line: &str) -> Option<Vec<&str>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<_> = inside.split('|').map(str::trim).collect();
    let is_head = cells[0] == "id" || cells.iter().all(|cell| cell.chars().all(|c| c == '-'));
    (!is_head).then_some(cells)
}

fn starts_with(cell: &str, status: &str) -> bool {
    cell.strip_prefix(status).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ',', ';']))
}

fn reason<'a>(cell: &'a str, status: &str) -> &'a str {
    cell[status.len()..].trim_start_matches([':', ',', ';', ' '])
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A test is named by the end of its file's path that only that file has, and its function: `vrrp/tests.rs::name`.
fn find(named: &str, tests: &BTreeMap<String, BTreeSet<String>>) -> Result<(), String> {
    let (end, function) = named.split_once("::").unwrap_or((named, ""));
    let files: Vec<_> = tests.iter().filter(|(path, _)| *path == end || path.ends_with(&format!("/{end}"))).collect();
    match files[..] {
        [] => Err(format!("`{named}`: no source file ends with {end}")),
        [(_, functions)] if functions.contains(function) => Ok(()),
        [(path, _)] => Err(format!("`{named}`: {path} has no test of that name")),
        _ => {
            let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
            Err(format!("`{named}`: say which of {}", paths.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file with one test, and a second of the same name elsewhere.
    fn tests() -> BTreeMap<String, BTreeSet<String>> {
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        BTreeMap::from([
            ("failover-common/src/wire/vrrp/tests.rs".to_owned(), names("both_forms")),
            ("failover-common/src/wire/tcp/tests.rs".to_owned(), names("no_panic")),
            ("tests/tests/xdp_arp.rs".to_owned(), names("answered")),
        ])
    }

    fn wrong(rows: &str) -> Vec<String> {
        check_text(
            &format!("# Title\n\n| id | what | status | positive | negative |\n|---|---|---|---|---|\n{rows}"),
            &tests(),
        )
    }

    const GOOD: &str = "| `9568-1-1` | must | yes | `xdp_arp.rs::answered` | `vrrp/tests.rs::both_forms` |\n";

    #[test]
    fn the_ledger_keeps_its_rules_and_names_tests_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace");
        let wrong = check(root).expect("the ledger and the sources can be read");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_good_ledger_is_accepted() {
        assert_eq!(wrong(GOOD), [""; 0]);
        assert_eq!(
            wrong(&format!("{GOOD}| `9568-1-2` | must | partly: not all | `xdp_arp.rs::answered` | one way |\n")),
            [""; 0]
        );
        assert_eq!(wrong(&format!("{GOOD}| `9568-1-2` | must | no: not built | | |\n")), [""; 0]);
        assert_eq!(wrong(&format!("{GOOD}| `9568-1-2` | must | not applicable: no radio | | |\n")), [""; 0]);
        assert_eq!(wrong(&format!("Prose with `xdp_arp.rs::answered`.\n{GOOD}")), [""; 0]);
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        for (from, to, part) in [
            ("answered", "made_up", "tests/tests/xdp_arp.rs has no test of that name"),
            ("xdp_arp.rs", "xdp_aarp.rs", "no source file ends with xdp_aarp.rs"),
            ("xdp_arp.rs", "arp.rs", "no source file ends with arp.rs"),
            ("vrrp/tests.rs", "tests.rs", "say which of failover-common/src/wire/tcp/tests.rs, "),
        ] {
            let found = wrong(&GOOD.replace(from, to));
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        }
        assert_eq!(wrong(&format!("Prose with `xdp_arp.rs::made_up`.\n{GOOD}")).len(), 1);
    }

    #[test]
    fn a_row_that_says_too_little_is_found() {
        for (row, part) in [
            (GOOD.to_owned(), "missing or taken"),
            (GOOD.replace("9568-1-1", ""), "missing or taken"),
            (GOOD.replace("1-1", "1-2").replace("yes", "maybe"), "the status is none of"),
            (GOOD.replace("1-1", "1-2").replace("yes", "partly"), "without a reason"),
            ("| `x` | must | no | | |".to_owned(), "without a reason"),
            ("| `x` | must | not applicable | | |".to_owned(), "without a reason"),
            ("| `x` | must | yes | soon | soon |".to_owned(), "without a positive test"),
            ("| `x` | must | yes | `xdp_arp.rs::answered` | |".to_owned(), "neither a negative test nor the reason"),
            ("| `x` | must | yes | `xdp_arp.rs::answered` |".to_owned(), "a row of 4 cells"),
        ] {
            let found = wrong(&format!("{GOOD}{row}\n"));
            assert!(found.len() == 1 && found[0].contains(part), "{row}: {found:?}");
        }
        assert!(wrong("").iter().any(|what| what.contains("no row at all")));
    }

    #[test]
    fn tests_are_found_with_their_attributes_and_in_macros() {
        let source = "#[test]\nfn one() {}\n\nfn helper() {}\n#[test]\n#[ignore]\n/// Says so.\npub fn two() {}\n\
                      proptest! {\n    #[test]\n    fn three(x: u8) {}\n}\n";
        assert_eq!(test_names(source), ["one", "three", "two"].map(String::from).into());
    }
}
