//! The programs stay within what the record allows them (`data/verifier.toml`).

use std::io::Write;

use failover_tests::budget::{Costs, UPDATE};
use failover_tests::requirements::require;

#[test]
fn verifier_budget() {
    let Some(built) = require("verifier_budget", &[]) else { return };
    let costs = Costs::measure(&built.xdp_object).expect("the programs can be loaded and measured");
    if std::env::var_os("FAILOVER_UPDATE_BUDGET").is_some() {
        costs.write_record().expect("the record can be written");
    }
    let record = Costs::read_record().expect("the record can be read");
    let differences = costs.differences(&record);
    for remark in &differences.remarks {
        // Not through a macro: those are captured, and a remark has to be seen.
        let _ = writeln!(std::io::stderr(), "note: {remark}; to record it: {UPDATE}");
    }
    let failures = differences.failures.join("\n  ");
    assert!(failures.is_empty(), "over the record:\n  {failures}\nif it is worth that, record it: {UPDATE}");
}
