//! The configuration's text.
//!
//! Input: the file's bytes.

use std::path::Path;

use failover_userspace::config::parse;

/// Any text: no panic; a refusal names lines that exist, in order; what loads and is printed loads as the same.
pub fn config(bytes: &[u8]) {
    // `load` refuses other bytes before anything is parsed.
    let Ok(text) = str::from_utf8(bytes) else { return };
    match parse(Path::new("file"), text, "host") {
        Ok(config) => {
            let printed = config.to_string();
            let again = parse(Path::new("file"), &printed, "another host");
            assert_eq!(again.as_ref(), Ok(&config), "{printed}");
        }
        Err(problems) => {
            let lines = text.lines().count().max(1);
            assert!(!problems.is_empty());
            assert!(problems.is_sorted_by_key(|problem| problem.line));
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "{problem}: there are {lines} lines");
                assert!(!problem.message.is_empty() && !problem.message.contains('\n'), "{problem}");
            }
        }
    }
}
