//! What must hold after every step.
//!
//! 1. No two nodes answer for the virtual address, unless lost adverts keep them apart.
//! 2. No Backup advertises; nobody becomes Active before the RFC lets it.
//! 3. No lease outlives three intervals of the last advert that left.
//! 4. While a node is well and the RFC says that it is its turn, somebody answers: after a millisecond, or the hold.
//! 5. An Active that was stalled past its lease does not depose who serves by then.
//! 6. In the end there is one, and it stays (`world`).
//! 7. Without its program a node advertises no more after the next look at it, and claims nothing once an advert got past.
//!    That it does not hear excuses it for three intervals from then; what it missed is as lost.
//!
//! Deliberately absent: the RFC's timers (`timer`), and anything that changes what happens.

use failover_common::abi::State;

use crate::clock::Clock;
use crate::peer::Advert;
use crate::scenario::{DELAY_MAX_NS, LATENCY_MAX_NS, NodePlan, Scenario, Time};
use crate::timer::{Timer, rfc};
use crate::{MS, Totals};

/// What the hold before preempting, or after having been late, may cost (ARCHITECTURE.md, invariants 4 and 5).
const HOLD_NS: u64 = 2 * MS;
/// How long a better router that hears a lower one may take until that one hears it: two events are at least a
/// millisecond apart.
const ANSWER_NS: u64 = MS + LATENCY_MAX_NS + DELAY_MAX_NS;
/// What a takeover may cost beyond the protocol's own time.
const MARGIN_NS: u64 = MS;

/// What can be seen of a node from outside.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// A client gets an answer.
    pub answers: bool,
    /// Its controller runs, is not stalled, and can send; its link is up, and it knows.
    pub is_well: bool,
    /// It is loaded, and its program is not on the interface.
    pub is_bare: bool,
    /// Its controller runs, is not stalled, and its link is up.
    pub is_at_work: bool,
    /// The end of its lease on its own clock; `None`: it has none that is kept, as it is not ours or bare.
    pub lease_until_ns: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct Watch {
    answers_since_ns: Option<u64>,
    well_since_ns: Option<u64>,
    /// Since when its program is missing while it is at work.
    bare_since_ns: Option<u64>,
    /// When its program is looked at, true time.
    look_by_ns: u64,
    /// Whether its program is missing while nobody looks after it.
    is_forsaken: bool,
    /// When its timer had fired when it last claimed, true time.
    turn_ns: u64,
    /// When its last advert left, by its own clock.
    sent_at_ns: Option<u64>,
    /// When its kernel heard, after its last lease, that another serves: since when a Backup's timer would run, by its own
    /// clock.
    displaced_at_ns: Option<u64>,
    now: Option<Turn>,
    may_resume: bool,
}

/// A wake-up of a controller that is going on.
#[derive(Clone, Copy)]
struct Turn {
    /// The state before.
    state: State,
    /// The timer then.
    earliest_ns: u64,
    has_sent: bool,
    /// Its lease ran out and its kernel heard since that another serves: it is no Active any more, whoever is the better
    /// one, and has to wait as a Backup does (README, promise 3). By its own clock; 0: that is not so.
    listens_until_ns: u64,
}

/// Whether adverts between two nodes arrive.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Contact {
    /// As far as is known.
    #[default]
    Good,
    /// The last one did not.
    Lost,
    /// One arrived again; what follows from it is done by then, true time.
    Mending { until_ns: u64 },
}

/// See the module.
pub struct Judge {
    version: u8,
    plans: Vec<NodePlan>,
    clocks: Vec<Clock>,
    timers: Vec<Timer>,
    watches: Vec<Watch>,
    /// By lower place, then higher.
    contacts: Vec<Vec<Contact>>,
    overlaps: Vec<Vec<Option<u64>>>,
    silent_since_ns: Option<u64>,
    /// When the last disturbance is over, as far as is known.
    pub healed_at_ns: u64,
    /// What was seen.
    pub totals: Totals,
}

impl Judge {
    /// One that has seen nothing.
    pub fn new(scenario: &Scenario) -> Self {
        let count = scenario.nodes.len();
        let clock = |plan: &NodePlan| Clock { start_ns: plan.clock_start_ns, drift_ppm: plan.drift_ppm };
        Self {
            version: scenario.version,
            plans: scenario.nodes.clone(),
            clocks: scenario.nodes.iter().map(clock).collect(),
            timers: vec![Timer::default(); count],
            watches: vec![Watch::default(); count],
            contacts: vec![vec![Contact::Good; count]; count],
            overlaps: vec![vec![None; count]; count],
            silent_since_ns: Some(0),
            healed_at_ns: scenario.faults_end_ns(),
            totals: Totals::default(),
        }
    }

    /// Something is not as it should be until then, true time.
    pub fn disturbed(&mut self, until_ns: u64) {
        self.healed_at_ns = self.healed_at_ns.max(until_ns);
    }

    /// A node's program is looked at then, true time.
    pub fn looked_at_by(&mut self, place: usize, at_ns: u64) {
        let watch = &mut self.watches[place];
        watch.look_by_ns = watch.look_by_ns.max(at_ns);
    }

    /// A node has another priority from now on.
    pub fn reconfigured(&mut self, place: usize, priority: u8) {
        self.plans[place].priority = priority;
    }

    /// RFC 9568 6.4.1, or a controller that carries on with a live lease.
    pub fn starts(&mut self, place: usize, local_ns: u64, resumed: bool) {
        let interval_cs = self.plans[place].interval_cs;
        self.timers[place] = Timer::started(self.version, &self.plans[place], local_ns, resumed);
        self.watches[place].may_resume = resumed;
        // Whoever advertises at longer intervals than this node waits has had no time to be heard.
        for other in 0..self.plans.len() {
            if other != place && self.plans[other].interval_cs != interval_cs {
                self.lost(other, place);
            }
        }
    }

    /// An advert got into a node's kernel.
    pub fn heard(&mut self, place: usize, local_ns: u64, advert: &Advert) {
        let least_cs = self.plans.iter().map(|plan| plan.interval_cs).min().unwrap_or(advert.interval_cs);
        self.timers[place].hears(self.version, &self.plans[place], local_ns, advert, least_cs);
        self.notes_who_serves(place, local_ns, advert);
    }

    fn notes_who_serves(&mut self, place: usize, local_ns: u64, advert: &Advert) {
        let wins = self.wins(place, advert.from);
        let lease_ns = 3 * self.plans[place].interval_ns();
        let watch = &mut self.watches[place];
        if watch.sent_at_ns.is_none_or(|sent_at_ns| local_ns < sent_at_ns + lease_ns) {
            return;
        }
        watch.displaced_at_ns = match (advert.priority, wins) {
            // Who has heard a release waits no longer than the skew, from then on. Who has heard a better router deposes
            // nobody, whatever it says.
            (0, _) | (_, false) => Some(0),
            (_, true) => watch.displaced_at_ns.or(Some(local_ns)),
        };
    }

    /// Whether the node answered at the last look.
    pub fn is_answering(&self, place: usize) -> bool {
        self.watches[place].answers_since_ns.is_some()
    }

    /// The node's priority by now.
    pub fn priority(&self, place: usize) -> u8 {
        self.plans[place].priority
    }

    /// Whether the node at `left` wins against the one at `right` (RFC 9568 6.4.3).
    fn wins(&self, left: usize, right: usize) -> bool {
        (self.plans[left].priority, left) > (self.plans[right].priority, right)
    }

    fn contact(&mut self, left: usize, right: usize) -> &mut Contact {
        &mut self.contacts[left.min(right)][left.max(right)]
    }

    fn is_mixed(&self) -> bool {
        self.plans.iter().any(|plan| plan.interval_cs != self.plans[0].interval_cs)
    }

    fn has_lost(&self, left: usize, right: usize) -> bool {
        self.contacts[left.min(right)][left.max(right)] == Contact::Lost
    }

    /// An advert did not arrive, or will much too late.
    pub fn lost(&mut self, from: usize, to: usize) {
        *self.contact(from, to) = Contact::Lost;
        self.totals.lost += 1;
    }

    /// One arrived in time. If the better one is heard, the other stops; if the lower one is, the better one answers.
    pub fn arrived(&mut self, from: usize, to: usize, now_ns: u64) {
        if *self.contact(from, to) != Contact::Lost {
            return;
        }
        let loser = if self.wins(from, to) { to } else { from };
        let reading_ns = if self.plans[loser].is_keepalived { LATENCY_MAX_NS } else { 0 };
        let until_ns = if loser == to { now_ns } else { now_ns + ANSWER_NS };
        *self.contact(from, to) = Contact::Mending { until_ns: until_ns + reading_ns };
    }

    /// A node's controller is about to do something; `held`: its kernel has a lease of it, live or over.
    pub fn controller_begins(&mut self, place: usize, state: State, held: bool) {
        let NodePlan { priority, interval_cs, .. } = self.plans[place];
        let down_ns = rfc::active_down_ns(self.version, priority, interval_cs);
        let watch = &mut self.watches[place];
        let displaced_at_ns = watch.displaced_at_ns.filter(|_| held && state == State::Active);
        let listens_until_ns = displaced_at_ns.map_or(0, |at_ns| at_ns + down_ns);
        let earliest_ns = self.timers[place].earliest_ns;
        watch.now = Some(Turn { state, earliest_ns, has_sent: false, listens_until_ns });
    }

    /// It has done it.
    pub fn controller_ends(&mut self, place: usize, local_ns: u64, state: State) -> Result<(), String> {
        let now = self.watches[place].now.take();
        let timer = &mut self.timers[place];
        match now {
            Some(Turn { state: State::Active, .. }) if state == State::Backup => timer.begins_again(&self.plans[place]),
            Some(Turn { state: State::Initialize | State::Fault, .. }) if state == State::Backup => {
                timer.may_begin(self.version, &self.plans[place], local_ns);
            }
            _ => {}
        }
        match now {
            Some(Turn { state: before, has_sent: true, .. }) if before != State::Active && state != State::Active => {
                Err(format!("node {place} advertised as {state:?}"))
            }
            _ => Ok(()),
        }
    }

    /// A node's advert leaves.
    pub fn sent(
        &mut self,
        place: usize,
        local_ns: u64,
        priority: u8,
        now_ns: u64,
        is_deaf_claim: bool,
    ) -> Result<(), String> {
        if priority == 0 {
            return Ok(());
        }
        if is_deaf_claim {
            return Err(format!("node {place} claims although an advert got past its kernel program"));
        }
        let look_by_ns = self.watches[place].look_by_ns;
        if self.watches[place].bare_since_ns.is_some() && now_ns > look_by_ns + LATENCY_MAX_NS {
            return Err(format!("node {place} advertises without its kernel program"));
        }
        let watch = &mut self.watches[place];
        (watch.sent_at_ns, watch.displaced_at_ns) = (Some(local_ns), None);
        let Some(turn) = watch.now.as_mut() else { return Ok(()) };
        if local_ns < turn.listens_until_ns {
            return Err(format!("node {place} deposes who took over while it was stalled"));
        }
        if std::mem::replace(&mut turn.has_sent, true) || turn.state == State::Active {
            return Ok(());
        }
        // What came while it was stalled in this very wake-up may count, or not.
        let earliest_ns = self.timers[place].earliest_ns.min(turn.earliest_ns);
        let early_ns = earliest_ns.saturating_sub(local_ns);
        watch.turn_ns = self.clocks[place].reaches(earliest_ns);
        self.totals.takeovers += 1;
        self.timers[place].fired(&self.plans[place]);
        if early_ns > 0 && !watch.may_resume {
            return Err(format!("node {place} becomes Active {} before its Active_Down_Timer fires", Time(early_ns)));
        }
        Ok(())
    }

    /// Time is about to pass to `now_ns`: has somebody's turn been missed?
    pub fn before(&self, now_ns: u64) -> Result<(), String> {
        let Some(silent_since_ns) = self.silent_since_ns else { return Ok(()) };
        for (place, watch) in self.watches.iter().enumerate() {
            let Some(well_since_ns) = watch.well_since_ns else { continue };
            if self.plans[place].is_keepalived {
                continue;
            }
            let timer = &self.timers[place];
            let turn_ns = self.clocks[place].reaches(timer.latest_ns);
            let due_ns = turn_ns.max(well_since_ns).max(silent_since_ns);
            // Who has only just started does not know yet whose steady adverts it hears, and holds.
            let is_settled = well_since_ns + 2 * self.plans[place].interval_ns() < turn_ns;
            if !is_settled && self.is_mixed() {
                // Nor has it learned the interval of the adverts that it hears (README, limits).
                continue;
            }
            let slack_ns = match is_settled && turn_ns == due_ns && timer.is_alone() {
                true => MARGIN_NS,
                // A failed send is tried again after a tenth of the interval.
                false => MARGIN_NS + HOLD_NS + LATENCY_MAX_NS + self.plans[place].interval_ns() / 10,
            };
            if now_ns > due_ns + slack_ns {
                let late = Time(now_ns - due_ns);
                return Err(format!("nobody answers although it has been node {place}'s turn for {late}"));
            }
        }
        Ok(())
    }

    /// After a step: what is seen by now.
    pub fn check(&mut self, now_ns: u64, seen: &[Seen]) -> Result<(), String> {
        for (place, seen) in seen.iter().enumerate() {
            self.check_lease(place, seen)?;
            let watch = &mut self.watches[place];
            watch.bare_since_ns =
                if seen.is_bare && seen.is_at_work { watch.bare_since_ns.or(Some(now_ns)) } else { None };
            watch.is_forsaken = seen.is_bare && !seen.is_at_work;
            watch.well_since_ns = if seen.is_well { watch.well_since_ns.or(Some(now_ns)) } else { None };
            watch.answers_since_ns = if seen.answers { watch.answers_since_ns.or(Some(now_ns)) } else { None };
        }
        let answers = seen.iter().any(|seen| seen.answers);
        self.silent_since_ns = if answers { None } else { self.silent_since_ns.or(Some(now_ns)) };
        for left in 0..seen.len() {
            for right in left + 1..seen.len() {
                self.check_pair(left, right, now_ns)?;
            }
        }
        Ok(())
    }

    fn check_lease(&self, place: usize, seen: &Seen) -> Result<(), String> {
        let Some(until_ns) = seen.lease_until_ns.filter(|_| seen.answers) else { return Ok(()) };
        let Some(sent_at_ns) = self.watches[place].sent_at_ns else {
            return Err(format!("node {place} answers and has never sent an advert"));
        };
        let most_ns = sent_at_ns + 3 * self.plans[place].interval_ns();
        if until_ns > most_ns {
            return Err(format!(
                "node {place}'s lease outlives its last advert by {} too much",
                Time(until_ns - most_ns)
            ));
        }
        Ok(())
    }

    fn check_pair(&mut self, left: usize, right: usize, now_ns: u64) -> Result<(), String> {
        let winner = if self.wins(left, right) { left } else { right };
        let is_winner_well = self.watches[winner].well_since_ns.is_some();
        let contact = self.contact(left, right);
        match *contact {
            Contact::Mending { .. } if !is_winner_well => *contact = Contact::Lost,
            Contact::Mending { until_ns } if now_ns > until_ns => *contact = Contact::Good,
            _ => {}
        }
        let contact = *contact;
        let is_deaf = |place: usize| self.watches[place].is_forsaken || self.watches[place].bare_since_ns.is_some();
        let is_overdue = self.is_overdue(left, now_ns) || self.is_overdue(right, now_ns);
        let is_excused = (contact != Contact::Good || is_deaf(left) || is_deaf(right)) && !is_overdue;
        let (Some(left_ns), Some(right_ns)) =
            (self.watches[left].answers_since_ns, self.watches[right].answers_since_ns)
        else {
            self.overlaps[left][right] = None;
            return Ok(());
        };
        let since_ns = *self.overlaps[left][right].get_or_insert(now_ns);
        self.totals.doubles += u64::from(since_ns == now_ns);
        if is_excused || now_ns - since_ns <= self.allowed_ns(left, right, left_ns.max(right_ns), now_ns) {
            self.totals.double_ns = self.totals.double_ns.max(now_ns - since_ns);
            return Ok(());
        }
        Err(format!("nodes {left} and {right} have both answered for {}", Time(now_ns - since_ns)))
    }

    /// Whether the node should have noticed by now that its program is missing, and let go.
    fn is_overdue(&self, place: usize, now_ns: u64) -> bool {
        let watch = &self.watches[place];
        let lease_ns = 3 * self.plans[place].interval_ns();
        let until_ns = |since_ns: u64| watch.look_by_ns.max(since_ns) + lease_ns + ANSWER_NS;
        watch.bare_since_ns.is_some_and(|since_ns| now_ns > until_ns(since_ns))
    }

    /// How long two nodes may both answer although nothing was lost.
    fn allowed_ns(&self, left: usize, right: usize, since_ns: u64, now_ns: u64) -> u64 {
        let settle_ns = 2 * (DELAY_MAX_NS + LATENCY_MAX_NS);
        let peer = [left, right].into_iter().find(|place| self.plans[*place].is_keepalived);
        let has_read = |peer: usize| {
            self.watches[peer].well_since_ns.is_some_and(|well_ns| now_ns > well_ns.max(since_ns) + settle_ns)
        };
        if peer.is_some_and(|peer| !has_read(peer)) {
            // It answers until it has read an advert; stopped or dead, for ever.
            return u64::MAX;
        }
        if self.is_mixed() {
            // Who waits shorter intervals than the Active's is impatient with it (README, limits), and told so at once: by
            // an Active that is well.
            let winner = if self.wins(left, right) { left } else { right };
            let well_since_ns = self.watches[winner].well_since_ns;
            return well_since_ns.map_or(u64::MAX, |well_ns| well_ns.saturating_sub(since_ns) + settle_ns + ANSWER_NS);
        }
        if peer.is_some() {
            return settle_ns;
        }
        // Two timers that fire at the same time, as far as it is known: their adverts cross. And who is Active only because it does not hear a
        // third router gives way when it hears the next.
        let apart_ns = self.watches[left].turn_ns.abs_diff(self.watches[right].turn_ns);
        let is_partition = |place| (0..self.plans.len()).any(|other| self.has_lost(place, other));
        let is_crossing = apart_ns <= ANSWER_NS || is_partition(left) || is_partition(right);
        if is_crossing { DELAY_MAX_NS } else { 0 }
    }
}
