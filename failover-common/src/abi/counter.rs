//! The counters: one struct, so that bpftool shows names; one enum, so that code cannot miss.
//!
//! Order is append-only: a counter that is no longer used keeps its place.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares the enum, the struct with a field per variant in the same order, and the names.
macro_rules! counters {
    ($($(#[$doc:meta])+ $variant:ident => $field:ident,)+) => {
        /// One exit of the XDP program. The discriminant is the index of the field in [`Counters`].
        #[repr(usize)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])+ $variant,)+ }

        /// What one CPU counted since the program was loaded. Frames, unless said otherwise.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct Counters { $($(#[$doc])+ pub $field: u64,)+ }

        /// The fields' names in order, as bpftool and `failover status --json` print them.
        pub const COUNTER_NAMES: [&str; size_of::<Counters>() / 8] = [$(stringify!($field),)+];
    };
}

counters! {
    /// Valid adverts of a configured virtual router.
    AdvertValid => advert_valid,
    /// Refused: TTL below 255 (RFC 9568 7.1, 1st check).
    AdvertBadTtl => advert_bad_ttl,
    /// Refused: a version other than the virtual router's (2nd check).
    AdvertBadVersion => advert_bad_version,
    /// Refused: type other than 1, ADVERTISEMENT (3rd check).
    AdvertBadType => advert_bad_type,
    /// Refused: shorter than its address count says, or lengths that contradict each other (4th check).
    AdvertBadLength => advert_bad_length,
    /// Refused: neither checksum form fits (5th check).
    AdvertBadChecksum => advert_bad_checksum,
    /// Refused: no address (erratum 8299).
    AdvertNoAddress => advert_no_address,
    /// Refused: interval 0 (erratum 8301).
    AdvertZeroInterval => advert_zero_interval,
    /// Refused, version 2: another authentication type, or another password.
    AdvertBadAuthentication => advert_bad_authentication,
    /// Refused, version 2: another interval than ours (RFC 3768 7.1).
    AdvertOtherInterval => advert_other_interval,
    /// Refused: a fragment, or an IPv4 header with a wrong checksum.
    AdvertBadIp => advert_bad_ip,
    /// Refused: sent from our own address, or from one that is no unicast address.
    AdvertBadSource => advert_bad_source,
    /// Adverts that beat this node; if it held a lease, the lease ended here.
    AdvertSuperior => advert_superior,
    /// Leases ended by such an advert.
    LeaseEnded => lease_ended,
    /// ARP requests and probes for a virtual address, answered.
    ArpAnswered => arp_answered,
    /// ARP requests for a virtual address, not answered: no live lease.
    ArpSilenced => arp_silenced,
    /// ARP that claims a virtual address while this node holds it.
    ArpConflict => arp_conflict,
    /// IP packets to a virtual address, dropped: no live lease.
    VipFenced => vip_fenced,
    /// Events left out because the same virtual router raised one within the last millisecond.
    EventSuppressed => event_suppressed,
    /// Events lost to a full ring.
    EventLost => event_lost,
    /// Stale TCP segments answered with a reset: flows that a peer told of.
    ResetPeerFlow => reset_peer_flow,
    /// Stale TCP segments answered with a reset: flows that nobody here knows.
    ResetUnknownFlow => reset_unknown_flow,
    /// Stale TCP segments dropped: the token bucket for resets was empty.
    ResetBudgetSpent => reset_budget_spent,
    /// Stale TCP segments dropped: `action = "drop"`.
    StaleDropped => stale_dropped,
    /// Stale TCP segments dropped: within `hold` of the takeover.
    StaleHeld => stale_held,
    /// TCP segments passed: a socket of this node has the flow.
    TcpSocket => tcp_socket,
    /// TCP segments passed: an ACK that ends a handshake with a SYN cookie.
    TcpCookie => tcp_cookie,
    /// TCP segments passed: this node saw the flow's handshake.
    TcpHandshakeSeen => tcp_handshake_seen,
    /// TCP segments passed: SYN, the beginning of a flow.
    TcpSyn => tcp_syn,
    /// SYN segments dropped: this node is about to let the address go.
    TcpLeaving => tcp_leaving,
    /// TCP segments passed: RST, which nothing answers.
    TcpReset => tcp_reset,
    /// TCP segments passed, though nobody here knows their flow: nothing was taken over, or more
    /// connections began since than can be remembered.
    TcpUnproven => tcp_unproven,
    /// Stale TCP segments dropped: another owner of the address was heard, whose flow it may be.
    TcpSplit => tcp_split,
    /// TCP fragments, passed.
    TcpFragment => tcp_fragment,
    /// TCP segments passed: lengths that contradict each other.
    TcpBadLength => tcp_bad_length,
    /// TCP segments of no flow known here, passed: a wrong IPv4 or TCP checksum.
    TcpBadChecksum => tcp_bad_checksum,
    /// TCP segments of no flow known here, passed: from an address or hardware address that no answer may go to,
    /// or to a group's hardware address.
    TcpBadSource => tcp_bad_source,
    /// TCP segments of no flow known here, passed: IPv4 or TCP options that run past their header.
    TcpBadOptions => tcp_bad_options,
    /// TCP segments of no flow known here, passed: on an interface in generic mode, those with IP options, which only
    /// the kernel can answer.
    TcpGeneric => tcp_generic,
    /// Connections of this node that are not remembered: the table of flows is full.
    FlowTableFull => flow_table_full,
    /// Events of flows lost to a full ring.
    FlowEventLost => flow_event_lost,
}

impl Counters {
    /// The values in the order of [`COUNTER_NAMES`].
    pub fn values(&self) -> [u64; COUNTER_NAMES.len()] {
        zerocopy::transmute!(*self)
    }

    /// One value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values()[counter as usize]
    }

    /// Adds what another CPU counted.
    pub fn add(&mut self, other: &Self) {
        let mut sum = self.values();
        for (mine, theirs) in sum.iter_mut().zip(other.values()) {
            *mine = mine.wrapping_add(theirs);
        }
        *self = zerocopy::transmute!(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enum_struct_and_names_agree() {
        let counted = Counters { advert_bad_ttl: 3, event_lost: 9, ..Counters::default() };
        assert_eq!(counted.get(Counter::AdvertBadTtl), 3);
        assert_eq!(counted.get(Counter::EventLost), 9);
        assert_eq!(counted.get(Counter::AdvertValid), 0);
        assert_eq!(COUNTER_NAMES[Counter::AdvertBadTtl as usize], "advert_bad_ttl");
        assert_eq!(COUNTER_NAMES.last(), Some(&"flow_event_lost"));
    }

    #[test]
    fn cpus_add_up() {
        let mut sum = Counters { arp_answered: 2, ..Counters::default() };
        sum.add(&Counters { arp_answered: 5, vip_fenced: 1, ..Counters::default() });
        assert_eq!(sum, Counters { arp_answered: 7, vip_fenced: 1, ..Counters::default() });
    }
}
