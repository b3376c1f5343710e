//! One of our nodes: its kernel, its controller while there is one, and the world as that controller sees it.
//!
//! A controller may be stalled at any look at its clock and before any frame leaves: time then passes for everybody
//! else, inside the call. Deliberately absent: what it decides.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::slice;
use std::time::Duration;

use failover_common::abi::State;
use failover_common::lease::NS_PER_CS;
use failover_common::wire::ethernet::Mac;
use failover_ebpf::{Verdict, handle};
use failover_userspace::config::{self, Config, Version};
use failover_userspace::dataplane::settings;
use failover_userspace::interface::{Interface, InterfaceAddress};
use failover_userspace::router::{self, Router, Wish, World};

use crate::clock::Clock;
use crate::fixtures::{CLIENT, CLIENT_MAC};
use crate::host_frame::HostFrame;
use crate::host_kernel::{HostKernel, LOOPBACK, Options};
use crate::scenario::NodePlan;
use crate::trace::Note;
use crate::world::Simulation;

/// The virtual address of every simulation.
const VIP: [u8; 4] = [192, 0, 2, 200];
/// A record of the ring: its header and an event (see `host_kernel`).
const RECORD: u32 = 8 + size_of::<failover_common::abi::Event>() as u32;

/// A controller that is to be stalled in the middle of something.
#[derive(Clone, Copy)]
pub struct Ambush {
    /// After so many more calls.
    pub calls: u8,
    /// For so long.
    pub for_ns: u64,
    /// Its kernel with it.
    pub whole: bool,
}

/// See the module.
pub struct Node {
    config: RefCell<Config>,
    clock: Clock,
    interface: Interface,
    kernel: RefCell<HostKernel>,
    options: Options,
    /// Whether the kernel program is there.
    pub is_loaded: Cell<bool>,
    /// Whether it is on the interface, when it is there.
    pub is_attached: Cell<bool>,
    /// Whether it was when it was last looked at.
    pub is_seen: Cell<bool>,
    /// Whether the controller was told so.
    pub sight_told: Cell<bool>,
    /// Whether an advert got past it.
    pub is_deaf: Cell<bool>,
    /// Whether the virtual address is on the interface: without a program the kernel answers for it.
    has_address: Cell<bool>,
    /// Borrowed while it runs; `None` while there is no process.
    controller: RefCell<Option<Router>>,
    /// When the controller next runs, true time.
    pub wakes_at_ns: Cell<u64>,
    /// The controller does nothing before.
    pub stalled_until_ns: Cell<u64>,
    /// The kernel does nothing before, either.
    pub frozen_until_ns: Cell<u64>,
    /// The next stall.
    pub ambush: Cell<Option<Ambush>>,
    /// Carrier.
    pub has_link: Cell<bool>,
    /// Faults that keep it from sending.
    pub sends_failing: Cell<u32>,
    /// What the controller was last told of the carrier.
    pub link_told: Cell<bool>,
    /// The state that was last seen.
    pub state: Cell<State>,
}

/// The primary address of the router at a place.
pub fn address_of(place: usize) -> [u8; 4] {
    [192, 0, 2, 1 + place as u8]
}

impl Node {
    /// A node that has not been started.
    pub fn new(place: usize, plan: &NodePlan, version: u8, ring_events: u32) -> Self {
        let options = Options { routers: 1, ring_bytes: ring_events * RECORD + 1, ..Options::default() };
        let net = |address: [u8; 4]| ipnet::Ipv4Net::new_assert(address.into(), 24);
        Self {
            config: RefCell::new(configure(plan, version)),
            clock: Clock { start_ns: plan.clock_start_ns, drift_ppm: plan.drift_ppm },
            interface: Interface {
                name: "lo".into(),
                index: LOOPBACK,
                mac: Mac([2, 0, 0, 0, 0, 1 + place as u8]),
                is_up: true,
                is_veth: false,
                unfit: None,
                xdp_program: None,
                addresses: vec![InterfaceAddress { net: net(address_of(place)), is_secondary: false }],
            },
            kernel: RefCell::new(HostKernel::new(options).expect("memory for one entry")),
            options,
            is_loaded: Cell::new(false),
            is_attached: Cell::new(true),
            is_seen: Cell::new(true),
            sight_told: Cell::new(true),
            is_deaf: Cell::new(false),
            has_address: Cell::new(false),
            controller: RefCell::new(None),
            wakes_at_ns: Cell::new(u64::MAX),
            stalled_until_ns: Cell::new(0),
            frozen_until_ns: Cell::new(0),
            ambush: Cell::new(None),
            has_link: Cell::new(true),
            sends_failing: Cell::new(0),
            link_told: Cell::new(true),
            state: Cell::new(State::Initialize),
        }
    }

    /// Its advert interval.
    pub fn interval_ns(&self) -> u64 {
        u64::from(self.config.borrow().virtual_routers[0].advert_interval_cs) * NS_PER_CS
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether a controller is there; one in the middle of something is.
    pub fn is_running(&self) -> bool {
        self.controller.try_borrow().map_or(true, |controller| controller.is_some())
    }

    /// Whether the controller is in the middle of something.
    pub fn is_busy(&self) -> bool {
        self.controller.try_borrow_mut().is_err()
    }

    /// Whether a client's ARP request for the virtual address is answered.
    pub fn answers(&self, now_ns: u64) -> bool {
        if !self.is_loaded.get() || now_ns < self.frozen_until_ns.get() {
            return false;
        }
        if !self.is_attached.get() {
            return self.has_address.get();
        }
        let mut kernel = self.kernel.borrow_mut();
        kernel.now_ns = self.clock.local(now_ns);
        let mut request = HostFrame(arp_request());
        handle(&mut request, &*kernel) == Verdict::Transmit
    }

    /// The end of the lease as stored, on the node's clock.
    pub fn lease_until_ns(&self) -> u64 {
        self.kernel.borrow().entry(0).lease.until_ns
    }

    /// An advert comes in.
    pub fn receive(&self, now_ns: u64, frame: &[u8]) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.now_ns = self.clock.local(now_ns);
        handle(&mut HostFrame(frame.to_vec()), &*kernel);
    }

    /// When the controller has something to do, true time; `None`: nothing.
    pub fn due_ns(&self, now_ns: u64) -> Option<u64> {
        let controller = self.controller.borrow();
        let deadline = controller.as_ref()?.next_deadline().map(|at_ns| self.clock.reaches(at_ns));
        if self.kernel.borrow().has_events() { Some(now_ns) } else { deadline }
    }

    /// Gives it another priority, and forgets the kernel's state.
    pub fn reconfigure(&self, priority: u8) {
        self.config.borrow_mut().virtual_routers[0].priority = priority;
        self.is_loaded.set(false);
    }

    fn load(&self) {
        let config = self.config.borrow();
        let mut kernel = HostKernel::new(self.options).expect("memory for one entry");
        let own_address = self.interface.addresses[0].net.addr();
        kernel.configure(0, &settings(&config.virtual_routers[0], &self.interface, own_address), &[VIP]);
        *self.kernel.borrow_mut() = kernel;
        self.is_loaded.set(true);
    }

    /// The state that its map entry tells.
    pub fn reported(&self) -> State {
        self.kernel.borrow().entry(0).report.state
    }
}

impl Simulation<'_> {
    /// A controller starts; it adopts what a killed one left.
    pub fn launch(&self, place: usize) {
        let node = self.ours(place);
        let Ok(mut controller) = node.controller.try_borrow_mut() else { return };
        if controller.is_some() {
            return;
        }
        let adopted = node.is_loaded.get();
        if !adopted {
            node.load();
        }
        // A start attaches the program, whatever became of an earlier one.
        node.is_attached.set(true);
        node.is_seen.set(true);
        node.sight_told.set(true);
        node.is_deaf.set(false);
        let world = Hands { simulation: self, place };
        let own_address = node.interface.addresses[0].net.addr().octets();
        let entry = node.kernel.borrow().entries().entry(0).expect("the entry of the one virtual router");
        let config = node.config.borrow().virtual_routers[0].clone();
        let mut router = Router::new(&config, (0, 1), 0, own_address, node.interface.mac, entry);
        node.link_told.set(node.has_link.get());
        let resumed = if adopted { router.live_lease(world.now_ns()) } else { None };
        if resumed.is_none() {
            // The host takes off what an earlier controller left.
            node.has_address.set(false);
        }
        self.judge().starts(place, node.clock.local(self.now_ns()), resumed.is_some());
        self.note(Note::Started { node: place, resumed: resumed.is_some() });
        node.state.set(State::Initialize);
        self.run_controller(place, || router.start(node.link_told.get(), resumed, &world));
        *controller = Some(router);
        drop(controller);
        self.plan_wake(place);
    }

    /// The controller is gone, from one moment to the next.
    pub fn kill(&self, place: usize) {
        let node = self.ours(place);
        node.controller.replace(None);
        node.wakes_at_ns.set(u64::MAX);
    }

    /// The controller stops as one should; its kernel program goes with it.
    pub fn stop(&self, place: usize) {
        let node = self.ours(place);
        let mut controller = node.controller.borrow_mut();
        if let Some(router) = controller.as_mut() {
            let world = Hands { simulation: self, place };
            self.run_controller(place, || router.shut_down(&world));
        }
        *controller = None;
        node.wakes_at_ns.set(u64::MAX);
        node.is_loaded.set(false);
    }

    /// The controller has something to do.
    pub fn wake(&self, place: usize) {
        let node = self.ours(place);
        let mut controller = node.controller.borrow_mut();
        if let Some(router) = controller.as_mut() {
            let events = std::iter::from_fn(|| node.kernel.borrow().next_event());
            let world = |_| Hands { simulation: self, place };
            self.run_controller(place, || router::wake(slice::from_mut(router), events, world));
        }
        drop(controller);
        self.plan_wake(place);
    }

    /// The controller is told how its link is by now.
    pub fn tell_link(&self, place: usize) {
        let node = self.ours(place);
        let has_link = node.has_link.get();
        let mut controller = node.controller.borrow_mut();
        if let Some(router) = controller.as_mut()
            && node.link_told.replace(has_link) != has_link
        {
            if has_link {
                self.judge().starts(place, node.clock.local(self.now_ns()), false);
            }
            let interface = Interface { is_up: has_link, ..node.interface.clone() };
            let world = Hands { simulation: self, place };
            let config = node.config.borrow();
            self.run_controller(place, || router.interface_changed(Some(&interface), &config, &world));
        }
        drop(controller);
        self.plan_wake(place);
    }

    /// The controller is told whether its program is in its place.
    pub fn tell_program(&self, place: usize) {
        let node = self.ours(place);
        let is_there = node.is_seen.get();
        let mut controller = node.controller.borrow_mut();
        if let Some(router) = controller.as_mut()
            && node.sight_told.replace(is_there) != is_there
        {
            if is_there && node.reported() != State::Active {
                // What it did not hear is not silence.
                self.judge().starts(place, node.clock.local(self.now_ns()), false);
            }
            let world = Hands { simulation: self, place };
            self.run_controller(place, || router.fence_changed(is_there, &world));
        }
        drop(controller);
        self.plan_wake(place);
    }

    /// Runs it with the judge watching.
    fn run_controller(&self, place: usize, run: impl FnOnce()) {
        let node = self.ours(place);
        let before = node.state.get();
        let held = node.lease_until_ns() > 0;
        self.judge().controller_begins(place, before, held);
        run();
        let after = node.reported();
        if node.state.replace(after) != after {
            self.note(Note::Role { node: place, state: after });
        }
        let local_ns = node.clock.local(self.now_ns());
        let verdict = self.judge().controller_ends(place, local_ns, after);
        self.expect(verdict);
    }

    /// The ambush, if this is the call it waits for.
    fn pass(&self, place: usize) {
        let node = self.ours(place);
        let Some(ambush) = node.ambush.get() else { return };
        if ambush.calls > 1 {
            node.ambush.set(Some(Ambush { calls: ambush.calls - 1, ..ambush }));
            return;
        }
        node.ambush.set(None);
        let until_ns = self.now_ns() + ambush.for_ns;
        self.stall(place, until_ns, ambush.whole);
        self.advance(until_ns);
    }

    /// The controller, or the whole machine, does nothing until then.
    pub fn stall(&self, place: usize, until_ns: u64, whole: bool) {
        let node = self.ours(place);
        node.stalled_until_ns.set(until_ns.max(node.stalled_until_ns.get()));
        if whole {
            node.frozen_until_ns.set(until_ns.max(node.frozen_until_ns.get()));
        }
        self.note(Note::Stalled { node: place, until_ns });
        self.judge().disturbed(until_ns);
    }
}

/// What one node's controller can do.
struct Hands<'a> {
    simulation: &'a Simulation<'a>,
    place: usize,
}

impl World for Hands<'_> {
    fn now_ns(&self) -> u64 {
        self.simulation.pass(self.place);
        self.simulation.ours(self.place).clock.local(self.simulation.now_ns())
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.simulation.pass(self.place);
        let node = self.simulation.ours(self.place);
        if node.sends_failing.get() > 0 || !node.has_link.get() {
            self.simulation.lose_all(self.place);
            return Err(io::ErrorKind::NetworkDown.into());
        }
        self.simulation.transmit(self.place, frame);
        Ok(())
    }

    // The host's work. Where the program is, an address without a lease is fenced; where it is not, the kernel answers.
    fn wish(&self, wish: Wish) {
        let node = self.simulation.ours(self.place);
        match wish {
            Wish::Take(_) => node.has_address.set(true),
            Wish::Drop(_) | Wish::TakeOff(_) => node.has_address.set(false),
            Wish::Announce(_) => {}
        }
    }

    fn is_fenced(&self) -> bool {
        self.simulation.ours(self.place).is_seen.get()
    }

    fn hears(&self) -> bool {
        !self.simulation.ours(self.place).is_deaf.get()
    }
}

fn configure(plan: &NodePlan, version: u8) -> Config {
    const TEXT: &str = "[[virtual_router]]\nname = \"sim\"\ninterface = \"lo\"\nvrid = 51\npriority = 100\n\
                        addresses = [\"192.0.2.200/24\"]\n";
    let mut config =
        config::parse(Path::new("sim.toml"), TEXT, "sim").expect("the simulation's configuration is right");
    let router = &mut config.virtual_routers[0];
    router.priority = plan.priority;
    router.version = if version == 2 { Version::V2 } else { Version::V3 };
    router.advert_interval_cs = plan.interval_cs;
    router.preempt = plan.preempt;
    router.preempt_delay = Duration::from_millis(plan.preempt_delay_ms);
    config
}

/// A client asks for the virtual address (RFC 826).
fn arp_request() -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(CLIENT_MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(CLIENT_MAC);
    frame.extend(CLIENT);
    frame.extend([0; 6]);
    frame.extend(VIP);
    frame
}
