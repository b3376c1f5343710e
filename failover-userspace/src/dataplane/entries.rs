//! The memory-mapped `VIRTUAL_ROUTERS` and `HANDSHAKE_COUNT`: typed, field by field, so that a lease is one aligned
//! 8-byte store and nothing that the kernel writes is ever overwritten.
//!
//! This is the one place of the controller where memory is shared with the kernel program, and
//! where `unsafe` says how.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use failover_common::abi::{HandshakeCount, Heard, Lease, Report, Settings, StalePolicy, Takeover, VirtualRouter};
use failover_common::lease::is_live;
use memmap2::{MmapOptions, MmapRaw};
use zerocopy::TryFromBytes;

/// The whole map.
#[derive(Clone)]
pub struct Entries {
    map: Arc<MmapRaw>,
    handshakes: Arc<MmapRaw>,
    count: u32,
}

/// One virtual router's entry.
#[derive(Clone)]
pub struct Entry {
    map: Arc<MmapRaw>,
    handshakes: Arc<MmapRaw>,
    index: u32,
}

impl Entries {
    /// Maps the arrays, which must have been made with `BPF_F_MMAPABLE`, the first with `count` entries.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn map(routers: &MapData, handshakes: &MapData, count: u32) -> io::Result<Self> {
        let map = |data: &MapData, len| MmapOptions::new().len(len).map_raw(data.fd().as_fd().as_raw_fd());
        Ok(Self {
            map: Arc::new(map(routers, count as usize * size_of::<VirtualRouter>())?),
            handshakes: Arc::new(map(handshakes, size_of::<HandshakeCount>())?),
            count,
        })
    }

    /// Memory of this process alone, all zero, for a frame path that runs on the host.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn anonymous(count: u32) -> io::Result<Self> {
        let map = |len| MmapOptions::new().len(len).map_anon().map(|map| Arc::new(MmapRaw::from(map)));
        let (len, handshakes_len) = (count as usize * size_of::<VirtualRouter>(), size_of::<HandshakeCount>());
        Ok(Self { map: map(len)?, handshakes: map(handshakes_len)?, count })
    }

    /// Where the entry at `index` is, as the kernel program sees it, for as long as this lives; `None` past the end.
    pub fn router_ptr(&self, index: u32) -> Option<*mut VirtualRouter> {
        (index < self.count).then(|| at(&self.map, index))
    }

    /// Where the one `HANDSHAKE_COUNT` is, in the same way.
    pub fn handshake_count_ptr(&self) -> *mut HandshakeCount {
        self.handshakes.as_mut_ptr().cast()
    }

    /// The entry at `index`; `None` past the end.
    pub fn entry(&self, index: u32) -> Option<Entry> {
        (index < self.count).then(|| Entry { map: self.map.clone(), handshakes: self.handshakes.clone(), index })
    }
}

fn at(map: &MmapRaw, index: u32) -> *mut VirtualRouter {
    map.as_mut_ptr().cast::<VirtualRouter>().wrapping_add(index as usize)
}

impl Entry {
    /// Which one it is, as the configuration counts.
    pub fn index(&self) -> usize {
        self.index as usize
    }

    fn at(&self) -> *mut VirtualRouter {
        // `index` was checked against the mapped length when the entry was made.
        at(&self.map, self.index)
    }

    /// A word of the entry, as the kernel program sees it: whole or not at all.
    fn word(&self, field: impl Fn(*mut VirtualRouter) -> *mut u64) -> &AtomicU64 {
        // SAFETY: the word is inside the mapping, which lives as long as `self.map`; array entries
        // start page-aligned and are multiples of 8 bytes, so it is aligned; both sides store it
        // whole.
        unsafe { AtomicU64::from_ptr(field(self.at())) }
    }

    /// Ends or takes the lease. `claimed_after_ns` is the last superior advert that the election
    /// was told of; it is stored first, so that the end, the word that counts, never meets an old
    /// one.
    pub fn set_lease(&self, lease: Lease) {
        // SAFETY: see `word`; only addresses are computed.
        let claimed_after = self.word(|at| unsafe { addr_of_mut!((*at).lease.claimed_after_ns) });
        // SAFETY: see `word`.
        let until = self.word(|at| unsafe { addr_of_mut!((*at).lease.until_ns) });
        if lease.until_ns != 0 && claimed_after.load(Ordering::Relaxed) != lease.claimed_after_ns {
            // A live end with a new beginning would be a claim that nobody made.
            until.store(0, Ordering::SeqCst);
            claimed_after.store(lease.claimed_after_ns, Ordering::SeqCst);
        }
        until.store(lease.until_ns, Ordering::SeqCst);
    }

    /// The lease as stored.
    pub fn lease(&self) -> Lease {
        // SAFETY: see `word`.
        let claimed_after = self.word(|at| unsafe { addr_of_mut!((*at).lease.claimed_after_ns) });
        // SAFETY: see `word`.
        let until = self.word(|at| unsafe { addr_of_mut!((*at).lease.until_ns) });
        Lease { until_ns: until.load(Ordering::SeqCst), claimed_after_ns: claimed_after.load(Ordering::SeqCst) }
    }

    /// Whether the kernel answers now.
    pub fn is_live(&self, now_ns: u64) -> bool {
        let lease = self.lease();
        is_live(now_ns, lease.until_ns, lease.claimed_after_ns, self.last_superior_ns())
    }

    /// When the kernel last heard an advert that beats this node. Read it before [`Self::heard`],
    /// which then has that advert or a later one.
    pub fn last_superior_ns(&self) -> u64 {
        // SAFETY: see `word`.
        self.word(|at| unsafe { addr_of_mut!((*at).heard.last_superior_ns) }).load(Ordering::SeqCst)
    }

    /// When the kernel last heard any valid advert.
    pub fn last_advert_ns(&self) -> u64 {
        // SAFETY: see `word`.
        self.word(|at| unsafe { addr_of_mut!((*at).heard.last_advert_ns) }).load(Ordering::SeqCst)
    }

    /// The last valid advert. Fields may come from two adverts that arrived at the same time on
    /// two CPUs; both then came as events, too.
    pub fn heard(&self) -> Heard {
        // SAFETY: inside the mapping (see `at`); read as bytes, because the kernel writes it while
        // we read, and checked before it becomes a `Heard`.
        let bytes = unsafe { read_volatile(addr_of!((*self.at()).heard).cast::<[u8; size_of::<Heard>()]>()) };
        Heard::try_read_from_bytes(&bytes).unwrap_or_default()
    }

    /// The settings, whole: this side is their only writer.
    pub fn settings(&self) -> Settings {
        // SAFETY: inside the mapping; valid for any bytes.
        unsafe { read_volatile(addr_of!((*self.at()).settings)) }
    }

    /// Replaces the settings. The kernel may see some fields old and some new for a moment: only
    /// what an advert or an answer of that moment looks like hangs on it, never the lease.
    pub fn set_settings(&self, settings: &Settings) {
        // SAFETY: inside the mapping; this side is the only writer.
        unsafe { write_volatile(addr_of_mut!((*self.at()).settings), *settings) };
    }

    /// What people see.
    pub fn report(&self) -> Report {
        // SAFETY: as in `heard`.
        let bytes = unsafe { read_volatile(addr_of!((*self.at()).report).cast::<[u8; size_of::<Report>()]>()) };
        Report::try_read_from_bytes(&bytes).unwrap_or_default()
    }

    /// Replaces what people see.
    pub fn set_report(&self, report: &Report) {
        // SAFETY: inside the mapping; this side is the only writer.
        unsafe { write_volatile(addr_of_mut!((*self.at()).report), *report) };
    }

    /// Since when this node is Active.
    pub fn takeover(&self) -> Takeover {
        // SAFETY: inside the mapping; valid for any bytes, and this side is the only writer.
        unsafe { read_volatile(addr_of!((*self.at()).takeover)) }
    }

    /// Notes that this node takes the addresses over now. Call it before the lease is stored.
    pub fn set_takeover(&self, at_ns: u64) {
        let counts = self.handshakes.as_mut_ptr().cast::<HandshakeCount>();
        // SAFETY: inside a mapping of one `HandshakeCount`, which lives as long as `self.handshakes`; the kernel only adds.
        let missed = unsafe { AtomicU64::from_ptr(addr_of_mut!((*counts).missed)) }.load(Ordering::SeqCst);
        self.store_takeover(Takeover { at_ns, missed_before: missed });
    }

    /// Forgets that it took them over: what it does not know may have begun here.
    pub fn forget_takeover(&self) {
        self.store_takeover(Takeover::default());
    }

    fn store_takeover(&self, takeover: Takeover) {
        // SAFETY: inside the mapping; this side is the only writer.
        unsafe { write_volatile(addr_of_mut!((*self.at()).takeover), takeover) };
    }

    /// What stale segments get.
    pub fn stale(&self) -> StalePolicy {
        // SAFETY: as in `heard`.
        let bytes = unsafe { read_volatile(addr_of!((*self.at()).stale).cast::<[u8; size_of::<StalePolicy>()]>()) };
        StalePolicy::try_read_from_bytes(&bytes).unwrap_or_default()
    }

    /// Replaces what stale segments get. The kernel may see some fields old and some new for a moment.
    pub fn set_stale(&self, policy: &StalePolicy) {
        // SAFETY: inside the mapping; this side is the only writer.
        unsafe { write_volatile(addr_of_mut!((*self.at()).stale), *policy) };
    }

    /// Keeps new connections away until then, CLOCK_BOOTTIME nanoseconds, because the addresses are let go; 0: lets them
    /// in.
    pub fn set_leaving_until(&self, until_ns: u64) {
        // SAFETY: see `word`.
        self.word(|at| unsafe { addr_of_mut!((*at).stale.leaving_until_ns) }).store(until_ns, Ordering::SeqCst);
    }

    /// Counts an advert that was sent.
    pub fn count_advert_sent(&self) {
        // SAFETY: see `word`.
        self.word(|at| unsafe { addr_of_mut!((*at).report.adverts_sent) }).fetch_add(1, Ordering::Relaxed);
    }
}
