//! The frame path's other side on the host: map state, clock and rings of one node, so that `failover_ebpf::handle` runs
//! as a function of the bytes, this state and nothing else. What `failover-ebpf/src/kernel.rs` does with BPF maps is done
//! here with the same types, field by field.
//!
//! The virtual routers' entries are in the memory that the controller maps ([`Entries`]): an
//! [`Entry`](failover_userspace::dataplane::Entry) given to shipped controller code and this work on the same words.
//! One thread at a time: it is the caller who interleaves.
//!
//! Deliberately absent: any clock, any chance, any order that is not the keys', and decisions.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;

use failover_common::abi::{
    COUNTER_NAMES, Counter, Counters, Event, FAMILY_IPV4, FLOW_EVENTS_BYTES, Flow, FlowEvent, FlowKey, FlowOrigin,
    Handshake, HandshakeCount, Heard, Lease, ResetBudget, RouterKey, Settings, StalePolicy, Takeover, VIP_FILTER_ALL,
    Vip, VipFilter, VipKey, VirtualRouter,
};
use failover_common::address::Address;
use failover_common::stale::take_token;
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::tcp::TcpHeader;
use failover_ebpf::{Kernel, Socket};
use failover_userspace::dataplane::Entries;

/// Index of the loopback interface, in every network namespace: frames come in there unless a test says otherwise.
pub const LOOPBACK: u32 = 1;

/// How a copy is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of `VIRTUAL_ROUTERS`.
    pub routers: u32,
    /// Bytes of the ring, a power of two and whole pages.
    pub ring_bytes: u32,
    /// Entries of `FLOWS` and of `HANDSHAKES`.
    pub flows_max: u32,
    /// What each CPU's token bucket for resets is filled with; a burst is a hundredth of it. As it is, no test spends it.
    pub resets_per_second: u64,
    /// Addresses that are looked up at all.
    pub filter: VipFilter,
    /// Whether peers' flows are looked for.
    pub has_peers: bool,
}

impl Default for Options {
    fn default() -> Self {
        let ring_bytes = failover_common::abi::EVENTS_BYTES;
        Self {
            routers: 2,
            ring_bytes,
            flows_max: 1024,
            resets_per_second: 100_000_000,
            filter: VIP_FILTER_ALL,
            has_peers: true,
        }
    }
}

/// What the node's sockets have for a segment.
pub type FindSocket = Box<dyn Fn(&Ipv4Header, &TcpHeader) -> Socket + Send>;

/// One node's maps, and what a frame finds besides.
pub struct HostKernel {
    /// What the next frame takes for CLOCK_BOOTTIME, nanoseconds.
    pub now_ns: u64,
    /// The interface it comes in on; loopback at first.
    pub ifindex: u32,
    /// Whether it belongs to a VLAN of which its bytes say nothing; not at first.
    pub has_hidden_vlan: bool,
    /// Whether it is a socket buffer; not at first.
    pub is_socket_buffer: bool,
    /// The sockets; none at first.
    pub find_socket: FindSocket,
    /// `FLOWS`.
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    /// `HANDSHAKES`.
    pub handshakes: RefCell<BTreeMap<FlowKey, Handshake>>,
    /// `RESET_BUDGET` of the one CPU.
    pub budget: Cell<ResetBudget>,
    options: Options,
    entries: Entries,
    vips: Vec<(VipKey, Cell<Vip>)>,
    index: Vec<(RouterKey, u32)>,
    counters: [Cell<u64>; COUNTER_NAMES.len()],
    events: Ring<Event>,
    flow_events: Ring<FlowEvent>,
}

impl HostKernel {
    /// A node whose maps are empty.
    ///
    /// # Errors
    /// When there is no memory for the entries.
    pub fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            now_ns: 0,
            ifindex: LOOPBACK,
            has_hidden_vlan: false,
            is_socket_buffer: false,
            find_socket: Box::new(|_, _| Socket::None),
            flows: RefCell::default(),
            handshakes: RefCell::default(),
            budget: Cell::default(),
            options,
            entries: Entries::anonymous(options.routers)?,
            vips: Vec::new(),
            index: Vec::new(),
            counters: [const { Cell::new(0) }; COUNTER_NAMES.len()],
            events: Ring::new(options.ring_bytes),
            flow_events: Ring::new(FLOW_EVENTS_BYTES),
        })
    }

    /// The virtual routers' entries, for the controller's side.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Configures the virtual router at `index` with `settings` and these addresses.
    pub fn configure(&mut self, index: u32, settings: &Settings, addresses: &[[u8; 4]]) {
        let Settings { ifindex, vlan, vrid, .. } = *settings;
        self.edit(index, |entry| entry.settings = *settings);
        self.point(&RouterKey { ifindex, vlan, vrid, family: FAMILY_IPV4, _pad: [0; 2] }, index);
        for address in addresses {
            self.add_vip(&VipKey { ifindex, vlan, address: Address::from_ipv4(*address) }, index);
        }
    }

    /// Points adverts to an index, which need not exist.
    pub fn point(&mut self, key: &RouterKey, index: u32) {
        self.index.retain(|(known, _)| known != key);
        self.index.push((*key, index));
    }

    /// Points a virtual address to an index, which need not exist.
    pub fn add_vip(&mut self, key: &VipKey, index: u32) {
        self.set_vip(key, &Vip { router: index, ..Vip::default() });
    }

    /// Makes a virtual address's entry this one.
    pub fn set_vip(&mut self, key: &VipKey, vip: &Vip) {
        self.vips.retain(|(known, _)| known != key);
        self.vips.push((*key, Cell::new(*vip)));
    }

    /// Changes a virtual router's entry.
    ///
    /// # Panics
    /// When there is none.
    pub fn edit(&mut self, index: u32, change: impl FnOnce(&mut VirtualRouter)) {
        // SAFETY: the entry lives as long as `entries` and holds declared values: zero, and all that is ever stored.
        // Nobody else looks at it meanwhile (see the module).
        change(unsafe { &mut *self.at(index) });
    }

    /// The virtual router's entry as it is now.
    ///
    /// # Panics
    /// When there is none.
    pub fn entry(&self, index: u32) -> VirtualRouter {
        // SAFETY: as in `edit`.
        unsafe { *self.at(index) }
    }

    /// A virtual address, if it is configured.
    pub fn vip(&self, key: &VipKey) -> Option<Vip> {
        self.find_vip(key).map(|at| self.vips[at].1.get())
    }

    /// `HANDSHAKE_COUNT`.
    pub fn handshake_count(&self) -> HandshakeCount {
        // SAFETY: it lives as long as `entries`, and is valid for any bytes.
        unsafe { *self.entries.handshake_count_ptr() }
    }

    /// Makes it this one.
    pub fn set_handshake_count(&mut self, count: HandshakeCount) {
        // SAFETY: as in `handshake_count`.
        unsafe { *self.entries.handshake_count_ptr() = count };
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        zerocopy::transmute!(self.counters.each_ref().map(Cell::get))
    }

    /// Takes the oldest event out of the ring.
    pub fn next_event(&self) -> Option<Event> {
        self.events.records.borrow_mut().pop_front()
    }

    /// Whether there is an event in the ring.
    pub fn has_events(&self) -> bool {
        !self.events.records.borrow().is_empty()
    }

    /// Takes the oldest event of a flow out of its ring.
    pub fn next_flow_event(&self) -> Option<FlowEvent> {
        self.flow_events.records.borrow_mut().pop_front()
    }

    fn peer_flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.borrow().get(key).copied().filter(|flow| flow.origin == FlowOrigin::Peer)
    }

    fn change_vip(&self, at: usize, change: impl FnOnce(&mut Vip)) {
        let mut vip = self.vips[at].1.get();
        change(&mut vip);
        self.vips[at].1.set(vip);
    }

    fn at(&self, router: u32) -> *mut VirtualRouter {
        self.entries.router_ptr(router).expect("the entry exists")
    }

    /// Changes what the frame path itself writes.
    fn change_heard(&self, router: u32, change: impl FnOnce(&mut Heard)) {
        // SAFETY: as in `edit`; the frame path keeps no reference to it (see `Kernel::heard`).
        change(unsafe { &mut (*self.at(router)).heard });
    }
}

/// A ring buffer, as far as it can be full.
struct Ring<T> {
    records: RefCell<VecDeque<T>>,
    most: usize,
}

impl<T: Copy> Ring<T> {
    fn new(bytes: u32) -> Self {
        // Each record has a header of 8 bytes and whole words; one byte always stays free (kernel/bpf/ringbuf.c).
        let record = 8 + size_of::<T>().next_multiple_of(8);
        Self { records: RefCell::default(), most: (bytes as usize - 1) / record }
    }

    fn put(&self, record: &T) -> bool {
        let mut records = self.records.borrow_mut();
        let has_room = records.len() < self.most;
        if has_room {
            records.push_back(*record);
        }
        has_room
    }
}

impl Kernel for HostKernel {
    type Router = u32;
    type Vip = usize;

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn has_hidden_vlan(&self) -> bool {
        self.has_hidden_vlan
    }

    fn count(&self, counter: Counter) {
        let counter = &self.counters[counter as usize];
        counter.set(counter.get() + 1);
    }

    fn find_vip(&self, key: &VipKey) -> Option<usize> {
        self.vips.iter().position(|(known, _)| known == key)
    }

    fn vip_router(&self, vip: usize) -> u32 {
        self.vips[vip].1.get().router
    }

    fn count_arp_reply(&self, vip: usize) {
        self.change_vip(vip, |vip| vip.arp_replies += 1);
    }

    fn count_fenced(&self, vip: usize) {
        self.change_vip(vip, |vip| vip.fenced += 1);
    }

    fn find_router(&self, key: &RouterKey) -> Option<u32> {
        self.index.iter().find(|(known, _)| known == key).map(|(_, index)| *index)
    }

    fn router(&self, index: u32) -> Option<u32> {
        self.entries.router_ptr(index).map(|_| index)
    }

    fn lease(&self, router: u32) -> Lease {
        // SAFETY: as in `edit`.
        unsafe { (*self.at(router)).lease }
    }

    fn settings(&self, router: u32) -> &Settings {
        // SAFETY: as in `edit`.
        unsafe { &(*self.at(router)).settings }
    }

    fn heard(&self, router: u32) -> &Heard {
        // SAFETY: as in `edit`.
        unsafe { &(*self.at(router)).heard }
    }

    fn last_superior_ns(&self, router: u32) -> u64 {
        // SAFETY: as in `edit`.
        unsafe { (*self.at(router)).heard.last_superior_ns }
    }

    fn set_heard(&self, router: u32, heard: &Heard) {
        self.change_heard(router, |to| {
            let Heard { last_superior_ns, conflicts, .. } = *to;
            *to = Heard { last_superior_ns, conflicts, ..*heard };
        });
    }

    fn set_last_superior(&self, router: u32, at_ns: u64) {
        self.change_heard(router, |heard| heard.last_superior_ns = at_ns);
    }

    fn count_conflict(&self, router: u32) {
        self.change_heard(router, |heard| heard.conflicts += 1);
    }

    fn note_event(&self, router: u32, at_ns: u64) {
        self.change_heard(router, |heard| heard.last_event_ns = at_ns);
    }

    fn note_foreign(&self, router: u32, at_ns: u64) {
        self.change_heard(router, |heard| heard.last_foreign_ns = at_ns);
    }

    fn emit(&self, event: &Event) -> bool {
        self.events.put(event)
    }

    fn stale(&self, router: u32) -> &StalePolicy {
        // SAFETY: as in `edit`.
        unsafe { &(*self.at(router)).stale }
    }

    fn takeover(&self, router: u32) -> Takeover {
        // SAFETY: as in `edit`.
        unsafe { (*self.at(router)).takeover }
    }

    fn find_socket(&self, ip: &Ipv4Header, tcp: &TcpHeader) -> Socket {
        (self.find_socket)(ip, tcp)
    }

    fn handshake_ns(&self, key: &FlowKey) -> Option<u64> {
        self.handshakes.borrow().get(key).map(|handshake| handshake.at_ns)
    }

    fn remember_handshake(&self, key: &FlowKey, at_ns: u64) {
        let mut handshakes = self.handshakes.borrow_mut();
        let known = handshakes.get(key);
        if known.is_some_and(|handshake| handshake.ended_ns == 0) {
            return;
        }
        let is_in = known.is_some() || handshakes.len() < self.options.flows_max as usize;
        if is_in {
            handshakes.insert(*key, Handshake { at_ns, used_ns: 0, ended_ns: 0 });
        }
        let count = self.entries.handshake_count_ptr();
        // SAFETY: as in `handshake_count`.
        unsafe { if is_in { (*count).remembered += 1 } else { (*count).missed += 1 } };
    }

    fn note_use(&self, key: &FlowKey, at_ns: u64, is_end: bool) {
        if let Some(handshake) = self.handshakes.borrow_mut().get_mut(key) {
            handshake.used_ns = at_ns;
            if is_end {
                handshake.ended_ns = at_ns;
            }
        }
    }

    fn handshakes_missed(&self) -> u64 {
        self.handshake_count().missed
    }

    fn peer_flow_ns(&self, key: &FlowKey) -> Option<u64> {
        self.peer_flow(key).map(|flow| flow.since_ns)
    }

    fn is_socket_buffer(&self) -> bool {
        self.is_socket_buffer
    }

    fn forget_peer_flow(&self, key: &FlowKey) {
        if self.peer_flow(key).is_some() {
            self.flows.borrow_mut().remove(key);
        }
    }

    fn take_reset_token(&self, now_ns: u64) -> bool {
        let (taken, next) = take_token(&self.budget.get(), self.options.resets_per_second, now_ns);
        self.budget.set(next);
        taken
    }

    fn emit_flow(&self, event: &FlowEvent) {
        if !self.flow_events.put(event) {
            self.count(Counter::FlowEventLost);
        }
    }

    fn count_reset(&self, vip: usize) {
        self.change_vip(vip, |vip| vip.resets += 1);
    }
}

#[cfg(test)]
mod tests {
    use failover_ebpf::{Verdict, handle};

    use super::*;
    use crate::fixtures::{NODE_MAC, SECOND_VIP, VIP, frame, version_3};
    use crate::host_frame::HostFrame;

    fn node(options: Options) -> HostKernel {
        let mut node = HostKernel::new(options).unwrap();
        node.configure(0, &version_3(), &[VIP, SECOND_VIP]);
        node.now_ns = 1_000_000_000;
        node
    }

    #[test]
    fn the_controllers_entry_is_the_frame_paths() {
        let mut node = node(Options::default());
        let entry = node.entries().entry(0).unwrap();
        let mut request = HostFrame(frame("arp request"));
        assert_eq!(handle(&mut request, &node), Verdict::Drop, "no lease");
        entry.set_lease(Lease { until_ns: node.now_ns + 1, claimed_after_ns: 0 });
        assert_eq!(handle(&mut request, &node), Verdict::Transmit);
        assert_eq!(request.0[6..12], NODE_MAC);
        node.now_ns += 1;
        assert_eq!(handle(&mut HostFrame(frame("arp request")), &node), Verdict::Drop, "the lease is over");
        assert_eq!((node.counters().arp_answered, node.counters().arp_silenced), (1, 2));

        assert_eq!(handle(&mut HostFrame(frame("v3 message")), &node), Verdict::Drop);
        assert_eq!(entry.last_advert_ns(), node.now_ns);
        assert_eq!(entry.heard(), node.entry(0).heard);
        entry.set_takeover(5);
        node.set_handshake_count(HandshakeCount { remembered: 9, missed: 3 });
        entry.set_takeover(6);
        assert_eq!(node.entry(0).takeover, Takeover { at_ns: 6, missed_before: 3 });
    }

    #[test]
    fn a_full_ring_says_so() {
        let ring = Ring::new(4096);
        // 48 bytes and a header of 8: 73 records are 4,088 bytes.
        let room = (0..100).take_while(|_| ring.put(&[0_u64; 6])).count();
        assert_eq!(room, 73);
        ring.records.borrow_mut().pop_front();
        assert!(ring.put(&[0; 6]) && !ring.put(&[0; 6]));
    }
}
