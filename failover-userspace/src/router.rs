//! One virtual router at run time: its election, its entry in the kernel's map, its frames; and the
//! one place where the election's actions become effects.
//!
//! Invariant kept here: the lease is stored with `told_superior_ns`, the last superior advert that
//! the election was told of. The kernel compares it with the last one it heard, so a claim made in
//! ignorance is void from the start (ARCHITECTURE.md, invariant 3).

use std::io;

use failover_common::abi::{ChecksumForm, EVENT_GAP_NS, Event, EventKind, Heard, Lease, State};
use failover_common::address::Address;
use failover_common::lease::beats;
use failover_common::wire::ethernet::Mac;
use failover_common::wire::vrrp::{ADVERT_FRAME_LEN_MAX, AddressDigest, AdvertFrame, PRIORITY_RELEASE};

use crate::config::{ChecksumForm as Configured, Version, VirtualRouter};
use crate::dataplane::{self, Entry};
use crate::election::timing::{interval_ns, turn_ns};
use crate::election::{Action, Election, HeardAdvert, Input, Parameters, Reason, Transition};
use crate::flows::leaving;
use crate::interface::Interface;
use crate::plan::virtual_addresses;
use crate::told::{Hex, Quiet, rivalry};

/// Adverts that go out together. More would keep the first of them waiting for their leases.
const BATCH: usize = 32;

/// Who is due so soon is looked after now: a Backup finds the adverts in the map that came one after another, and that is
/// one wake-up instead of several. Nothing is done before it is due.
const TOGETHER_NS: u64 = 200_000;

/// Why an advert was not even tried.
const UNFENCED: &str = "the XDP program was not seen in its place, or does not run";

/// All that a virtual router needs of the machine. The controller's is the machine; the simulator's is made up, and
/// everything above it the same.
pub trait World {
    /// CLOCK_BOOTTIME nanoseconds, read anew at each call.
    fn now_ns(&self) -> u64;
    /// Milliseconds since 1970, for people.
    fn unix_ms(&self) -> u64;
    /// Hands one whole frame to the interface.
    ///
    /// # Errors
    /// When it did not go out.
    fn send(&self, frame: &[u8]) -> io::Result<()>;
    /// Hands over several, in this order, and says of each what [`Self::send`] would.
    fn send_all(&self, frames: &[&[u8]]) -> Vec<io::Result<()>> {
        frames.iter().map(|frame| self.send(frame)).collect()
    }
    /// Asks for something that may take its time.
    fn wish(&self, wish: Wish);
    /// Whether the kernel program was seen on the interface of late, or the kernel is being asked. Never waits.
    fn is_fenced(&self) -> bool;
    /// Whether no frame got past the program that it should have heard. Never waits.
    fn hears(&self) -> bool;
}

/// What the host is to do, by the virtual router's index in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Addresses of that virtual router on the interface, and announced.
    Take(usize),
    /// Connections on the addresses reset, then these off the interface.
    Drop(usize),
    /// Addresses off the interface; what connections there were is reset.
    TakeOff(usize),
    /// Addresses announced once more.
    Announce(usize),
}

/// One wake-up of all virtual routers: what the kernel told first, and only then what is due. `world` is by
/// [`Router::interface`].
pub fn wake<W: World>(routers: &mut [Router], events: impl IntoIterator<Item = Event>, world: impl Fn(usize) -> W) {
    for event in events {
        // Of no router, nobody's.
        if let Some(router) = routers.get_mut(event.router as usize) {
            router.event(&event, &world(router.interface));
        }
    }
    let mut batch: Vec<&mut Router> = Vec::new();
    let now_ns = routers.first().map_or(0, |router| world(router.interface).now_ns());
    for router in routers.iter_mut() {
        if router.next_deadline().is_none_or(|at_ns| at_ns > now_ns + TOGETHER_NS) {
            continue;
        }
        if batch.last().is_some_and(|last| batch.len() == BATCH || last.interface != router.interface) {
            advertise(&mut batch, &world);
        }
        if router.time_out(&world(router.interface)) {
            batch.push(router);
        }
    }
    advertise(&mut batch, &world);
    for router in routers {
        router.tell_people();
    }
}

/// Sends what these routers of one interface want sent next, in one go, and lets them act on it. The clock is read before
/// the first goes out: a lease is never longer than its own advert is old.
fn advertise<W: World>(batch: &mut Vec<&mut Router>, world: &impl Fn(usize) -> W) {
    let Some(first) = batch.first() else { return };
    let world = world(first.interface);
    let (mut free, held): (Vec<_>, Vec<_>) = batch.drain(..).partition(|router| router.may_send(&world));
    let before_send_ns = world.now_ns();
    let frames: Vec<&[u8]> = free.iter().filter_map(|router| router.next_frame()).collect();
    let sent = if frames.is_empty() { Vec::new() } else { world.send_all(&frames) };
    for (router, sent) in free.drain(..).zip(sent) {
        router.sent(before_send_ns, sent, &world);
        router.send_next(&world);
    }
    for router in held {
        router.send_next(&world);
    }
}

/// See the module.
pub struct Router {
    config: VirtualRouter,
    index: usize,
    /// Index of its interface in the plan.
    pub interface: usize,
    election: Election,
    entry: Entry,
    frames: Frames,
    usable: bool,
    /// Whether it has held a lease since it last gave the addresses up: a lapse in between is no takeover.
    serving: bool,
    /// The advert that the election waits for.
    sending: Option<Sending>,
    /// What people are told when there is time, and for how long the addresses were unanswered at most.
    untold: Vec<(Transition, Option<u64>)>,
    told_advert_ns: u64,
    told_superior_ns: u64,
    told_conflicts: u64,
    /// When to look into the map for what the kernel saw too soon after its last event to tell of it.
    look_again_at_ns: Option<u64>,
    /// When to do so after a start.
    first_look_at_ns: u64,
    /// The last superior advert told; before the first, one that could be anybody's.
    last_superior: HeardAdvert,
    sends_failing: u32,
    differences_told: Quiet,
    conflicts_told: Quiet,
    own_adverts_told: Quiet,
    rivals_told: Quiet,
}

/// Which of them.
#[derive(Clone, Copy)]
enum Sending {
    Advert,
    Release,
}

/// The two adverts that are ever sent, built before they are needed.
struct Frames {
    mac: Mac,
    own_address: [u8; 4],
    checksum_form: ChecksumForm,
    advert: Vec<u8>,
    release: Vec<u8>,
}

impl Router {
    /// A virtual router that has not started, at `index` of `count`.
    pub fn new(
        config: &VirtualRouter,
        (index, count): (usize, usize),
        interface: usize,
        own_address: [u8; 4],
        mac: Mac,
        entry: Entry,
    ) -> Self {
        let parameters = Parameters {
            own_address: Address::from_ipv4(own_address),
            priority: config.priority,
            version: wire_version(config.version),
            advert_interval_cs: config.advert_interval_cs,
            turn_ns: turn_ns(index, count, config.advert_interval_cs),
            preempt: config.preempt,
            preempt_delay_ns: config.preempt_delay.as_nanos() as u64,
        };
        let checksum_form = match config.checksum {
            Configured::Auto | Configured::Rfc9568 => ChecksumForm::Message,
            Configured::PseudoHeader => ChecksumForm::PseudoHeader,
        };
        Self {
            frames: Frames::build(config, mac, own_address, checksum_form),
            election: Election::new(parameters),
            config: config.clone(),
            index,
            interface,
            entry,
            usable: false,
            serving: false,
            sending: None,
            untold: Vec::new(),
            told_advert_ns: 0,
            told_superior_ns: 0,
            told_conflicts: 0,
            look_again_at_ns: None,
            first_look_at_ns: 0,
            last_superior: HeardAdvert {
                received_at_ns: 0,
                source: Address { bytes: [0xff; 16] },
                priority: config.priority,
                interval_cs: config.advert_interval_cs,
            },
            sends_failing: 0,
            differences_told: Quiet::default(),
            conflicts_told: Quiet::default(),
            own_adverts_told: Quiet::default(),
            rivals_told: Quiet::default(),
        }
    }

    /// The lease that an earlier controller left in the entry, if it is live.
    pub fn live_lease(&self, now_ns: u64) -> Option<Lease> {
        self.entry.is_live(now_ns).then(|| self.entry.lease())
    }

    /// Starts, with the lease of an earlier controller if there is one.
    pub fn start(&mut self, is_usable: bool, resumed: Option<Lease>, world: &impl World) {
        self.begin_anew(world.now_ns());
        self.usable = is_usable;
        let input = match resumed {
            Some(lease) if is_usable => {
                self.told_superior_ns = lease.claimed_after_ns;
                self.serving = true;
                Input::Resume { lease_until_ns: lease.until_ns }
            }
            _ if is_usable => Input::Startup,
            _ => Input::LinkDown,
        };
        if !matches!(input, Input::Resume { .. }) {
            self.entry.set_lease(Lease::default());
        }
        self.give(input, world);
        self.tell_people();
    }

    /// What was heard before a start is history: the timers begin now. Whoever advertised before and still does is heard
    /// for the first time within an interval, and no event tells of it.
    fn begin_anew(&mut self, now_ns: u64) {
        let interval_ns = interval_ns(self.config.advert_interval_cs);
        self.first_look_at_ns = now_ns + interval_ns;
        self.look_again_at_ns = Some(self.first_look_at_ns);
        self.told_superior_ns = self.entry.last_superior_ns();
        let heard = self.entry.heard();
        self.told_advert_ns = heard.last_advert_ns;
        self.told_conflicts = heard.conflicts;
        // If its steady row goes on, no event tells of that either.
        if self.beats(&advert_of(&heard)) {
            self.last_superior = advert_of(&heard);
        }
    }

    /// When [`wake`] has something to do for it.
    pub fn next_deadline(&self) -> Option<u64> {
        self.election.next_deadline().into_iter().chain(self.look_again_at_ns).min()
    }

    /// The deadline has come, or nearly: first all that the kernel heard, then the time. Says whether an advert is to be
    /// sent now.
    fn time_out(&mut self, world: &impl World) -> bool {
        // The clock first: what comes in while this thread is stalled after it is not yet judged.
        let now_ns = world.now_ns();
        self.catch_up(world);
        let looks_at_ns = [self.entry.heard().last_event_ns.saturating_add(EVENT_GAP_NS), self.first_look_at_ns];
        self.look_again_at_ns = looks_at_ns.into_iter().filter(|at_ns| *at_ns > now_ns).min();
        self.election.handle_timeout(now_ns);
        self.pump_to_advert(world);
        self.sending.is_some()
    }

    /// Tells the election what the map knows and no event told: steady adverts, what came too soon after an event, and
    /// whatever a full ring lost.
    fn catch_up(&mut self, world: &impl World) {
        // In this order: what moved the first word is in the second, or something later is.
        let superior_ns = self.entry.last_superior_ns();
        let heard = self.entry.heard();
        if superior_ns != heard.last_advert_ns {
            self.tell_missed_superior(superior_ns, world);
        }
        if heard.last_advert_ns > self.told_advert_ns {
            self.hear(&heard, world);
        }
        // Told, whatever the election made of it: the kernel's judgement may be older than a change
        // of this node's own address.
        self.told_superior_ns = self.told_superior_ns.max(superior_ns);
        if heard.conflicts != self.told_conflicts {
            self.told_conflicts = heard.conflicts;
            self.give(Input::Conflict, world);
        }
    }

    /// Of a superior advert that another one has followed in the map, only its time is left. It was
    /// one of a steady row, or its event was lost: at any rate it was like the last one told.
    fn tell_missed_superior(&mut self, superior_ns: u64, world: &impl World) {
        if superior_ns > self.told_superior_ns {
            self.tell(HeardAdvert { received_at_ns: superior_ns, ..self.last_superior }, world);
        }
    }

    fn hear(&mut self, heard: &Heard, world: &impl World) {
        self.learn(heard.source, heard.interval_cs, heard.address_digest, heard.checksum_form, heard.last_advert_ns);
        self.tell(advert_of(heard), world);
    }

    /// One event of the ring.
    pub fn event(&mut self, event: &Event, world: &impl World) {
        let look_at_ns = event.at_ns.saturating_add(EVENT_GAP_NS);
        self.look_again_at_ns = Some(self.look_again_at_ns.map_or(look_at_ns, |at_ns| at_ns.min(look_at_ns)));
        match event.kind {
            EventKind::Advert => self.advert_event(event, world),
            EventKind::Conflict => {
                if self.conflicts_told.is_due(event.at_ns) {
                    tracing::warn!(
                        instance = %self.config.name, address = %event.address.to_ip(), mac = %Hex(event.mac),
                        "another station claims the address by ARP; announcing it again"
                    );
                }
                self.told_conflicts = self.entry.heard().conflicts;
                self.give(Input::Conflict, world);
            }
            EventKind::OwnAdvert => {
                if self.own_adverts_told.is_due(event.at_ns) {
                    tracing::warn!(
                        instance = %self.config.name, address = %event.address.to_ip(), mac = %Hex(event.mac),
                        "an advert came in that has this node's own address as its source: a loop in the network, or two \
                         nodes with one address"
                    );
                }
            }
        }
    }

    /// An advert from the ring. What is older than what was told already is history: the ring may
    /// have kept it over a restart or a stall, and told again it would put timers back.
    fn advert_event(&mut self, event: &Event, world: &impl World) {
        let advert = HeardAdvert {
            received_at_ns: event.at_ns,
            source: event.address,
            priority: event.priority,
            interval_cs: event.interval_cs,
        };
        let is_news = event.at_ns > self.told_advert_ns || (self.beats(&advert) && event.at_ns > self.told_superior_ns);
        if !is_news {
            return;
        }
        let superior_ns = self.entry.last_superior_ns();
        if superior_ns < event.at_ns {
            self.tell_missed_superior(superior_ns, world);
        }
        self.learn(event.address, event.interval_cs, event.address_digest, event.checksum_form, event.at_ns);
        self.tell(advert, world);
    }

    fn beats(&self, advert: &HeardAdvert) -> bool {
        let own_address = Address::from_ipv4(self.frames.own_address);
        beats(advert.priority, &advert.source, self.config.priority, &own_address)
    }

    fn tell(&mut self, advert: HeardAdvert, world: &impl World) {
        self.told_advert_ns = self.told_advert_ns.max(advert.received_at_ns);
        let beats = self.beats(&advert);
        if let Some(what) = rivalry(self.config.priority, self.serving, advert.priority, beats)
            && self.rivals_told.is_due(advert.received_at_ns)
        {
            tracing::warn!(instance = %self.config.name, peer = %advert.source.to_ip(), theirs = advert.priority, ours = self.config.priority, "{what}");
        }
        if beats {
            self.told_superior_ns = self.told_superior_ns.max(advert.received_at_ns);
            self.last_superior = advert;
        }
        self.give(Input::Advert(advert), world);
    }

    /// Follows the peer's checksum, and tells once of a peer that is configured differently.
    fn learn(
        &mut self,
        source: Address,
        interval_cs: u16,
        address_digest: u32,
        checksum_form: ChecksumForm,
        now_ns: u64,
    ) {
        if self.config.checksum == Configured::Auto
            && self.config.version == Version::V3
            && checksum_form == ChecksumForm::PseudoHeader
            && self.frames.checksum_form != checksum_form
        {
            tracing::info!(instance = %self.config.name, peer = %source.to_ip(), "the peer sums a pseudo-header into its adverts; doing the same");
            self.frames = Frames::build(&self.config, self.frames.mac, self.frames.own_address, checksum_form);
        }
        let other_interval = interval_cs != self.config.advert_interval_cs;
        let mut digest = AddressDigest::default();
        self.config.addresses.iter().for_each(|net| digest.add(net.addr().octets()));
        let other_addresses = address_digest != digest.0;
        if !(other_interval || other_addresses) || !self.differences_told.is_due(now_ns) {
            return;
        }
        if other_interval {
            tracing::warn!(
                instance = %self.config.name, peer = %source.to_ip(), theirs_ms = u32::from(interval_cs) * 10,
                ours_ms = u32::from(self.config.advert_interval_cs) * 10,
                "the peer advertises at another interval; it is learned while the peer is active"
            );
        }
        if other_addresses {
            tracing::warn!(instance = %self.config.name, peer = %source.to_ip(), "the peer lists other addresses than this node is configured with");
        }
    }

    /// The interface changed, or is gone.
    pub fn interface_changed(&mut self, state: Option<&Interface>, config: &crate::config::Config, world: &impl World) {
        let virtual_addresses = virtual_addresses(config, &self.config.interface, self.config.priority);
        let own_address = state.and_then(|state| state.primary_address(&virtual_addresses));
        if let (Some(state), Some(own_address)) = (state, own_address) {
            let moved = (self.frames.mac, self.frames.own_address) != (state.mac, own_address.octets());
            let settings = dataplane::settings(&self.config, state, own_address);
            if moved || self.entry.settings() != settings {
                self.entry.set_settings(&settings);
                self.election.set_own_address(Address::from(own_address));
                self.frames = Frames::build(&self.config, state.mac, own_address.octets(), self.frames.checksum_form);
                world.wish(Wish::Announce(self.index));
            }
        }
        let is_usable = own_address.is_some() && state.is_some_and(|state| state.is_up);
        if is_usable != self.usable {
            self.usable = is_usable;
            if is_usable {
                self.begin_anew(world.now_ns());
            }
            self.give(if is_usable { Input::LinkUp } else { Input::LinkDown }, world);
            self.tell_people();
        }
    }

    /// The kernel program was found missing on the interface, or is there again.
    pub fn fence_changed(&mut self, is_there: bool, world: &impl World) {
        if is_there && self.election.state() == State::Fault {
            // As after a start: what was told before is history.
            self.begin_anew(world.now_ns());
        }
        self.give(if is_there { Input::FenceBack } else { Input::FenceLost }, world);
        self.tell_people();
    }

    /// Releases.
    pub fn shut_down(&mut self, world: &impl World) {
        self.give(Input::Shutdown, world);
        self.tell_people();
    }

    fn give(&mut self, input: Input, world: &impl World) {
        self.election.handle(world.now_ns(), input);
        self.pump(world);
    }

    /// Applies what the election wants, in its order.
    fn pump(&mut self, world: &impl World) {
        self.pump_to_advert(world);
        self.send_next(world);
    }

    /// Sends what the election waits for, one after the other until it waits no more.
    fn send_next(&mut self, world: &impl World) {
        while let Some(frame) = self.next_frame() {
            let before_send_ns = world.now_ns();
            let sent = if self.may_send(world) { world.send(frame) } else { Err(io::Error::other(UNFENCED)) };
            self.sent(before_send_ns, sent, world);
        }
    }

    /// Whether the advert that the election waits for may go out (`fence` has why): one that renews needs a program that
    /// fences, one that claims one that hears as well. Giving up needs none.
    fn may_send(&self, world: &impl World) -> bool {
        let is_release = matches!(self.sending, Some(Sending::Release));
        is_release || (world.is_fenced() && (self.serving || world.hears()))
    }

    /// Applies what the election wants until that is an advert, or nothing.
    fn pump_to_advert(&mut self, world: &impl World) {
        self.sending = None;
        while let Some(action) = self.election.poll_action() {
            match action {
                Action::SendAdvert { priority: PRIORITY_RELEASE } => return self.sending = Some(Sending::Release),
                Action::SendAdvert { .. } => return self.sending = Some(Sending::Advert),
                Action::SetLease { until_ns } => {
                    if until_ns != 0 && !self.serving {
                        self.serving = true;
                        self.take_over(world);
                    }
                    self.entry.set_lease(Lease { until_ns, claimed_after_ns: self.told_superior_ns });
                }
                Action::TakeAddresses => world.wish(Wish::Take(self.index)),
                Action::DropAddresses => {
                    self.serving = false;
                    leaving::keep_away(&self.config, &self.entry, world.now_ns());
                    world.wish(Wish::Drop(self.index));
                }
                Action::Announce => world.wish(Wish::Announce(self.index)),
                Action::Report(transition) => self.report(transition, world),
            }
        }
    }

    /// Connections are this node's from now on, and those that it does not know another's, if one had the addresses since
    /// it last had them itself.
    fn take_over(&self, world: &impl World) {
        if self.entry.last_advert_ns() > self.entry.takeover().at_ns {
            self.entry.set_takeover(world.now_ns());
        }
        self.entry.set_leaving_until(0);
    }

    /// The frame that the election waits for.
    fn next_frame(&self) -> Option<&[u8]> {
        Some(match self.sending? {
            Sending::Advert => &self.frames.advert,
            Sending::Release => &self.frames.release,
        })
    }

    /// That frame went out, or did not: what comes of it, up to the next one.
    fn sent(&mut self, before_send_ns: u64, sent: io::Result<()>, world: &impl World) {
        match sent {
            Ok(()) => {
                self.entry.count_advert_sent();
                if self.sends_failing > 0 {
                    tracing::info!(instance = %self.config.name, failed = self.sends_failing, "adverts go out again");
                    self.sends_failing = 0;
                }
                self.election.handle(world.now_ns(), Input::AdvertSent { before_send_ns });
            }
            Err(error) => {
                if self.sends_failing == 0 {
                    tracing::warn!(instance = %self.config.name, interface = %self.config.interface, %error, "an advert did not go out; the lease is not renewed");
                }
                self.sends_failing = self.sends_failing.saturating_add(1);
                self.election.handle(world.now_ns(), Input::AdvertFailed);
            }
        }
        self.pump_to_advert(world);
    }

    fn report(&mut self, transition: Transition, world: &impl World) {
        if transition.from != transition.to {
            let mut report = self.entry.report();
            report.state = transition.to;
            report.transitions += 1;
            report.since_unix_ms = world.unix_ms();
            self.entry.set_report(&report);
        }
        let silent_ns = transition.last_sign_ns.map(|sign_ns| world.now_ns().saturating_sub(sign_ns));
        self.untold.push((transition, silent_ns));
    }

    /// A line for each change of role: after all that must not wait for it, that of other routers included.
    fn tell_people(&mut self) {
        let instance = &self.config.name;
        for (transition, silent_ns) in self.untold.drain(..) {
            let (from, to, reason) = (transition.from, transition.to, transition.reason.to_string());
            match silent_ns
                .filter(|_| to == State::Active && !matches!(transition.reason, Reason::Preempting | Reason::Resumed))
            {
                Some(silent_ns) => tracing::info!(
                    %instance, ?from, ?to, reason, unanswered_ms_at_most = silent_ns as f64 / 1e6, "role"
                ),
                None => tracing::info!(%instance, ?from, ?to, reason, "role"),
            }
        }
    }
}

impl Frames {
    fn build(config: &VirtualRouter, mac: Mac, own_address: [u8; 4], checksum_form: ChecksumForm) -> Self {
        let addresses: Vec<[u8; 4]> = config.addresses.iter().map(|net| net.addr().octets()).collect();
        let build = |priority| {
            let mut buffer = [0; ADVERT_FRAME_LEN_MAX];
            let frame = AdvertFrame {
                source_mac: mac,
                source: own_address,
                version: wire_version(config.version),
                vrid: config.vrid,
                priority,
                interval_cs: config.advert_interval_cs,
                addresses: &addresses,
                password: config.password,
                checksum_form,
            };
            // `config` allows no more addresses than the buffer holds.
            let len = frame.emit(&mut buffer).unwrap_or_default();
            buffer[..len].to_vec()
        };
        Self { mac, own_address, checksum_form, advert: build(config.priority), release: build(PRIORITY_RELEASE) }
    }
}

fn wire_version(version: Version) -> u8 {
    match version {
        Version::V2 => 2,
        Version::V3 => 3,
    }
}

fn advert_of(heard: &Heard) -> HeardAdvert {
    HeardAdvert {
        received_at_ns: heard.last_advert_ns,
        source: heard.source,
        priority: heard.priority,
        interval_cs: heard.interval_cs,
    }
}

#[cfg(test)]
mod tests;
