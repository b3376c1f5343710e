//! The controller: four threads around the elections. The election thread reads the ring, waits for
//! deadlines and sends adverts; the host thread (`host`) does what may have to wait; the watch thread
//! (`fence`) looks whether the kernel program is in its place. These three can be real-time. The flows
//! thread (`flows`) deals with TCP connections; logging and signals stay on the main thread's runtime.
//!
//! Deliberately absent: protocol. A wake-up ends in calls to `router`, nothing here knows a state.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use aya::maps::{MapData, RingBuf};
use failover_common::abi::{EVENTS_BYTES, Event};
use failover_common::wire::vrrp::PRIORITY_OWNER;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use zerocopy::TryFromBytes;

use crate::addresses::Addresses;
use crate::clock::{self, Timer};
use crate::config::{self, Config, Problem};
use crate::dataplane::link::Sight;
use crate::dataplane::{self, DataPlane, Entries, Entry, Found, Started, pins};
use crate::fence::{Fences, Report};
use crate::flows::{self, Flows, leaving};
use crate::host::{Host, News};
use crate::interfaces;
use crate::packet::{FrameSender, Purpose};
use crate::plan::Plan;
use crate::readable::readable;
use crate::realtime;
use crate::replication::{Key, Replication, Settings};
use crate::router::{self, Router, Wish, World};
use crate::startup;

/// Runs until SIGTERM or SIGINT, or until one of its threads ends, then releases everything.
///
/// # Errors
/// When it cannot start (see the message), a thread failed, or not everything could be taken back.
pub fn run(file: &Path, config: Config) -> Result<()> {
    let runtime = runtime()?;
    // Before anything is loaded: a signal from now on ends in a release.
    let (mut terminate, mut interrupt) = {
        let _runtime = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    startup::clock::check()?;
    realtime::try_out(config.node.realtime_priority)?;
    let config = Arc::new(config);
    let replication = bind_replication(file, &config)?;
    let (plan, started) = runtime.block_on(prepare(file, &config))?;
    let (adopted, pin_path) = (started.adopted, config.data_plane.pin_path.clone());
    let fences = started.fences.clone();
    let threads = Threads::start(&config, plan, started, replication);
    if threads.is_err() && !adopted {
        // Else the watching thread would pin them again.
        fences.close();
        dataplane::put_offloads_back(&pin_path);
        let _ = pins::remove_all(&pin_path);
    }
    let mut threads = threads?;
    let reason = runtime.block_on(async {
        let mut has_flows = true;
        loop {
            tokio::select! {
                _ = terminate.recv() => break "SIGTERM",
                _ = interrupt.recv() => break "SIGINT",
                _ = &mut threads.election_ended => break "the election thread ended",
                _ = &mut threads.host_ended => break "the host thread ended",
                // No reason to let an address go.
                _ = &mut threads.flows_ended, if has_flows => {
                    has_flows = false;
                    tracing::error!("the flows thread ended: connections are not remembered, replicated or told of a takeover");
                }
            }
        }
    });
    tracing::info!(reason, "releasing");
    threads.stop()
}

/// Binds the replication's address before anything is loaded: one that is in use stops the start.
fn bind_replication(file: &Path, config: &Config) -> Result<Option<Replication>> {
    let Some(replication) = &config.replication else { return Ok(None) };
    let key = config::replication::read_key(&replication.key_file).map_err(|message| {
        let problem = Problem { file: file.to_path_buf(), line: replication.key_file_line, message };
        anyhow::Error::new(Problems(vec![problem]))
    })?;
    let settings = Settings { listen: replication.listen, peers: replication.peers.clone(), key: Key::new(&key)? };
    Replication::bind(settings).map(Some)
}

async fn prepare(file: &Path, config: &Config) -> Result<(Plan, Started)> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
    tokio::spawn(connection);
    let known = interfaces::list(&netlink).await?;
    let plan = Plan::new(file, config, &known).map_err(Problems)?;
    let found = Found::look(config, &plan, &known)?;
    for (ifindex, address) in found.leftovers(config, &plan) {
        let interface = known.values().find(|interface| interface.index == ifindex);
        let there = interface.and_then(|state| state.addresses.iter().find(|there| there.net.addr() == address));
        if let Some(there) = there {
            Addresses::open()?.take_off(ifindex, &[there.net])?;
        }
    }
    let started = DataPlane::start(config, &plan, found)?;
    for (router, own) in config.virtual_routers.iter().zip(&started.own) {
        warn_of_false_owner(router, own);
    }
    Ok((plan, started))
}

/// RFC 9568 5.2.4: 255 is the owner's, all others use 1 to 254.
fn warn_of_false_owner(router: &config::VirtualRouter, own: &[Ipv4Addr]) {
    let missing = router.addresses.iter().map(ipnet::Ipv4Net::addr).find(|address| !own.contains(address));
    if let Some(address) = missing.filter(|_| router.priority == PRIORITY_OWNER) {
        tracing::warn!(
            instance = %router.name, %address,
            "priority 255 says that the addresses are the interface's own, and this one is not: a router that only backs \
             them up has 1 to 254"
        );
    }
}

/// The threads. Each but the watching one holds the sending half of a channel that says when it has ended.
struct Threads {
    /// With it go the virtual routers whose connections are reset by then, by their indexes.
    quit: oneshot::Sender<Vec<usize>>,
    election: thread::JoinHandle<Result<()>>,
    election_ended: oneshot::Receiver<()>,
    host: thread::JoinHandle<Result<()>>,
    host_ended: oneshot::Receiver<()>,
    flows: thread::JoinHandle<Result<()>>,
    flows_ended: oneshot::Receiver<()>,
    fences: Arc<Fences>,
    watch: thread::JoinHandle<()>,
    flow_wishes: UnboundedSender<flows::Wish>,
    /// Keeps the host's thread there after the election's is gone.
    wishes: UnboundedSender<Wish>,
    config: Arc<Config>,
    entries: Entries,
}

impl Threads {
    fn start(config: &Arc<Config>, plan: Plan, started: Started, replication: Option<Replication>) -> Result<Self> {
        let (wishes, wishes_in) = unbounded_channel();
        let (news, news_in) = unbounded_channel();
        let wishes_kept = wishes.clone();
        let mut elections = Elections::new(config, &plan, &started, wishes, news_in)?;
        let held = elections.start(started.adopted);
        let Started { data_plane, fences, entries, events, flow_events, own, .. } = started;
        let (reports, reports_in) = unbounded_channel();
        let watch = fences.watch(config.node.realtime_priority, tell_of_fences(news.clone(), reports))?;
        let (flow_wishes, flow_wishes_in) = unbounded_channel();
        let (flows_config, flows_entries, own_wishes) = (config.clone(), entries.clone(), flow_wishes.downgrade());
        let (flows, flows_ended) = spawn("flows", None, async move || {
            Flows::new(flows_config, flows_entries, flow_events, own_wishes)?.run(replication, flow_wishes_in).await
        })?;
        let (host_config, host_entries, host_flows) = (config.clone(), entries.clone(), flow_wishes.clone());
        let realtime_priority = Some(config.node.realtime_priority);
        let (host, host_ended) = spawn("host", realtime_priority, async move || {
            let (connection, netlink, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
            tokio::spawn(connection);
            let outlets = (netlink, news, reports_in, host_flows);
            Host::new(host_config, &plan, (data_plane, host_entries, own), &held, outlets)?.run(wishes_in).await
        })?;
        let (quit, quitting) = oneshot::channel();
        let (election, election_ended) =
            spawn("election", realtime_priority, async move || elections.run(events, quitting).await)?;
        Ok(Self {
            quit,
            election,
            election_ended,
            host,
            host_ended,
            flows,
            flows_ended,
            fences,
            watch,
            flow_wishes,
            wishes: wishes_kept,
            config: config.clone(),
            entries,
        })
    }

    /// Clients are told while this node still has the addresses. Then the election releases and goes; the addresses go.
    /// When somebody else has them, the host has no more wishes to wait for, takes back what else it did, and goes; so do
    /// the flows.
    fn stop(self) -> Result<()> {
        let config = self.config.clone();
        let left = self.leave(&config);
        let released_ns = clock::now_ns();
        let _ = self.quit.send(left.iter().map(|(_, entry)| entry.index()).collect());
        let join = |thread: thread::JoinHandle<Result<()>>, name| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("the {name} thread panicked")))
        };
        let elected = join(self.election, "election");
        // Who was reset asks again at once, and asks this node until another one is there. To detach a program takes the
        // kernel's lock on all links for some 15 ms, and a successor may share it: a container does.
        leaving::wait_for_successors(&left, released_ns);
        let _ = self.flow_wishes.send(flows::Wish::Flush);
        // What is taken back from now on is not to be put back.
        self.fences.stop_watching();
        let _ = self.watch.join();
        drop(self.wishes);
        let hosted = join(self.host, "host");
        drop(self.flow_wishes);
        let flowed = join(self.flows, "flows");
        elected.and(hosted).and(flowed)
    }

    /// Resets this node's connections on the addresses that it is about to let go, and keeps new ones away meanwhile.
    /// Returns the virtual routers that were held.
    fn leave<'a>(&self, config: &'a Config) -> Vec<(&'a config::VirtualRouter, Entry)> {
        let now_ns = clock::now_ns();
        let held = (0_u32..).zip(&config.virtual_routers).filter_map(|(index, router)| {
            let entry = self.entries.entry(index).filter(|entry| entry.is_live(now_ns))?;
            leaving::keep_away(router, &entry, now_ns);
            Some((router, entry))
        });
        let held: Vec<_> = held.collect();
        leaving::reset_connections(&held, |_| true, &self.flow_wishes);
        let _ = self.flow_wishes.send(flows::Wish::Flush);
        held
    }
}

/// A thread with a runtime of its own; the receiver resolves when it ends, however it does. With a `realtime_priority`,
/// which may be 0, it is one that must not be late.
fn spawn<F: AsyncFnOnce() -> Result<()> + Send + 'static>(
    name: &str,
    realtime_priority: Option<u8>,
    run: F,
) -> Result<(thread::JoinHandle<Result<()>>, oneshot::Receiver<()>)> {
    let (ended, has_ended) = oneshot::channel();
    let run = move || {
        let _ended: oneshot::Sender<()> = ended;
        realtime_priority.map_or(Ok(()), realtime::enable)?;
        runtime()?.block_on(run())
    };
    let thread = thread::Builder::new().name(name.into()).spawn(run);
    Ok((thread.with_context(|| format!("starting the {name} thread"))?, has_ended))
}

/// Configuration problems as one error, a line each.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting a tokio runtime")
}

/// The election thread's state.
struct Elections {
    config: Arc<Config>,
    routers: Vec<Router>,
    usable: Vec<bool>,
    outlets: Outlets,
    news: UnboundedReceiver<News>,
}

/// Where the elections' effects go.
struct Outlets {
    /// By interface of the plan.
    senders: Vec<FrameSender>,
    fences: Arc<Fences>,
    /// What is to go to the host's thread: not while another router waits for its advert, because each wakes that thread.
    wished: RefCell<Vec<Wish>>,
    wishes: UnboundedSender<Wish>,
}

impl Outlets {
    fn of(&self, interface: usize) -> Machine<'_> {
        Machine { interface, sender: &self.senders[interface], fences: &self.fences, wished: &self.wished }
    }

    fn pass_on_wishes(&self) {
        for wish in self.wished.take() {
            // The host's thread only goes away when the process does.
            let _ = self.wishes.send(wish);
        }
    }
}

/// This machine, as the virtual routers of one interface see it.
struct Machine<'a> {
    interface: usize,
    fences: &'a Fences,
    sender: &'a FrameSender,
    wished: &'a RefCell<Vec<Wish>>,
}

impl World for Machine<'_> {
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.sender.send(frame)
    }

    fn send_all(&self, frames: &[&[u8]]) -> Vec<io::Result<()>> {
        self.sender.send_all(frames)
    }

    fn wish(&self, wish: Wish) {
        self.wished.borrow_mut().push(wish);
    }

    fn is_fenced(&self) -> bool {
        self.fences.is_fenced(self.interface, clock::now_ns())
    }

    fn hears(&self) -> bool {
        self.fences.hears(self.interface)
    }
}

/// Tells the elections at once, and the host thread to mend it.
fn tell_of_fences(news: UnboundedSender<News>, reports: UnboundedSender<Report>) -> impl Fn(Report) + Send + 'static {
    move |report| {
        // The receivers go when the process does.
        if let Report::Sight(interface, sight) = report {
            let _ = news.send(News::Fence { interface, is_there: sight == Sight::Attached });
        }
        let _ = reports.send(report);
    }
}

impl Elections {
    fn new(
        config: &Arc<Config>,
        plan: &Plan,
        started: &Started,
        wishes: UnboundedSender<Wish>,
        news: UnboundedReceiver<News>,
    ) -> Result<Self> {
        let senders = plan.interfaces.iter().map(|interface| {
            FrameSender::open(interface.index, Purpose::Adverts)
                .with_context(|| format!("on interface {}", interface.name))
        });
        let routers = plan.routers.iter().zip(&config.virtual_routers).enumerate().map(|(index, (place, config))| {
            let entry = started.entries.entry(index as u32).context("more virtual routers than entries")?;
            let mac = plan.interfaces[place.interface].mac;
            let of_all = (index, plan.routers.len());
            Ok(Router::new(config, of_all, place.interface, place.own_address.octets(), mac, entry))
        });
        Ok(Self {
            config: config.clone(),
            routers: routers.collect::<Result<_>>()?,
            usable: plan.interfaces.iter().map(|interface| interface.is_up).collect(),
            outlets: Outlets {
                senders: senders.collect::<Result<_>>()?,
                fences: started.fences.clone(),
                wished: RefCell::default(),
                wishes,
            },
            news,
        })
    }

    /// Starts every virtual router, and says which of them carry on with a lease.
    fn start(&mut self, adopted: bool) -> Vec<bool> {
        let Self { routers, usable, outlets, .. } = self;
        let start = |router: &mut Router| {
            let resumed = if adopted { router.live_lease(clock::now_ns()) } else { None };
            router.start(usable[router.interface], resumed, &outlets.of(router.interface));
            resumed.is_some() && usable[router.interface]
        };
        let held = routers.iter_mut().map(start).collect();
        outlets.pass_on_wishes();
        held
    }

    async fn run(mut self, events: RingBuf<MapData>, mut quitting: oneshot::Receiver<Vec<usize>>) -> Result<()> {
        let timer = Timer::new().context("making a timer")?;
        let mut events = readable(events).context("watching the ring of events")?;
        let have_left = loop {
            timer.arm(self.routers.iter().filter_map(Router::next_deadline).min()).context("arming the timer")?;
            tokio::select! {
                biased;
                have_left = &mut quitting => break have_left.unwrap_or_default(),
                Some(news) = self.news.recv() => self.hear(news),
                ready = events.readable_mut() => ready.context("watching the ring of events")?.clear_ready(),
                fired = timer.fired() => fired.context("waiting for the timer")?,
            }
            let Self { routers, outlets, .. } = &mut self;
            router::wake(routers, pending(events.get_mut()), |interface| outlets.of(interface));
            outlets.pass_on_wishes();
        };
        let Self { routers, outlets, .. } = &mut self;
        for router in routers {
            router.shut_down(&outlets.of(router.interface));
        }
        for wish in outlets.wished.borrow_mut().iter_mut() {
            if let Wish::Drop(router) = *wish
                && have_left.contains(&router)
            {
                // To look for sockets once more takes milliseconds of a CPU, while another node takes over.
                *wish = Wish::TakeOff(router);
            }
        }
        outlets.pass_on_wishes();
        Ok(())
    }

    fn hear(&mut self, news: News) {
        let Self { config, routers, outlets, .. } = self;
        let of = |of_it: usize| move |router: &&mut Router| router.interface == of_it;
        match news {
            News::Interface { interface, state, sender } => {
                if let Some(sender) = sender {
                    // Closing one waits for the kernel (RTNL, RCU): not here.
                    let old = std::mem::replace(&mut outlets.senders[interface], sender);
                    drop(thread::Builder::new().name("close".into()).spawn(move || drop(old)));
                }
                for router in routers.iter_mut().filter(of(interface)) {
                    router.interface_changed(state.as_ref(), config, &outlets.of(interface));
                }
            }
            News::Fence { interface, is_there } => {
                for router in routers.iter_mut().filter(of(interface)) {
                    router.fence_changed(is_there, &outlets.of(interface));
                }
            }
        }
    }
}

/// All events there are.
fn pending(events: &mut RingBuf<MapData>) -> impl Iterator<Item = Event> {
    // More than fit into it, so that a flood cannot keep the election from its deadlines.
    let items = (0..EVENTS_BYTES / 32).map_while(|_| {
        // What is no event of this version is nobody's.
        events.next().map(|item| Event::try_read_from_bytes(&item).ok())
    });
    items.flatten()
}
