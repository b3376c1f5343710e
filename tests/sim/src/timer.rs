//! RFC 9568 6.4's Active_Down_Timer of one node, computed from the frames that reached it: a second opinion, written from
//! the RFC's text, that shares nothing with the election.
//!
//! Where the RFC leaves open what counts (adverts less than a millisecond apart, a row of them from before a start, a
//! preempt delay, a stall) it is a span: no sooner, no later. Deliberately absent: what follows from it (`judge`).

use crate::MS;
use crate::peer::Advert;
use crate::scenario::{NODES_MAX, NodePlan};

/// RFC 9568 6.1, and RFC 3768 6.1 for version 2.
pub mod rfc {
    /// Skew_Time, nanoseconds.
    pub fn skew_ns(version: u8, priority: u8, interval_cs: u16) -> u64 {
        let unit_cs = if version == 2 { 100 } else { u64::from(interval_cs) };
        (256 - u64::from(priority)) * unit_cs * 10_000_000 / 256
    }

    /// Active_Down_Interval, nanoseconds.
    pub fn active_down_ns(version: u8, priority: u8, interval_cs: u16) -> u64 {
        3 * u64::from(interval_cs) * 10_000_000 + skew_ns(version, priority, interval_cs)
    }
}

/// How far a node is from being allowed to take over: RFC 9568 6.4.2's Active_Down_Timer, by its own clock.
#[derive(Clone, Copy, Default)]
pub struct Timer {
    /// Active_Down_Timer.
    fires_at_ns: u64,
    /// The same, with the shortest of the intervals that may have been learned.
    fires_first_ns: u64,
    /// With the preempt delay: no sooner.
    pub earliest_ns: u64,
    /// And no later.
    pub latest_ns: u64,
    /// Active_Adver_Interval.
    interval_cs: u16,
    /// When the first of the last adverts came that were less than a millisecond apart.
    burst_since_ns: u64,
    /// When the last of them came.
    heard_at_ns: u64,
    /// When whoever was last heard as Active is given up.
    silent_at_ns: u64,
    /// When the timer that began with stepping back fires at the latest.
    again_ns: u64,
    /// The lower-priority router that was heard.
    lower: Option<Lower>,
    /// Until when each other router seems to live.
    lives_until_ns: [u64; NODES_MAX],
}

/// A router that is to be preempted.
#[derive(Clone, Copy)]
struct Lower {
    /// When the delay is over.
    leaves_at_ns: u64,
    /// When it is dead if it says no more.
    silent_at_ns: u64,
}

impl Timer {
    /// RFC 9568 6.4.1: at a start, or when the link is back. Whoever carries on with a live lease, and the owner, need
    /// not wait.
    pub fn started(version: u8, plan: &NodePlan, local_ns: u64, resumed: bool) -> Self {
        let NodePlan { priority, interval_cs, .. } = *plan;
        let waits_ns = if priority == 255 || resumed { 0 } else { rfc::active_down_ns(version, priority, interval_cs) };
        let fires_at_ns = local_ns + waits_ns;
        Self {
            fires_at_ns,
            fires_first_ns: fires_at_ns,
            earliest_ns: fires_at_ns,
            latest_ns: fires_at_ns,
            interval_cs,
            ..Self::default()
        }
    }

    /// It may have been stalled in its start, which is only over now.
    pub fn may_begin(&mut self, version: u8, plan: &NodePlan, local_ns: u64) {
        let fires_at_ns = local_ns + rfc::active_down_ns(version, plan.priority, plan.interval_cs);
        self.latest_ns = self.latest_ns.max(fires_at_ns);
        self.earliest_ns = self.earliest_ns.min(fires_at_ns);
    }

    /// An Active stepped back: the timer runs once more from what it heard, and so does the preempt delay.
    pub fn begins_again(&mut self, plan: &NodePlan) {
        self.again_ns = self.silent_at_ns + plan.preempt_delay_ms * MS;
        self.latest_ns = self.latest_ns.max(self.again_ns);
    }

    /// It took over.
    pub fn fired(&mut self, plan: &NodePlan) {
        (self.interval_cs, self.lower, self.again_ns) = (plan.interval_cs, None, 0);
    }

    /// Whether nobody else seems to live when it fires.
    pub fn is_alone(&self) -> bool {
        self.lives_until_ns.iter().all(|until_ns| *until_ns <= self.fires_at_ns)
    }

    /// RFC 9568 6.4.2, an advert; `least_cs` is the shortest interval of all routers.
    pub fn hears(&mut self, version: u8, plan: &NodePlan, local_ns: u64, advert: &Advert, least_cs: u16) {
        let NodePlan { priority, preempt, preempt_delay_ms, interval_cs: own_interval_cs, .. } = *plan;
        self.lives_until_ns[advert.from] = 0;
        if local_ns >= self.heard_at_ns + MS {
            self.burst_since_ns = local_ns;
        }
        self.heard_at_ns = local_ns;
        if advert.priority == 0 {
            self.fires_at_ns = local_ns + rfc::skew_ns(version, priority, self.interval_cs);
            (self.fires_first_ns, self.earliest_ns) = (self.fires_at_ns, self.fires_at_ns);
            // Of a steady row of adverts from before its start a controller need not have learned the interval yet.
            let skew_ns = rfc::skew_ns(version, priority, self.interval_cs.max(own_interval_cs));
            (self.latest_ns, self.again_ns, self.lower) = (local_ns + skew_ns, 0, None);
            return;
        }
        let down_ns = rfc::active_down_ns(version, priority, advert.interval_cs);
        self.lives_until_ns[advert.from] = local_ns + down_ns;
        self.silent_at_ns = local_ns + down_ns.max(rfc::active_down_ns(version, priority, own_interval_cs));
        // An owner always preempts (RFC 9568 6.1).
        if (preempt || priority == 255) && advert.priority < priority {
            let interval_ns = plan.interval_ns();
            let lower =
                self.lower.get_or_insert(Lower { leaves_at_ns: local_ns + preempt_delay_ms * MS, silent_at_ns: 0 });
            lower.silent_at_ns = local_ns + down_ns;
            self.earliest_ns = self.fires_first_ns.max(lower.leaves_at_ns.min(lower.silent_at_ns));
            // When it is first heard after a start is looked at once in an interval.
            let delayed_ns = if preempt_delay_ms > 0 { lower.leaves_at_ns + interval_ns } else { 0 };
            self.latest_ns = self.fires_at_ns.max(self.again_ns).max(delayed_ns.min(lower.silent_at_ns));
            return;
        }
        self.fires_at_ns = local_ns + down_ns;
        self.latest_ns = self.fires_at_ns;
        // Of several routers that advertise within a millisecond any may be the one that was told of.
        self.fires_first_ns = self.burst_since_ns + rfc::active_down_ns(version, priority, least_cs);
        self.earliest_ns = self.fires_first_ns;
        (self.lower, self.interval_cs) = (None, advert.interval_cs);
        self.again_ns = 0;
    }
}
