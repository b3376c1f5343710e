//! Whole hash maps out of the kernel, thousands of entries in one system call: BPF_MAP_LOOKUP_BATCH, which aya does
//! not have.
//!
//! All `unsafe` of this module is here. Deliberately absent: types. Keys and values come as bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{MapData, MapType};

/// Entries asked for at first.
const CHUNK: usize = 4096;
/// `enum bpf_cmd` in linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `struct { ... } batch` of `union bpf_attr` in linux/bpf.h.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}
const _: () = assert!(size_of::<Attributes>() == 56);

/// Room for one chunk, and where in the map it comes from.
struct Chunk<const K: usize, const V: usize> {
    keys: Vec<[u8; K]>,
    values: Vec<[u8; V]>,
    /// A hash map's place is the number of a bucket. `None`: the start.
    place: Option<u32>,
}

/// Calls `each` with every entry of a hash map (plain or LRU). What is in the map all the time comes exactly once; what
/// is put in or taken out meanwhile may come or not.
///
/// # Errors
/// When keys have not K bytes, values not V or the map is no hash map (InvalidInput); before Linux 5.6 (Unsupported);
/// and those of bpf(2).
pub fn for_each<const K: usize, const V: usize>(map: &MapData, each: impl FnMut([u8; K], [u8; V])) -> io::Result<()> {
    for_each_in_chunks(map, CHUNK, each)
}

/// [`for_each`], with room for `entries` at a time at first. There must be room for any one bucket; there is made more
/// when it turns out that there is not.
///
/// # Errors
/// As [`for_each`].
pub fn for_each_in_chunks<const K: usize, const V: usize>(
    map: &MapData,
    entries: usize,
    mut each: impl FnMut([u8; K], [u8; V]),
) -> io::Result<()> {
    check_layout::<K, V>(map)?;
    let mut chunk = Chunk { keys: Vec::new(), values: Vec::new(), place: None };
    chunk.grow(entries.max(1));
    loop {
        let Some((count, is_end)) = chunk.fetch(map)? else {
            chunk.grow(2 * chunk.keys.len());
            continue;
        };
        for (key, value) in chunk.keys.iter().zip(&chunk.values).take(count) {
            each(*key, *value);
        }
        if is_end {
            return Ok(());
        }
    }
}

/// The kernel writes as many bytes as the map has, whatever there is room for.
fn check_layout<const K: usize, const V: usize>(map: &MapData) -> io::Result<()> {
    let info = map.info().map_err(io::Error::other)?;
    let is_hash = matches!(info.map_type(), Ok(MapType::Hash | MapType::LruHash));
    if !is_hash || info.key_size() as usize != K || info.value_size() as usize != V {
        let reason = format!("not a hash map with keys of {K} and values of {V} bytes: {info:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(())
}

impl<const K: usize, const V: usize> Chunk<K, V> {
    fn grow(&mut self, entries: usize) {
        self.keys.resize(entries, [0; K]);
        self.values.resize(entries, [0; V]);
    }

    /// Fetches the next entries: how many came, and whether they are the last. `None`: a bucket has more entries than
    /// there is room for.
    fn fetch(&mut self, map: &MapData) -> io::Result<Option<(usize, bool)>> {
        let mut next = 0_u32;
        let mut attributes = Attributes {
            in_batch: self.place.as_ref().map_or(0, |place| std::ptr::from_ref(place) as u64),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are laid out as linux/bpf.h says and live as long as the call. `keys` and `values` are
        // exclusively borrowed and have room for `count` entries of the map's key and value size, which were compared
        // before; the places are u32, as a hash map's are. The kernel writes nothing else, and any bytes are valid.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>()) };
        let count = attributes.count as usize;
        if result == 0 {
            self.place = Some(next);
            return Ok(Some((count, false)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Some((count, true))),
            Some(libc::ENOSPC) => Ok(None),
            Some(libc::EINVAL) => {
                let reason = format!("reading a map in batches ({error}): it needs Linux 5.6 or later");
                Err(io::Error::new(io::ErrorKind::Unsupported, reason))
            }
            _ => Err(error),
        }
    }
}
