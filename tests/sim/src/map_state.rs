//! All that a frame can find in a node's maps, as one value: chosen, given to the loaded program or to the one on the
//! host, and taken back afterwards to be compared.
//!
//! Deliberately absent: what happens to it.

use std::collections::BTreeMap;

use failover_common::abi::{
    ChecksumForm, FAMILY_IPV4, Flow, FlowKey, FlowOrigin, Handshake, HandshakeCount, Heard, Lease, ResetBudget,
    RouterKey, STALE_PORTS_MAX, Settings, StaleAction, StalePolicy, Takeover, VIP_FILTER_ALL, Vip, VipKey,
    VirtualRouter,
};
use failover_common::address::Address;

use crate::fixtures::{NODE, PEER, SECOND_VIP, VIP, flow_key, version_2, version_2_with_password, version_3};
use crate::host_kernel::{HostKernel, LOOPBACK, Options};
use crate::random::Choices;

/// The VLAN of the second virtual router.
const VLAN: u32 = 10;
/// Two VLANs, whose virtual address belongs to an index that does not exist.
const NOWHERE: u32 = 100 << 16 | 200;
/// The virtual addresses, by VLAN, address and index of the virtual router.
const VIPS: [(u32, [u8; 4], u32); 4] = [(0, VIP, 0), (0, SECOND_VIP, 0), (VLAN, VIP, 1), (NOWHERE, VIP, 2)];

/// What the maps hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapState {
    /// `VIRTUAL_ROUTERS`: an untagged one, and one of VLAN 10.
    pub routers: [VirtualRouter; 2],
    /// `VIPS`: both addresses untagged, the first in VLAN 10, and in VLANs 100 and 200, where no router exists.
    pub vips: [Vip; VIPS.len()],
    /// `FLOWS`.
    pub flows: BTreeMap<FlowKey, Flow>,
    /// `HANDSHAKES`.
    pub handshakes: BTreeMap<FlowKey, Handshake>,
    /// `HANDSHAKE_COUNT`.
    pub count: HandshakeCount,
    /// `RESET_BUDGET`, of the CPU that the frame came in on.
    pub budget: ResetBudget,
    /// Of no map: whether the frame is a socket buffer.
    pub is_socket_buffer: bool,
}

/// How a node is made that these states fit into: with room for one handshake, so that it is full with one.
pub const OPTIONS: Options = Options {
    routers: 2,
    ring_bytes: 4096,
    flows_max: 1,
    resets_per_second: 100_000_000,
    filter: VIP_FILTER_ALL,
    has_peers: true,
};

impl MapState {
    /// A state that matters to `frame`: times are among `times`, of which the first is to come and the second past.
    pub fn choose(choices: &mut impl Choices, times: &[u64], frame: &[u8]) -> Self {
        let key = key_of(frame).unwrap_or(flow_key());
        let mut choose = Chooser { choices, times };
        let mut settings = choose.settings();
        let first = choose.router(settings);
        settings.vlan = VLAN;
        let (mut flows, mut handshakes) = (BTreeMap::new(), BTreeMap::new());
        if choose.choices.chance(2) {
            flows.insert(key, choose.flow());
        }
        if choose.choices.chance(2) {
            let remote_port = key.remote_port ^ choose.choices.pick(&[0, 0, 1]);
            handshakes.insert(FlowKey { remote_port, ..key }, choose.handshake());
        }
        Self {
            routers: [first, choose.router(settings)],
            vips: VIPS.map(|(_, _, router)| Vip { router, ..Vip::default() }),
            flows,
            handshakes,
            count: HandshakeCount { remembered: 5, missed: u64::from(choose.choices.chance(6)) },
            budget: choose.budget(),
            is_socket_buffer: choose.choices.chance(3),
        }
    }

    /// The same with other times in what a frame may write.
    pub fn map_times(mut self, map: impl Fn(u64) -> u64) -> Self {
        for VirtualRouter { heard, .. } in &mut self.routers {
            let Heard { last_superior_ns, last_advert_ns, last_event_ns, last_foreign_ns, .. } = heard;
            for time in [last_superior_ns, last_advert_ns, last_event_ns, last_foreign_ns] {
                *time = map(*time);
            }
        }
        for Handshake { at_ns, used_ns, ended_ns } in self.handshakes.values_mut() {
            for time in [at_ns, used_ns, ended_ns] {
                *time = map(*time);
            }
        }
        self.budget.filled_ns = map(self.budget.filled_ns);
        self
    }
}

/// Chooses the parts.
struct Chooser<'a, C> {
    choices: &'a mut C,
    times: &'a [u64],
}

impl<C: Choices> Chooser<'_, C> {
    fn time(&mut self) -> u64 {
        self.choices.pick(self.times)
    }

    /// Mostly this one.
    fn time_or(&mut self, usual: u64) -> u64 {
        if self.choices.chance(4) { self.time() } else { usual }
    }

    fn settings(&mut self) -> Settings {
        let password = self.choices.pick(&[b"1111\0\0\0\0", b"11112222"]);
        let of_version = [version_3(), version_3(), version_3(), version_2(), version_2_with_password(password)];
        Settings {
            priority: self.choices.pick(&[100, 100, 1, 255]),
            advert_interval_cs: self.choices.pick(&[100, 100, 1, 4095]),
            ..self.choices.pick(&of_version)
        }
    }

    fn router(&mut self, settings: Settings) -> VirtualRouter {
        let heard = Heard {
            last_superior_ns: self.time(),
            last_advert_ns: self.time(),
            last_event_ns: self.time(),
            adverts: self.choices.pick(&[0, 7]),
            source: Address::from_ipv4(self.choices.pick(&[PEER, NODE, [0; 4]])),
            address_digest: 0,
            interval_cs: self.choices.pick(&[100, 1, 4095]),
            priority: self.choices.pick(&[100, 0, 150]),
            checksum_form: self.choices.pick(&[ChecksumForm::Unknown, ChecksumForm::Message]),
            conflicts: self.choices.pick(&[0, 3]),
            last_foreign_ns: self.time_or(0),
        };
        let is_void = self.choices.chance(6);
        let lease = Lease {
            until_ns: self.time_or(self.times[0]),
            claimed_after_ns: if is_void { self.time() } else { heard.last_superior_ns },
        };
        VirtualRouter {
            lease,
            heard,
            settings,
            takeover: Takeover { at_ns: self.time_or(self.times[1]), missed_before: u64::from(self.choices.chance(6)) },
            stale: self.stale(),
            ..VirtualRouter::default()
        }
    }

    fn stale(&mut self) -> StalePolicy {
        let mut ports = [0; STALE_PORTS_MAX];
        ports[..2].copy_from_slice(&self.choices.pick(&[[0, 0], [0, 0], [80, 0], [443, 80], [443, 0]]));
        StalePolicy {
            leaving_until_ns: self.time_or(0),
            hold_ms: self.choices.pick(&[0, 0, 0, 0, 3_600_000]),
            action: self.choices.pick(&[StaleAction::Reset, StaleAction::Reset, StaleAction::Drop, StaleAction::Pass]),
            ports,
        }
    }

    fn flow(&mut self) -> Flow {
        let origin = self.choices.pick(&[FlowOrigin::Peer, FlowOrigin::Peer, FlowOrigin::Socket, FlowOrigin::Found]);
        Flow { since_ns: self.time(), origin, peer: 3, sync: 5, send_next: 7, has_send_next: 1, _pad: 0 }
    }

    fn handshake(&mut self) -> Handshake {
        let ended_ns = if self.choices.chance(2) { 0 } else { self.time() };
        Handshake { at_ns: self.time(), used_ns: self.time(), ended_ns }
    }

    /// Full, spent, or neither; not filling by itself.
    fn budget(&mut self) -> ResetBudget {
        let (tokens_nano, filled_ns) =
            self.choices.pick(&[(0, 0), (0, 0), (1_000_000_001, u64::MAX), (999_999_999, u64::MAX)]);
        ResetBudget { tokens_nano, filled_ns }
    }
}

/// The flow that the frame is of, if it is TCP in IPv4.
fn key_of(frame: &[u8]) -> Option<FlowKey> {
    let mut ip = 14;
    while ip < 22 && matches!(frame.get(ip - 2..ip)?, [0x81, 0x00] | [0x88, 0xa8]) {
        ip += 4;
    }
    let bytes = frame.get(ip..)?;
    let tcp = 4 * usize::from(bytes.first()? & 0x0f);
    let address = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(Address::from_ipv4);
    let port = |at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    Some(FlowKey { local: address(16)?, remote: address(12)?, local_port: port(tcp + 2)?, remote_port: port(tcp)? })
}

/// The keys of [`MapState::vips`].
pub fn vip_keys() -> [VipKey; VIPS.len()] {
    VIPS.map(|(vlan, address, _)| VipKey { ifindex: LOOPBACK, vlan, address: Address::from_ipv4(address) })
}

/// The key of the router that these settings are for.
pub fn router_key(settings: &Settings) -> RouterKey {
    let Settings { ifindex, vlan, vrid, .. } = *settings;
    RouterKey { ifindex, vlan, vrid, family: FAMILY_IPV4, _pad: [0; 2] }
}

impl HostKernel {
    /// Makes the maps hold this.
    pub fn set_state(&mut self, state: &MapState) {
        for (index, router) in (0..).zip(&state.routers) {
            self.edit(index, |entry| *entry = *router);
            self.point(&router_key(&router.settings), index);
        }
        for (key, vip) in vip_keys().iter().zip(&state.vips) {
            self.set_vip(key, vip);
        }
        self.is_socket_buffer = state.is_socket_buffer;
        self.flows.get_mut().clone_from(&state.flows);
        self.handshakes.get_mut().clone_from(&state.handshakes);
        self.set_handshake_count(state.count);
        self.budget.set(state.budget);
    }

    /// What the maps hold.
    ///
    /// # Panics
    /// When this state was not made by [`Self::set_state`].
    pub fn state(&self) -> MapState {
        MapState {
            routers: [self.entry(0), self.entry(1)],
            vips: vip_keys().map(|key| self.vip(&key).expect("the address is configured")),
            flows: self.flows.borrow().clone(),
            handshakes: self.handshakes.borrow().clone(),
            count: self.handshake_count(),
            budget: self.budget.get(),
            is_socket_buffer: self.is_socket_buffer,
        }
    }
}
