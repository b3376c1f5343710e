//! Every input in every state. The router is the default one; its peers' adverts come from a
//! greater address unless the row says otherwise.

use State::{Active, Backup, Fault, Initialize};

use super::*;

/// Where a row starts. Active twice: with its lease, and in the 2 ms before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    Unstarted,
    Listening,
    Serving,
    Holding,
    LinkLost,
}

impl Situation {
    const ALL: [Self; 5] = [Self::Unstarted, Self::Listening, Self::Serving, Self::Holding, Self::LinkLost];

    /// The router, and the time at which the row's event happens.
    fn build(self) -> (Driver, u64) {
        match self {
            Self::Unstarted => (Driver::new(parameters()), SECOND),
            Self::Listening => (Driver::started(parameters()), SECOND),
            // Took over at 3.609375 s.
            Self::Serving => (Driver::active(), 4 * SECOND),
            // Its first advert left at 3.609375 s, 109.375 ms after one of the Active it preempts.
            Self::Holding => {
                let mut driver = Driver::started(parameters());
                driver.hear(advert(3_500 * MS, 50));
                driver.timeout(DOWN);
                (driver, DOWN + MS)
            }
            Self::LinkLost => {
                let mut driver = Driver::started(parameters());
                driver.input(500 * MS, Input::LinkDown);
                (driver, SECOND)
            }
        }
    }

    fn state(self) -> State {
        match self {
            Self::Unstarted => Initialize,
            Self::Listening => Backup,
            Self::Serving | Self::Holding => Active,
            Self::LinkLost => Fault,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Startup,
    Resume,
    Shutdown,
    LowerAdvert,
    EqualAdvertLesserAddress,
    EqualAdvertGreaterAddress,
    HigherAdvert,
    ReleaseAdvert,
    /// An answer nobody waits for: only meaningful where nothing can have been asked.
    StraySent,
    StrayFailed,
    Conflict,
    LinkUp,
    LinkDown,
    FenceBack,
    FenceLost,
    EarlyTimeout,
    /// `handle_timeout` at the deadline, the advert accepted; where nothing is due, an hour later.
    DueTimeout,
    /// The same, the advert refused.
    DueTimeoutSendFails,
}

impl Event {
    const ALL: [Self; 18] = [
        Self::Startup,
        Self::Resume,
        Self::Shutdown,
        Self::LowerAdvert,
        Self::EqualAdvertLesserAddress,
        Self::EqualAdvertGreaterAddress,
        Self::HigherAdvert,
        Self::ReleaseAdvert,
        Self::StraySent,
        Self::StrayFailed,
        Self::Conflict,
        Self::LinkUp,
        Self::LinkDown,
        Self::FenceBack,
        Self::FenceLost,
        Self::EarlyTimeout,
        Self::DueTimeout,
        Self::DueTimeoutSendFails,
    ];

    fn happen(self, driver: &mut Driver, now: u64) -> Vec<Action> {
        let due = driver.deadline().unwrap_or(now + 3_600 * SECOND);
        match self {
            Self::Startup => driver.input(now, Input::Startup),
            Self::Resume => driver.input(now, Input::Resume { lease_until_ns: now + 2 * SECOND }),
            Self::Shutdown => driver.input(now, Input::Shutdown),
            Self::LowerAdvert => driver.hear(advert(now, 99)),
            Self::EqualAdvertLesserAddress => driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(now, 100) }),
            Self::EqualAdvertGreaterAddress => driver.hear(advert(now, 100)),
            Self::HigherAdvert => driver.hear(advert(now, 101)),
            Self::ReleaseAdvert => driver.hear(advert(now, 0)),
            Self::StraySent => driver.input(now, Input::AdvertSent { before_send_ns: now }),
            Self::StrayFailed => driver.input(now, Input::AdvertFailed),
            Self::Conflict => driver.input(now, Input::Conflict),
            Self::LinkUp => driver.input(now, Input::LinkUp),
            Self::LinkDown => driver.input(now, Input::LinkDown),
            Self::FenceBack => driver.input(now, Input::FenceBack),
            Self::FenceLost => driver.input(now, Input::FenceLost),
            Self::EarlyTimeout => driver.timeout(now),
            Self::DueTimeout => driver.timeout(due),
            Self::DueTimeoutSendFails => {
                driver.sends = Sends::Fail;
                driver.timeout(due)
            }
        }
    }
}

/// What must be due after a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// What was due before.
    Unchanged,
    At(u64),
    Never,
    /// A time in this range, both ends included: where the documents leave room.
    Within(u64, u64),
}

struct Row {
    situation: Situation,
    event: Event,
    actions: Vec<Action>,
    state: State,
    due: Due,
}

/// A row that changes nothing at all.
fn refuse(situation: Situation, event: Event) -> Row {
    Row { situation, event, actions: Vec::new(), state: situation.state(), due: Due::Unchanged }
}

/// A row without actions that keeps the state and moves the deadline.
fn postpone(situation: Situation, event: Event, due_ns: u64) -> Row {
    Row { situation, event, actions: Vec::new(), state: situation.state(), due: Due::At(due_ns) }
}

/// A row that does something.
fn act<const N: usize>(situation: Situation, event: Event, actions: [Action; N], state: State, due: Due) -> Row {
    Row { situation, event, actions: actions.to_vec(), state, due }
}

fn table() -> Vec<Row> {
    use Situation::{Holding, LinkLost, Listening, Serving, Unstarted};
    // RFC 9568 6.4.1: Initialize waits for Startup, and for nothing else. That the link is down is
    // taken note of.
    let unstarted = [
        refuse(Unstarted, Event::Shutdown),
        refuse(Unstarted, Event::LowerAdvert),
        refuse(Unstarted, Event::EqualAdvertLesserAddress),
        refuse(Unstarted, Event::EqualAdvertGreaterAddress),
        refuse(Unstarted, Event::HigherAdvert),
        refuse(Unstarted, Event::ReleaseAdvert),
        refuse(Unstarted, Event::StraySent),
        refuse(Unstarted, Event::StrayFailed),
        refuse(Unstarted, Event::Conflict),
        refuse(Unstarted, Event::LinkUp),
        refuse(Unstarted, Event::FenceBack),
        refuse(Unstarted, Event::FenceLost),
        refuse(Unstarted, Event::EarlyTimeout),
        refuse(Unstarted, Event::DueTimeout),
        refuse(Unstarted, Event::DueTimeoutSendFails),
        // At 1 s: 1 s + 3.609375 s.
        act(
            Unstarted,
            Event::Startup,
            [report(Initialize, Backup, Reason::Startup)],
            Backup,
            Due::At(4_609_375_000), // 6.4.1: Active_Down_Interval
        ),
        act(Unstarted, Event::LinkDown, [report(Initialize, Fault, Reason::LinkDown)], Fault, Due::Never),
        // It advertises at once: that is due now.
        act(
            Unstarted,
            Event::Resume,
            [Action::TakeAddresses, report(Initialize, Active, Reason::Resumed)],
            Active,
            Due::At(SECOND),
        ),
    ];
    // RFC 9568 6.4.2.
    let listening = [
        refuse(Listening, Event::Startup),
        refuse(Listening, Event::Resume),
        refuse(Listening, Event::LowerAdvert), // Preempt_Mode: discarded, the timer runs on
        refuse(Listening, Event::StraySent),
        refuse(Listening, Event::StrayFailed),
        refuse(Listening, Event::Conflict),
        refuse(Listening, Event::LinkUp),
        refuse(Listening, Event::FenceBack),
        refuse(Listening, Event::EarlyTimeout),
        // No address is compared in Backup.
        postpone(Listening, Event::EqualAdvertLesserAddress, SECOND + DOWN),
        postpone(Listening, Event::EqualAdvertGreaterAddress, SECOND + DOWN),
        postpone(Listening, Event::HigherAdvert, SECOND + DOWN),
        postpone(Listening, Event::ReleaseAdvert, SECOND + SKEW),
        act(Listening, Event::Shutdown, [report(Backup, Initialize, Reason::Shutdown)], Initialize, Due::Never),
        act(Listening, Event::FenceLost, [report(Backup, Fault, Reason::FenceLost)], Fault, Due::Never),
        act(Listening, Event::LinkDown, [report(Backup, Fault, Reason::LinkDown)], Fault, Due::Never),
        act(
            Listening,
            Event::DueTimeout,
            [SEND, lease(DOWN + 3 * SECOND), Action::TakeAddresses, report(Backup, Active, Reason::Silence)],
            Active,
            Due::At(DOWN + SECOND),
        ),
        act(
            Listening,
            Event::DueTimeoutSendFails,
            [SEND, report(Backup, Active, Reason::Silence)],
            Active,
            Due::Within(DOWN + 1, DOWN + SECOND),
        ),
    ];
    // RFC 9568 6.4.3. Any advert that was sent renews the lease, whatever made it necessary.
    let serving = [
        refuse(Serving, Event::Startup),
        refuse(Serving, Event::Resume),
        refuse(Serving, Event::LinkUp),
        refuse(Serving, Event::FenceBack),
        refuse(Serving, Event::FenceLost), // attached again in time, nobody notices: see `fence`
        refuse(Serving, Event::EarlyTimeout),
        // A losing advert is discarded and answered at once; the timer need not be reset.
        act(
            Serving,
            Event::LowerAdvert,
            [SEND, Action::Announce, lease(7 * SECOND)],
            Active,
            Due::Within(DOWN + SECOND, 5 * SECOND),
        ),
        act(
            Serving,
            Event::EqualAdvertLesserAddress,
            [SEND, Action::Announce, lease(7 * SECOND)],
            Active,
            Due::Within(DOWN + SECOND, 5 * SECOND),
        ),
        act(
            Serving,
            Event::Conflict,
            [SEND, Action::Announce, lease(7 * SECOND)],
            Active,
            Due::Within(DOWN + SECOND, 5 * SECOND),
        ),
        // Priority 0: an advert at once, and Adver_Timer is reset.
        act(Serving, Event::ReleaseAdvert, [SEND, lease(7 * SECOND)], Active, Due::At(5 * SECOND)),
        act(
            Serving,
            Event::EqualAdvertGreaterAddress,
            [NO_LEASE, SEND, Action::DropAddresses, report(Active, Backup, superior(100))],
            Backup,
            Due::At(4 * SECOND + DOWN),
        ),
        act(
            Serving,
            Event::HigherAdvert,
            [NO_LEASE, SEND, Action::DropAddresses, report(Active, Backup, superior(101))],
            Backup,
            Due::At(4 * SECOND + DOWN),
        ),
        act(
            Serving,
            Event::Shutdown,
            [NO_LEASE, RELEASE, Action::DropAddresses, report(Active, Initialize, Reason::Shutdown)],
            Initialize,
            Due::Never,
        ),
        act(
            Serving,
            Event::LinkDown,
            [NO_LEASE, Action::DropAddresses, report(Active, Fault, Reason::LinkDown)],
            Fault,
            Due::Never,
        ),
        act(Serving, Event::DueTimeout, [SEND, lease(DOWN + 4 * SECOND)], Active, Due::At(DOWN + 2 * SECOND)),
        act(Serving, Event::DueTimeoutSendFails, [SEND], Active, Due::Within(DOWN + SECOND + 1, DOWN + 2 * SECOND)),
    ];
    // As above, but there is no lease that could be renewed and nothing that could be announced.
    // An advert in between may start the 2 ms anew, and no more than that.
    let holding = [
        refuse(Holding, Event::Startup),
        refuse(Holding, Event::Resume),
        refuse(Holding, Event::LinkUp),
        refuse(Holding, Event::FenceBack),
        refuse(Holding, Event::EarlyTimeout),
        act(Holding, Event::LowerAdvert, [SEND], Active, Due::Within(DOWN + HOLD, DOWN + MS + HOLD)),
        act(Holding, Event::EqualAdvertLesserAddress, [SEND], Active, Due::Within(DOWN + HOLD, DOWN + MS + HOLD)),
        act(Holding, Event::Conflict, [SEND], Active, Due::Within(DOWN + HOLD, DOWN + MS + HOLD)),
        act(Holding, Event::ReleaseAdvert, [SEND], Active, Due::Within(DOWN + HOLD, DOWN + MS + HOLD)),
        act(
            Holding,
            Event::EqualAdvertGreaterAddress,
            [NO_LEASE, Action::DropAddresses, report(Active, Backup, superior(100))],
            Backup,
            Due::At(DOWN + MS + DOWN),
        ),
        act(
            Holding,
            Event::HigherAdvert,
            [NO_LEASE, Action::DropAddresses, report(Active, Backup, superior(101))],
            Backup,
            Due::At(DOWN + MS + DOWN),
        ),
        act(
            Holding,
            Event::Shutdown,
            [NO_LEASE, RELEASE, Action::DropAddresses, report(Active, Initialize, Reason::Shutdown)],
            Initialize,
            Due::Never,
        ),
        act(
            Holding,
            Event::LinkDown,
            [NO_LEASE, Action::DropAddresses, report(Active, Fault, Reason::LinkDown)],
            Fault,
            Due::Never,
        ),
        act(
            Holding,
            Event::FenceLost,
            [NO_LEASE, Action::DropAddresses, report(Active, Fault, Reason::FenceLost)],
            Fault,
            Due::Never,
        ),
        // The lease counts from the advert, not from the end of the hold, and so does Adver_Timer.
        act(
            Holding,
            Event::DueTimeout,
            [lease(DOWN + 3 * SECOND), Action::TakeAddresses],
            Active,
            Due::At(DOWN + SECOND),
        ),
        act(
            Holding,
            Event::DueTimeoutSendFails,
            [lease(DOWN + 3 * SECOND), Action::TakeAddresses],
            Active,
            Due::At(DOWN + SECOND),
        ),
    ];
    let link_lost = [
        refuse(LinkLost, Event::Startup),
        refuse(LinkLost, Event::Resume),
        refuse(LinkLost, Event::LowerAdvert),
        refuse(LinkLost, Event::EqualAdvertLesserAddress),
        refuse(LinkLost, Event::EqualAdvertGreaterAddress),
        refuse(LinkLost, Event::HigherAdvert),
        refuse(LinkLost, Event::ReleaseAdvert),
        refuse(LinkLost, Event::StraySent),
        refuse(LinkLost, Event::StrayFailed),
        refuse(LinkLost, Event::Conflict),
        refuse(LinkLost, Event::LinkDown),
        refuse(LinkLost, Event::FenceBack),
        refuse(LinkLost, Event::FenceLost),
        refuse(LinkLost, Event::EarlyTimeout),
        refuse(LinkLost, Event::DueTimeout),
        refuse(LinkLost, Event::DueTimeoutSendFails),
        act(LinkLost, Event::Shutdown, [report(Fault, Initialize, Reason::Shutdown)], Initialize, Due::Never),
        act(LinkLost, Event::LinkUp, [report(Fault, Backup, Reason::LinkUp)], Backup, Due::At(SECOND + DOWN)),
    ];
    unstarted.into_iter().chain(listening).chain(serving).chain(holding).chain(link_lost).collect()
}

#[test]
fn every_input_in_every_state_does_what_the_table_says() {
    let mut wrong = Vec::new();
    for Row { situation, event, actions, state, due } in table() {
        let (mut driver, now) = situation.build();
        assert_eq!(driver.state(), situation.state(), "{situation:?} is not what it says");
        let before = driver.deadline();
        let done = event.happen(&mut driver, now);
        let due_is_right = match due {
            Due::Unchanged => driver.deadline() == before,
            Due::At(at) => driver.deadline() == Some(at),
            Due::Never => driver.deadline().is_none(),
            Due::Within(from, to) => driver.deadline().is_some_and(|at| (from..=to).contains(&at)),
        };
        if done != actions || driver.state() != state || !due_is_right {
            wrong.push(format!(
                "{situation:?} + {event:?}\n  expected {actions:?}, {state:?}, {due:?}\n  got      {done:?}, {:?}, {:?}",
                driver.state(),
                driver.deadline()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_every_pair_once() {
    let table = table();
    for situation in Situation::ALL {
        for event in Event::ALL {
            let stray = matches!(event, Event::StraySent | Event::StrayFailed);
            let expected = usize::from(!(stray && situation.state() == Active));
            let rows = table.iter().filter(|row| row.situation == situation && row.event == event).count();
            assert_eq!(rows, expected, "{situation:?} + {event:?}");
        }
    }
}

#[test]
fn a_router_that_was_shut_down_stays_down() {
    for mut driver in [Driver::started(parameters()), Driver::active()] {
        driver.input(5 * SECOND, Input::Shutdown);
        assert_eq!(driver.input(6 * SECOND, Input::LinkUp), []);
        assert_eq!(driver.timeout(100 * SECOND), []);
        assert_eq!((driver.state(), driver.deadline()), (Initialize, None));
    }
}

#[test]
fn a_router_that_was_shut_down_can_be_started_again() {
    let mut driver = Driver::active();
    driver.input(5 * SECOND, Input::Shutdown);
    assert_eq!(driver.input(10 * SECOND, Input::Startup), [report(Initialize, Backup, Reason::Startup)]);
    assert_eq!(driver.deadline(), Some(10 * SECOND + DOWN));
}

#[test]
fn a_repeated_timeout_changes_nothing() {
    let mut driver = Driver::started(parameters());
    assert_ne!(driver.timeout(DOWN), []);
    let due = driver.deadline();
    for now in [DOWN, DOWN, DOWN + 1, DOWN + SECOND - 1] {
        assert_eq!(driver.timeout(now), []);
        assert_eq!((driver.state(), driver.deadline()), (Active, due));
    }
}

#[test]
fn a_link_that_comes_back_starts_the_owner_as_startup_does() {
    let mut driver = Driver::started(owner());
    driver.timeout(HOLD);
    driver.input(SECOND, Input::LinkDown);
    assert_eq!(driver.state(), Fault);
    let at_once = driver.input(2 * SECOND, Input::LinkUp);
    assert_eq!(driver.state(), Active);
    assert_eq!(count(&at_once, Action::SendAdvert { priority: 255 }), 1);
    assert!(!leases(&at_once), "{at_once:?}");
    let after_the_hold = driver.timeout(2 * SECOND + HOLD);
    assert_eq!(after_the_hold, [lease(5 * SECOND), Action::TakeAddresses]);
}
