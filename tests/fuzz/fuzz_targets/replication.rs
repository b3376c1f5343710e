//! `replication` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failover_fuzz::replication(bytes));
