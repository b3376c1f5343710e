//! The host's side of a role: addresses on interfaces, announcements, and news of both from
//! netlink. Runs on its own thread, because a netlink request waits for the kernel's RTNL lock and
//! an advert must not.
//!
//! Deliberately absent: decisions. The election says what is wanted, this makes it so and keeps it
//! so.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use failover_common::wire::arp;
use failover_common::wire::ethernet::Mac;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkFlags;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use crate::addresses::Addresses;
use crate::clock;
use crate::config::{Config, VirtualRouter};
use crate::dataplane::link::Sight;
use crate::dataplane::{self, DataPlane, Entries};
use crate::fence::Report;
use crate::flows::{self, leaving::Left};
use crate::interface::{Interface, InterfaceAddress};
use crate::interfaces;
use crate::packet::{FrameSender, Purpose};
use crate::plan::Plan;
use crate::refusals::Refusals;
use crate::router::Wish;
use crate::unfit::Unfit;

/// Between two attempts to attach the program again.
const MEND_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks whether VLAN tags are still left in frames.
const TAGS_PERIOD: Duration = Duration::from_secs(1);

/// Changes of links and addresses, as netlink tells them.
type Events =
    futures_channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>;

/// What happened to an interface of the plan. Unbounded channels carry these and [`Wish`]es: each is a change that the
/// election's own timers and limits pace.
#[derive(Debug)]
pub enum News {
    /// It changed.
    Interface {
        /// Index in [`Plan::interfaces`].
        interface: usize,
        /// As it is now; `None`: gone.
        state: Option<Interface>,
        /// For adverts, when the interface is a new one under the old name.
        sender: Option<FrameSender>,
    },
    /// The kernel program on it is missing, or there again.
    Fence {
        /// Index in [`Plan::interfaces`].
        interface: usize,
        /// Which of the two.
        is_there: bool,
    },
}

/// The thread's ties to the kernel and to the other threads.
pub type Lines = (Handle, UnboundedSender<News>, UnboundedReceiver<Report>, UnboundedSender<flows::Wish>);

/// The thread's state.
pub struct Host {
    config: Arc<Config>,
    netlink: Handle,
    addresses: Addresses,
    data_plane: DataPlane,
    entries: Entries,
    interfaces: Vec<Port>,
    services: Vec<Service>,
    /// Virtual routers whose first announcement has a second form to come.
    half_announced: VecDeque<usize>,
    refused: Refusals,
    news: UnboundedSender<News>,
    reports: UnboundedReceiver<Report>,
    flows: UnboundedSender<flows::Wish>,
    /// Virtual routers whose connections are being reset.
    leaving: FuturesUnordered<Pin<Box<dyn Future<Output = usize>>>>,
}

/// An interface of the plan.
struct Port {
    name: String,
    state: Option<Interface>,
    sender: Option<FrameSender>,
    /// The last index it had: map entries carry it.
    index: u32,
    /// When to try again to put the program back that was found missing.
    mend_at: Option<Instant>,
    /// What the last attempt said, so that it is told once.
    mend_error: Option<String>,
}

/// A virtual router's addresses.
struct Service {
    interface: usize,
    wanted: bool,
    /// Whether its connections are being reset before the addresses go.
    is_leaving: bool,
    /// Addresses that are the interface's own and stay.
    own: Vec<Ipv4Addr>,
    rounds_left: u8,
    next_round: Option<Instant>,
    /// Whether the last attempt to put the addresses there failed, so that it is told once.
    failing: bool,
}

impl Host {
    /// Takes over the loaded program and the interfaces of the plan. `held` says for each virtual
    /// router whether its addresses are to stay as an earlier controller put them.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn new(
        config: Arc<Config>,
        plan: &Plan,
        (data_plane, entries, own): (DataPlane, Entries, Vec<Vec<Ipv4Addr>>),
        held: &[bool],
        (netlink, news, reports, flows): Lines,
    ) -> Result<Self> {
        let interfaces = plan.interfaces.iter().map(Port::open).collect::<Result<_>>()?;
        let services = plan.routers.iter().zip(own).zip(held).map(|((place, own), held)| Service {
            interface: place.interface,
            wanted: *held,
            is_leaving: false,
            own,
            rounds_left: 0,
            next_round: None,
            failing: false,
        });
        let services = services.collect();
        let refused = Refusals::new(&config.data_plane.pin_path);
        Ok(Self {
            config,
            netlink,
            addresses: Addresses::open()?,
            data_plane,
            entries,
            interfaces,
            services,
            half_announced: VecDeque::new(),
            refused,
            news,
            reports,
            flows,
            leaving: FuturesUnordered::new(),
        })
    }

    /// Serves wishes until their sender is gone, then takes all addresses off, detaches and
    /// unpins.
    ///
    /// # Errors
    /// When something could not be taken back.
    pub async fn run(mut self, mut wishes: UnboundedReceiver<Wish>) -> Result<()> {
        let mut events = self.watch()?;
        self.refresh().await;
        let mut next_tags = Instant::now() + TAGS_PERIOD;
        loop {
            let next_round = self.services.iter().filter_map(|service| service.next_round).min();
            let next_mend = self.interfaces.iter().filter_map(|port| port.mend_at).min();
            tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(wish) => self.grant(wish),
                    None => break,
                },
                Some(report) = self.reports.recv() => self.hear_of_program(report).await,
                () = std::future::ready(()), if !self.half_announced.is_empty() => self.announce_second_form(),
                event = events.next() => match event {
                    Some((message, _)) => self.hear(&message, &mut events).await,
                    None => {
                        tracing::warn!("the netlink socket closed; opening another one");
                        events = self.watch()?;
                        self.refresh().await;
                    }
                },
                Some(router) = self.leaving.next() => self.left(router),
                () = sleep_until(next_round) => self.announce_due(),
                () = sleep_until(next_mend) => self.mend_programs_due(),
                () = sleep_until(Some(next_tags)) => {
                    self.data_plane.keep_tags_in_frames();
                    next_tags = Instant::now() + TAGS_PERIOD;
                }
                () = tokio::time::sleep_until(self.refused.next_look()) => {
                    self.refused.look();
                    self.mend_pins();
                    // Netlink drops messages that nobody fetched in time, and may not say so.
                    self.refresh().await;
                }
            }
        }
        self.stop().await
    }

    /// Subscribes to changes of links and addresses.
    fn watch(&self) -> Result<Events> {
        let (connection, _, events) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr])
                .context("opening a netlink socket for changes of interfaces")?;
        tokio::spawn(connection);
        Ok(events)
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Take(router) => {
                self.services[router].wanted = true;
                self.put(router);
                // One form will do for most neighbours; the other waits until all virtual routers that are to be taken
                // now have got so far.
                self.announce_form(router, arp::REQUEST);
                self.half_announced.push_back(router);
            }
            Wish::Drop(router) => {
                self.let_go(router);
                if !self.leave(router) {
                    self.take_off(router);
                }
            }
            Wish::TakeOff(router) => {
                self.let_go(router);
                self.take_off(router);
            }
            Wish::Announce(router) => self.announce_once(router),
        }
    }

    /// Nothing is announced any more, or put back.
    fn let_go(&mut self, router: usize) {
        self.services[router].wanted = false;
        self.services[router].next_round = None;
        self.half_announced.retain(|half| *half != router);
    }

    /// Has this node's connections on the addresses reset, which has to come from the addresses: they stay until that is
    /// done. Not without a carrier: no reset would get out, and the peers, who then tell the clients, must not hear
    /// that the connections are closed. `false` when there is nothing to wait for.
    fn leave(&mut self, router: usize) -> bool {
        let state = &self.interfaces[self.services[router].interface].state;
        if state.as_ref().is_some_and(|state| !state.is_up) {
            return false;
        }
        let (done, is_done) = oneshot::channel();
        let wish = flows::Wish::Leave { left: Left { router, done }, is_gone: state.is_none() };
        let is_asked = self.flows.send(wish).is_ok();
        if is_asked {
            self.services[router].is_leaving = true;
            self.leaving.push(Box::pin(async move {
                // Done, or nobody is there who would do it.
                let _ = is_done.await;
                router
            }));
        }
        is_asked
    }

    /// The connections are reset: the addresses may go, unless they are wanted again.
    fn left(&mut self, router: usize) {
        self.services[router].is_leaving = false;
        if !self.services[router].wanted {
            self.take_off(router);
        }
    }

    /// One netlink message. Carrier loss is told before anything is asked; all else is looked up
    /// anew, once for as many messages as there are.
    async fn hear(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>, events: &mut Events) {
        self.hear_carrier_loss(message);
        let mut is_news = !self.is_known(message);
        while let Ok((message, _)) = events.try_recv() {
            self.hear_carrier_loss(&message);
            is_news |= !self.is_known(&message);
        }
        if is_news {
            self.refresh().await;
        }
    }

    /// Whether it only tells of a virtual address what this thread has done itself: a takeover of many would otherwise
    /// be looked up in its midst.
    fn is_known(&self, message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        let (address, is_there) = match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => (address, true),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => (address, false),
            _ => return false,
        };
        let Some(net) = interfaces::ipv4_of(address) else { return false };
        let ports = self.interfaces.iter().enumerate();
        let mut states = ports.filter_map(|(port, there)| Some((port, there.state.as_ref()?)));
        let Some((port, state)) = states.find(|(_, state)| state.index == address.header.index) else { return false };
        let mut routers = self.services.iter().zip(&self.config.virtual_routers);
        let is_virtual = routers.any(|(service, router)| {
            service.interface == port && router.addresses.contains(&net) && !service.own.contains(&net.addr())
        });
        is_virtual && is_there == state.addresses.iter().any(|there| there.net == net)
    }

    fn hear_carrier_loss(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = &message.payload else { return };
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        if link.header.flags.contains(up) {
            return;
        }
        for (interface, port) in self.interfaces.iter_mut().enumerate() {
            let Some(state) = &mut port.state else { continue };
            if state.index == link.header.index && state.is_up {
                state.is_up = false;
                let _ = self.news.send(News::Interface { interface, state: Some(state.clone()), sender: None });
            }
        }
    }

    /// Looks at all interfaces, tells what changed, and mends addresses.
    async fn refresh(&mut self) {
        let known = match interfaces::list(&self.netlink).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "asking the kernel about the interfaces failed");
                return;
            }
        };
        for index in 0..self.interfaces.len() {
            self.refresh_port(index, &known);
        }
        for router in 0..self.services.len() {
            self.mend(router);
        }
    }

    fn refresh_port(&mut self, interface: usize, known: &BTreeMap<String, Interface>) {
        let port = &mut self.interfaces[interface];
        // By index first: one that was renamed is still the one that the program is attached to.
        let now = known.values().find(|now| now.index == port.index).or_else(|| known.get(&port.name)).cloned();
        let is_new = now.as_ref().is_some_and(|now| now.index != port.index || port.state.is_none());
        let mut sender = None;
        if let Some(now) = now.as_ref().filter(|_| is_new) {
            match self.adopt_port(interface, now) {
                Ok(for_adverts) => sender = Some(for_adverts),
                Err(error) => {
                    tracing::error!(interface = %now.name, error = format!("{error:#}"), "the interface came back, but cannot be used");
                    return;
                }
            }
        }
        let port = &mut self.interfaces[interface];
        // The program's id is ours to change, and no news.
        let comparable =
            |state: &Option<Interface>| state.clone().map(|state| Interface { xdp_program: None, ..state });
        if sender.is_none() && comparable(&port.state) == comparable(&now) {
            return;
        }
        if now.is_none() && port.state.is_some() {
            tracing::warn!(interface = %port.name, "the interface is gone");
            port.sender = None;
            let _ = self.data_plane.forget_interface(port.index);
        }
        let is_told = |unfit: &Unfit| port.state.as_ref().is_some_and(|before| before.unfit.as_ref() == Some(unfit));
        if let Some(unfit) = now.as_ref().and_then(|now| now.unfit.as_ref()).filter(|unfit| !is_told(unfit)) {
            tracing::warn!(interface = %port.name, "no virtual address is safe here any more: the interface {unfit}");
        }
        port.state.clone_from(&now);
        let _ = self.news.send(News::Interface { interface, state: now, sender });
    }

    /// An interface was made anew under the name: program, map entries and sockets move to it.
    fn adopt_port(&mut self, interface: usize, now: &Interface) -> Result<FrameSender> {
        let from = self.interfaces[interface].index;
        if from != now.index {
            let _ = self.data_plane.forget_interface(from);
        }
        for (router, service) in self.services.iter().enumerate() {
            if service.interface == interface {
                let virtual_router = &self.config.virtual_routers[router];
                let own = dataplane::own_addresses(virtual_router, now);
                self.data_plane.move_router(router as u32, virtual_router, from, now.index, &own)?;
            }
        }
        // Once the maps know the interface: until then the program passes what it should take.
        self.data_plane.attach(interface, now)?;
        let port = Port::open(now)?;
        self.interfaces[interface] = Port { state: None, ..port };
        tracing::info!(interface = %now.name, "the interface is back");
        Ok(FrameSender::open(now.index, Purpose::Adverts)?)
    }

    /// What the watching thread saw.
    async fn hear_of_program(&mut self, report: Report) {
        match report {
            Report::PinnedAgain(interface) => {
                let program = self.data_plane.program(interface);
                tracing::warn!(
                    interface = %self.interfaces[interface].name,
                    "somebody unpinned the {program}'s link: pinned it again"
                );
                self.mend_pins();
            }
            Report::Sight(interface, Sight::Attached) => {
                let program = self.data_plane.program(interface);
                let port = &mut self.interfaces[interface];
                (port.mend_at, port.mend_error) = (None, None);
                tracing::info!(interface = %port.name, "the {program} is in its place again");
            }
            Report::Sight(interface, sight) => {
                if matches!(sight, Sight::Detached) && interfaces::name_of(self.interfaces[interface].index).is_none() {
                    // It went with its interface, which is told of there.
                    self.refresh().await;
                    return;
                }
                tell_missing(&self.interfaces[interface].name, self.data_plane.program(interface), sight);
                match sight {
                    Sight::Detached | Sight::Replaced { .. } => self.mend_program(interface),
                    Sight::Idle => self.try_generic(interface),
                    Sight::Attached | Sight::Unpinned | Sight::Covered => {}
                }
            }
        }
    }

    fn mend_programs_due(&mut self) {
        let now = Instant::now();
        for interface in 0..self.interfaces.len() {
            if self.interfaces[interface].mend_at.is_some_and(|at| at <= now) {
                self.mend_program(interface);
            }
        }
    }

    /// Puts the program back. Whether it is there says the watching thread.
    fn mend_program(&mut self, interface: usize) {
        let port = &mut self.interfaces[interface];
        let Some(name) = interfaces::name_of(port.index) else {
            port.mend_at = None;
            return;
        };
        match self.data_plane.attach_again(interface, port.index, &name) {
            Ok(()) => (port.mend_at, port.mend_error) = (None, None),
            Err(error) => {
                port.mend_at = Some(Instant::now() + MEND_PAUSE);
                let error = format!("{error:#}");
                if port.mend_error.as_ref() != Some(&error) {
                    let program = self.data_plane.program(interface);
                    tracing::error!(
                        interface = %name, error,
                        "the {program} could not be attached again: this node holds no address there until it is; \
                         trying again every second"
                    );
                    port.mend_error = Some(error);
                }
            }
        }
    }

    /// Where the driver does not run the program, the kernel may.
    fn try_generic(&mut self, interface: usize) {
        let port = &self.interfaces[interface];
        match self.data_plane.attach_generic(interface, port.index, &port.name) {
            Ok(true) => tracing::warn!(interface = %port.name, "using generic mode instead: slower"),
            Ok(false) => tracing::error!(
                interface = %port.name,
                "this node holds no address on the interface until failover is started again: see `bpftool net`, the driver's \
                 limits for XDP, and xdp_mode"
            ),
            Err(error) => tracing::error!(
                interface = %port.name, error = format!("{error:#}"),
                "generic mode could not be used instead: this node holds no address on the interface"
            ),
        }
    }

    /// Who removed one pin may have removed others.
    fn mend_pins(&mut self) {
        match self.data_plane.pin_maps_again() {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "somebody unpinned maps: pinned them again"),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "maps could not be pinned again: neither `failover status` nor the next controller finds them"
            ),
        }
    }

    /// Puts back what somebody took off, and takes off what is not wanted.
    fn mend(&mut self, router: usize) {
        let service = &self.services[router];
        let virtual_router = &self.config.virtual_routers[router];
        let Some(state) = &self.interfaces[service.interface].state else { return };
        let is_there = |net: &ipnet::Ipv4Net| state.addresses.iter().any(|there| there.net.addr() == net.addr());
        let wanted = service.wanted && virtual_router.accept;
        let missing = virtual_router.addresses.iter().any(|net| !is_there(net));
        let spare = virtual_router.addresses.iter().any(|net| is_there(net) && !service.own.contains(&net.addr()));
        if wanted && missing {
            tracing::warn!(instance = %virtual_router.name, "an address was missing from the interface: put back");
            self.put(router);
        } else if !wanted && spare && !service.is_leaving {
            self.take_off(router);
        }
    }

    fn put(&mut self, router: usize) {
        let service = &self.services[router];
        let virtual_router = &self.config.virtual_routers[router];
        let Some(state) = self.interfaces[service.interface].state.as_ref().filter(|_| virtual_router.accept) else {
            return;
        };
        let nets = virtual_router.addresses.iter().filter(|net| !service.own.contains(&net.addr()));
        let nets: Vec<_> = nets.copied().collect();
        let error = self.addresses.put(state.index, &nets).err();
        if let Some(error) = &error
            && !service.failing
        {
            tracing::error!(
                instance = %virtual_router.name,
                error = format!("{error:#}"),
                "the addresses are answered for, but could not be put on the interface: traffic to them is lost"
            );
        }
        self.services[router].failing = error.is_some();
        if error.is_none()
            && let Some(state) = &mut self.interfaces[self.services[router].interface].state
        {
            note(state, virtual_router);
        }
    }

    fn take_off(&mut self, router: usize) {
        let service = &self.services[router];
        let virtual_router = &self.config.virtual_routers[router];
        let Some(state) = &self.interfaces[service.interface].state else { return };
        let there = state.addresses.iter().map(|there| there.net);
        let ours = there.filter(|there| {
            let address = there.addr();
            virtual_router.addresses.iter().any(|net| net.addr() == address) && !service.own.contains(&address)
        });
        let ours: Vec<_> = ours.collect();
        if let Err(error) = self.addresses.take_off(state.index, &ours) {
            tracing::error!(instance = %virtual_router.name, error = format!("{error:#}"), "an address stayed on the interface; it is fenced");
        } else if let Some(state) = &mut self.interfaces[self.services[router].interface].state {
            state.addresses.retain(|there| !ours.contains(&there.net));
        }
    }

    fn announce_due(&mut self) {
        let now = Instant::now();
        for router in 0..self.services.len() {
            if self.services[router].next_round.is_some_and(|at| at <= now) {
                self.announce(router);
            }
        }
    }

    /// The rest of the first round of whoever took over.
    fn announce_second_form(&mut self) {
        while let Some(router) = self.half_announced.pop_front() {
            self.announce_form(router, arp::REPLY);
            self.services[router].rounds_left = self.config.virtual_routers[router].announce.count;
            self.date_next_round(router);
            // After the announcements: the answers are to come here.
            let _ = self.flows.send(flows::Wish::TookOver(router));
        }
    }

    /// One round, and the date of the next.
    fn announce(&mut self, router: usize) {
        self.announce_once(router);
        self.date_next_round(router);
    }

    fn date_next_round(&mut self, router: usize) {
        let announce = self.config.virtual_routers[router].announce;
        let service = &mut self.services[router];
        service.rounds_left = service.rounds_left.saturating_sub(1);
        let pause = if service.rounds_left > 0 { announce.interval } else { announce.refresh };
        let goes_on = service.wanted && (service.rounds_left > 0 || !announce.refresh.is_zero());
        service.next_round = goes_on.then(|| Instant::now() + pause);
    }

    /// Both forms of gratuitous ARP for each address: some neighbours learn from one, some from the
    /// other.
    fn announce_once(&self, router: usize) {
        self.announce_form(router, arp::REQUEST);
        self.announce_form(router, arp::REPLY);
    }

    fn announce_form(&self, router: usize, operation: u16) {
        let service = &self.services[router];
        let port = &self.interfaces[service.interface];
        let (Some(state), Some(sender), true) = (&port.state, &port.sender, service.wanted) else { return };
        // A stalled election leaves this thread running: what the kernel does not answer for is not
        // announced either.
        if !self.entries.entry(router as u32).is_some_and(|entry| entry.is_live(clock::now_ns())) {
            return;
        }
        let virtual_router = &self.config.virtual_routers[router];
        let announce = |net: &ipnet::Ipv4Net| arp::announcement(operation, Mac(state.mac.0), net.addr().octets());
        let frames: Vec<_> = virtual_router.addresses.iter().map(announce).collect();
        let frames: Vec<&[u8]> = frames.iter().map(AsRef::as_ref).collect();
        if let Err((count, error)) = sender.send_patiently(&frames) {
            tracing::warn!(instance = %virtual_router.name, count, %error, "announcements did not go out");
        }
    }

    /// Everything back as it was. The election has released before. While an address is left, so
    /// is the program: it fences the address.
    async fn stop(mut self) -> Result<()> {
        self.services.iter_mut().for_each(|service| service.wanted = false);
        let known = interfaces::list(&self.netlink).await?;
        let mut taken_off = Ok(());
        for router in 0..self.services.len() {
            // One that fails keeps no other from going.
            taken_off = taken_off.and(self.take_back(router, &known));
        }
        taken_off?;
        self.data_plane.unload()
    }

    /// Whatever of a virtual router's addresses is still on its interface.
    fn take_back(&mut self, router: usize, known: &BTreeMap<String, Interface>) -> Result<()> {
        let (service, virtual_router) = (&self.services[router], &self.config.virtual_routers[router]);
        let port = &self.interfaces[service.interface];
        let Some(state) = known.values().find(|state| state.index == port.index) else { return Ok(()) };
        if !service.own.is_empty() {
            tracing::warn!(
                instance = %virtual_router.name,
                "the addresses are this interface's own and stay: the kernel answers for them from now on, so stop this \
                 host or take them off"
            );
        }
        let there = state.addresses.iter().map(|there| there.net);
        let ours = there.filter(|there| {
            let address = there.addr();
            virtual_router.addresses.iter().any(|net| net.addr() == address) && !service.own.contains(&address)
        });
        self.addresses.take_off(state.index, &ours.collect::<Vec<_>>())
    }
}

impl Port {
    fn open(state: &Interface) -> Result<Self> {
        let sender = FrameSender::open(state.index, Purpose::Announcements);
        let sender = sender.with_context(|| format!("on interface {}", state.name))?;
        Ok(Self {
            name: state.name.clone(),
            state: Some(state.clone()),
            sender: Some(sender),
            index: state.index,
            mend_at: None,
            mend_error: None,
        })
    }
}

/// One line, whatever follows.
fn tell_missing(interface: &str, program: &str, sight: Sight) {
    match sight {
        Sight::Attached => {}
        Sight::Detached => {
            tracing::warn!(interface, "somebody detached the {program} from the interface: attaching it again");
        }
        Sight::Replaced { program_id } => tracing::warn!(
            interface,
            program_id,
            "somebody put another program in the place of ours: putting ours back"
        ),
        Sight::Idle => tracing::error!(
            interface,
            "the {program} is attached, and frames get past it that it always takes: it does not run there"
        ),
        Sight::Unpinned => tracing::error!(
            interface,
            "somebody unpinned the {program}'s link, and it cannot be pinned again: with this controller its fence \
             would go, so this node holds no address there; trying again"
        ),
        Sight::Covered => tracing::error!(
            interface,
            "something is mounted over the {program}'s pin: nobody would find it there, so this node holds no address \
             on the interface until that is unmounted"
        ),
    }
}

/// Remembers addresses that were just put on an interface, until netlink tells of them.
fn note(state: &mut Interface, virtual_router: &VirtualRouter) {
    for net in &virtual_router.addresses {
        if !state.addresses.iter().any(|there| there.net.addr() == net.addr()) {
            state.addresses.push(InterfaceAddress { net: *net, is_secondary: true });
        }
    }
}

/// Waits for a date; for ever without one.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
