//! The controller: two threads around the elections. The election thread reads the ring, waits for
//! deadlines and sends adverts; the host thread (`host`) does what may have to wait. Both can be
//! real-time; logging and signals stay on the main thread's runtime.
//!
//! Deliberately absent: protocol. A wake-up ends in calls to `router`, nothing here knows a state.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use aya::maps::{MapData, RingBuf};
use failover_common::abi::Event;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use zerocopy::TryFromBytes;

use crate::clock::{self, Timer};
use crate::config::Config;
use crate::dataplane::{DataPlane, Started};
use crate::host::{Host, News, Wish};
use crate::interface;
use crate::packet::FrameSender;
use crate::plan::Plan;
use crate::readable::readable;
use crate::realtime;
use crate::router::{Outlets, Router};

/// Events taken from the ring before deadlines are looked at again: all of a full ring.
const EVENTS_PER_WAKE: usize = 8192;

/// Runs until `stop` resolves, then releases everything.
///
/// # Errors
/// When it cannot start (see the message), or not everything could be taken back.
pub fn run(file: &Path, config: Config, stop: impl Future<Output = &'static str>) -> Result<()> {
    let runtime = runtime()?;
    let config = Arc::new(config);
    let (plan, started) = runtime.block_on(prepare(file, &config))?;
    let (wishes, wishes_in) = unbounded_channel();
    let (news, news_in) = unbounded_channel();
    let mut elections = Elections::new(&config, &plan, &started, wishes, news_in)?;
    let held = elections.start(started.adopted);
    let host = spawn_host(&config, plan, started.data_plane, held, (wishes_in, news))?;
    let (quit, quitting) = oneshot::channel();
    let elections = spawn_elections(&config, elections, started.events, quitting)?;

    let reason = runtime.block_on(stop);
    tracing::info!(reason, "releasing");
    drop(quit);
    let elected = elections.join().map_err(|_| anyhow!("the election thread panicked"))?;
    let hosted = host.join().map_err(|_| anyhow!("the host thread panicked"))?;
    elected.and(hosted)
}

async fn prepare(file: &Path, config: &Config) -> Result<(Plan, Started)> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
    tokio::spawn(connection);
    let known = interface::list(&netlink).await?;
    let plan = Plan::new(file, config, &known).map_err(Problems)?;
    let started = DataPlane::start(config, &plan)?;
    for (ifindex, address) in &started.leftovers {
        let interface = known.values().find(|interface| interface.index == *ifindex);
        let there = interface.and_then(|state| state.addresses.iter().find(|there| there.net.addr() == *address));
        if let Some(there) = there {
            interface::remove_address(&netlink, *ifindex, there.net).await?;
        }
    }
    Ok((plan, started))
}

/// Configuration problems as one error, a line each.
#[derive(Debug)]
pub struct Problems(pub Vec<crate::config::Problem>);

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

fn spawn_host(
    config: &Arc<Config>,
    plan: Plan,
    data_plane: DataPlane,
    held: Vec<bool>,
    (wishes, news): (UnboundedReceiver<Wish>, UnboundedSender<News>),
) -> Result<thread::JoinHandle<Result<()>>> {
    let config = config.clone();
    let run = move || {
        let realtime_priority = config.node.realtime_priority;
        realtime::enable(realtime_priority)?;
        runtime()?.block_on(async {
            let (connection, netlink, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
            tokio::spawn(connection);
            Host::new(config, &plan, data_plane, &held, netlink, news)?.run(wishes).await
        })
    };
    thread::Builder::new().name("host".into()).spawn(run).context("starting the host thread")
}

fn spawn_elections(
    config: &Arc<Config>,
    elections: Elections,
    events: RingBuf<MapData>,
    quitting: oneshot::Receiver<()>,
) -> Result<thread::JoinHandle<Result<()>>> {
    let realtime_priority = config.node.realtime_priority;
    let run = move || {
        realtime::enable(realtime_priority)?;
        runtime()?.block_on(elections.run(events, quitting))
    };
    thread::Builder::new().name("election".into()).spawn(run).context("starting the election thread")
}

/// The election thread's state.
struct Elections {
    config: Arc<Config>,
    routers: Vec<Router>,
    usable: Vec<bool>,
    /// By interface of the plan.
    senders: Vec<Option<FrameSender>>,
    wishes: UnboundedSender<Wish>,
    news: UnboundedReceiver<News>,
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
            let sender = FrameSender::open(interface.index);
            sender.map(Some).with_context(|| format!("on interface {}", interface.name))
        });
        let routers = plan.routers.iter().zip(&config.virtual_routers).enumerate().map(|(index, (place, config))| {
            let entry = started.entries.entry(index as u32).context("more virtual routers than entries")?;
            let mac = plan.interfaces[place.interface].mac;
            Ok(Router::new(config, index, place.interface, place.own_address.octets(), mac, entry))
        });
        Ok(Self {
            config: config.clone(),
            routers: routers.collect::<Result<_>>()?,
            usable: plan.interfaces.iter().map(|interface| interface.is_up).collect(),
            senders: senders.collect::<Result<_>>()?,
            wishes,
            news,
        })
    }

    /// Starts every virtual router, and says which of them carry on with a lease.
    fn start(&mut self, adopted: bool) -> Vec<bool> {
        let Self { routers, usable, senders, wishes, .. } = self;
        let start = |router: &mut Router| {
            let resumed = if adopted { router.live_lease(clock::now_ns()) } else { None };
            let sender = senders[router.interface].as_ref();
            router.start(usable[router.interface], resumed, &Outlets { sender, wishes });
            resumed.is_some()
        };
        routers.iter_mut().map(start).collect()
    }

    async fn run(mut self, events: RingBuf<MapData>, mut quitting: oneshot::Receiver<()>) -> Result<()> {
        let timer = Timer::new().context("making a timer")?;
        let mut events = readable(events).context("watching the ring of events")?;
        loop {
            timer.arm(self.routers.iter().filter_map(Router::next_deadline).min()).context("arming the timer")?;
            tokio::select! {
                biased;
                _ = &mut quitting => break,
                Some(news) = self.news.recv() => self.hear(news),
                ready = events.readable_mut() => ready.context("watching the ring of events")?.clear_ready(),
                fired = timer.fired() => fired.context("waiting for the timer")?,
            }
            self.drain(events.get_mut());
            self.expire();
        }
        let Self { routers, senders, wishes, .. } = &mut self;
        for router in routers {
            let sender = senders[router.interface].as_ref();
            router.shut_down(&Outlets { sender, wishes });
        }
        Ok(())
    }

    /// All events there are, before any deadline is looked at.
    fn drain(&mut self, events: &mut RingBuf<MapData>) {
        let Self { routers, senders, wishes, .. } = self;
        for _ in 0..EVENTS_PER_WAKE {
            let Some(item) = events.next() else { break };
            // What is no event of this version, or of no router, is nobody's.
            let Ok(event) = Event::try_read_from_bytes(&item) else { continue };
            if let Some(router) = routers.get_mut(event.router as usize) {
                let sender = senders[router.interface].as_ref();
                router.event(&event, &Outlets { sender, wishes });
            }
        }
    }

    fn expire(&mut self) {
        let now_ns = clock::now_ns();
        let Self { routers, senders, wishes, .. } = self;
        for router in routers.iter_mut().filter(|router| router.next_deadline().is_some_and(|at_ns| at_ns <= now_ns)) {
            let sender = senders[router.interface].as_ref();
            router.timeout(&Outlets { sender, wishes });
        }
    }

    fn hear(&mut self, news: News) {
        let Self { config, routers, senders, wishes, .. } = self;
        if let Some(sender) = news.sender {
            senders[news.interface] = Some(sender);
        }
        for router in routers.iter_mut().filter(|router| router.interface == news.interface) {
            let sender = senders[news.interface].as_ref();
            router.interface_changed(news.state.as_ref(), config, &Outlets { sender, wishes });
        }
    }
}
