//! What libFuzzer found so far, through the same functions, without libFuzzer: on any toolchain, in seconds.
//!
//! Deliberately absent: new inputs. `cargo xtask fuzz` makes those.

use std::fs;
use std::path::Path;

use failover_fuzz::TARGETS;

#[test]
fn what_holds_of_any_bytes_holds_of_the_corpus() {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("the directory can be walked").path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "no input for {name}");
        for path in paths {
            let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // The harness prints the panic; this says whose it is.
            let result = std::panic::catch_unwind(|| target(&input));
            assert!(result.is_ok(), "{name} fails with {}", path.display());
        }
    }
}
