//! Ring 4: whole hash maps out of the kernel in batches; one entry at a time is the other implementation.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use failover_tests::requirements::require;
use failover_userspace::dataplane::maps::{Raw, RawHash, hash};
use failover_userspace::flows::batch::{for_each, for_each_in_chunks};

const KEY: usize = 36;
const VALUE: usize = 40;
type Flows = RawHash<KEY, VALUE>;
type Entries = BTreeMap<[u8; KEY], [u8; VALUE]>;

/// Two handles on a new map: what aya calls a map of a type owns its only one.
fn handles(pin: impl FnOnce(&Path) -> Result<()>) -> Result<[MapData; 2]> {
    let path = PathBuf::from(format!("/sys/fs/bpf/fo{}-batch", std::process::id()));
    pin(&path)?;
    let data = [MapData::from_pin(&path), MapData::from_pin(&path)];
    std::fs::remove_file(&path)?;
    let [first, second] = data;
    Ok([first?, second?])
}

/// A map with `count` entries, and the same entries here.
fn filled(capacity: u32, count: u32) -> Result<(Flows, MapData, Entries)> {
    let [first, second] = handles(|path| Ok(Flows::create(capacity, 0)?.pin(path)?))?;
    let mut map: Flows = hash(first)?;
    let mut entries = Entries::new();
    for number in 0..count {
        let (mut key, mut value) = ([0xa5; KEY], [0x5a; VALUE]);
        key[16..20].copy_from_slice(&number.to_ne_bytes());
        value[..4].copy_from_slice(&(!number).to_ne_bytes());
        map.insert(Raw(key), Raw(value), 0)?;
        entries.insert(key, value);
    }
    Ok((map, second, entries))
}

/// What comes in batches; each key once.
fn read(map: &MapData, chunk: usize) -> Result<Entries> {
    let (mut entries, mut count) = (Entries::new(), 0);
    for_each_in_chunks(map, chunk, |key, value| {
        entries.insert(key, value);
        count += 1;
    })?;
    ensure!(entries.len() == count, "{count} entries came, {} different ones", entries.len());
    Ok(entries)
}

#[test]
fn every_entry_comes_once() -> Result<()> {
    if require("every entry", &[]).is_none() {
        return Ok(());
    }
    for count in [0, 1, 2, 4_095, 4_096, 4_097, 20_000] {
        let (map, data, entries) = filled(20_000, count)?;
        let one_by_one: Entries =
            map.iter().map(|entry| entry.map(|(key, value)| (key.0, value.0))).collect::<Result<_, _>>()?;
        ensure!(one_by_one == entries, "the map does not hold {count} entries");
        ensure!(read(&data, 4_096)? == entries, "of {count} entries");
    }
    Ok(())
}

#[test]
fn room_is_made_for_a_full_bucket() -> Result<()> {
    if require("a full bucket", &[]).is_none() {
        return Ok(());
    }
    // As many entries as buckets: some bucket has several, and there is room for one entry at first.
    let (_map, data, entries) = filled(4_096, 4_096)?;
    for chunk in [0, 1, 2, 3] {
        ensure!(read(&data, chunk)? == entries, "with room for {chunk}");
    }
    Ok(())
}

#[test]
fn another_layout_is_refused() -> Result<()> {
    if require("another layout", &[]).is_none() {
        return Ok(());
    }
    let (_map, flows, _) = filled(10, 3)?;
    let [array, _] = handles(|path| Ok(Array::<MapData, u64>::create(4, 0)?.pin(path)?))?;
    let refused = [
        for_each(&flows, |_: [u8; 32], _: [u8; VALUE]| {}),
        for_each(&flows, |_: [u8; KEY], _: [u8; 48]| {}),
        for_each(&array, |_: [u8; 4], _: [u8; 8]| {}),
    ];
    for result in refused {
        let error = result.err().context("it was taken for a hash map of that layout")?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    // The witness: with its own layout it is read.
    ensure!(read(&flows, 8)?.len() == 3);
    Ok(())
}

#[test]
fn a_whole_table_of_flows() -> Result<()> {
    const COUNT: u32 = 262_144;
    if require("a whole table", &[]).is_none() {
        return Ok(());
    }
    let (map, data, entries) = filled(COUNT, COUNT)?;
    let start = Instant::now();
    let mut sum = 0;
    for_each(&data, |key: [u8; KEY], value: [u8; VALUE]| {
        sum += usize::from(key[0] == 0xa5) + usize::from(value[VALUE - 1] == 0x5a);
    })?;
    let batched = start.elapsed();
    let start = Instant::now();
    let one_by_one = map.iter().filter(Result::is_ok).count();
    println!("{COUNT} entries: {batched:?} in batches, {:?} one by one", start.elapsed());
    ensure!((sum, one_by_one) == (2 * COUNT as usize, COUNT as usize), "{sum}, {one_by_one}");
    ensure!(read(&data, 4_096)? == entries);
    Ok(())
}
