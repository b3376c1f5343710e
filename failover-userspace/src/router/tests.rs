//! Several virtual routers that are due together, over a made-up machine.

use std::cell::{Cell, RefCell};
use std::path::Path;

use super::*;
use crate::config::{self, Config};
use crate::dataplane::Entries;

const MS: u64 = 1_000_000;
/// More than go out together.
const COUNT: usize = BATCH + 8;
/// Active_Down_Interval of the default priority 100 at 100 ms: 3 x 100 + 156/256 x 100 ms, by hand.
const DOWN_NS: u64 = 360_937_500;
/// What it takes to send one frame.
const SEND_NS: u64 = 1_000;

/// A machine whose clock only moves when it sends.
struct Desk {
    now_ns: Cell<u64>,
    /// How many frames each call had.
    calls: RefCell<Vec<usize>>,
    /// Frames that are refused, by VRID.
    refused_vrid: Cell<u8>,
    wishes: RefCell<Vec<Wish>>,
    is_fenced: Cell<bool>,
    hears: Cell<bool>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            now_ns: Cell::default(),
            calls: RefCell::default(),
            refused_vrid: Cell::default(),
            wishes: RefCell::default(),
            is_fenced: Cell::new(true),
            hears: Cell::new(true),
        }
    }
}

impl World for &Desk {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.send_all(&[frame]).remove(0)
    }

    fn send_all(&self, frames: &[&[u8]]) -> Vec<io::Result<()>> {
        self.calls.borrow_mut().push(frames.len());
        self.now_ns.set(self.now_ns.get() + SEND_NS * frames.len() as u64);
        // The VRID is the second byte behind Ethernet's 14 and IPv4's 20 (RFC 9568 5.2).
        let is_refused = |frame: &&&[u8]| frame[35] == self.refused_vrid.get();
        let result = |frame| if is_refused(&frame) { Err(io::ErrorKind::NetworkDown.into()) } else { Ok(()) };
        frames.iter().map(result).collect()
    }

    fn wish(&self, wish: Wish) {
        self.wishes.borrow_mut().push(wish);
    }

    fn is_fenced(&self) -> bool {
        self.is_fenced.get()
    }

    fn hears(&self) -> bool {
        self.hears.get()
    }
}

fn configuration() -> Config {
    let router = |number: usize| {
        format!(
            "[[virtual_router]]\nname = \"r{number}\"\ninterface = \"eth0\"\nvrid = {}\nadvert_interval = \"100ms\"\n\
             addresses = [\"192.0.2.{}/24\"]\n",
            number + 1,
            100 + number
        )
    };
    let text: String = (0..COUNT).map(router).collect();
    config::parse(Path::new("test.toml"), &text, "test").unwrap()
}

/// All started at 1 s, so all due at the same time.
fn routers(entries: &Entries, desk: &Desk) -> Vec<Router> {
    desk.now_ns.set(1_000 * MS);
    let config = configuration();
    let start = |(index, config): (usize, &VirtualRouter)| {
        let entry = entries.entry(index as u32).unwrap();
        let mut router = Router::new(config, (index, COUNT), 0, [192, 0, 2, 1], Mac([2, 0, 0, 0, 0, 1]), entry);
        router.start(true, None, &desk);
        router
    };
    let routers = config.virtual_routers.iter().enumerate().map(start).collect();
    assert_eq!(*desk.calls.borrow(), [0_usize; 0], "a Backup is silent");
    routers
}

#[test]
fn what_is_due_together_goes_out_together_and_each_has_a_lease_of_its_own_advert() {
    let (entries, desk) = (Entries::anonymous(COUNT as u32).unwrap(), Desk::default());
    let mut routers = routers(&entries, &desk);
    let due_ns = 1_000 * MS + DOWN_NS;
    desk.now_ns.set(due_ns);
    wake(&mut routers, [], |_| &desk);
    assert_eq!(*desk.calls.borrow(), [BATCH, COUNT - BATCH]);
    for index in 0..COUNT {
        // Three intervals from before the call that sent the advert: the second one came after the first.
        let before_ns = due_ns + if index < BATCH { 0 } else { BATCH as u64 * SEND_NS };
        assert_eq!(entries.entry(index as u32).unwrap().lease().until_ns, before_ns + 300 * MS, "router {index}");
    }
    assert_eq!(*desk.wishes.borrow(), (0..COUNT).map(Wish::Take).collect::<Vec<_>>());
    wake(&mut routers, [], |_| &desk);
    assert_eq!(desk.calls.borrow().len(), 2, "nothing more is due");
}

/// Adverts every 100 ms, five turns: 20 ms after each other, eight of the forty at a time.
#[test]
fn who_took_over_together_takes_turns_from_then_on() {
    let (entries, desk) = (Entries::anonymous(COUNT as u32).unwrap(), Desk::default());
    let mut routers = routers(&entries, &desk);
    desk.now_ns.set(1_000 * MS + DOWN_NS);
    wake(&mut routers, [], |_| &desk);
    desk.calls.borrow_mut().clear();
    // The first turn after 1,360.9 ms, and two intervals.
    for turn in 0..10 {
        desk.now_ns.set((1_380 + 20 * turn) * MS);
        wake(&mut routers, [], |_| &desk);
    }
    assert_eq!(*desk.calls.borrow(), [8; 10]);
}

/// Adverts that came 10 us after each other end the Backups' patience 10 us after each other. At the first's deadline
/// those within 0.2 ms find a later advert in the map, and the others are left for another wake-up.
#[test]
fn a_wake_up_looks_after_who_is_due_soon() {
    let (entries, desk) = (Entries::anonymous(COUNT as u32).unwrap(), Desk::default());
    let mut routers = routers(&entries, &desk);
    let mut wake_after_adverts = |now_ns, first_advert_ns: u64| {
        for index in 0..COUNT as u32 {
            let heard = Heard { priority: 254, interval_cs: 10, ..Heard::default() };
            let at_ns = first_advert_ns + u64::from(index) * 10_000;
            let heard = Heard { last_advert_ns: at_ns, last_superior_ns: at_ns, ..heard };
            // SAFETY: the entries live, and nobody else writes to them here.
            unsafe { (*entries.router_ptr(index).unwrap()).heard = heard };
        }
        desk.now_ns.set(now_ns);
        wake(&mut routers, [], |_| &desk);
        routers.iter().map(|router| router.next_deadline().unwrap()).collect::<Vec<_>>()
    };
    let deadlines = |first_advert_ns| (0..COUNT as u64).map(move |index| first_advert_ns + index * 10_000 + DOWN_NS);

    // An interval after the start everybody looks.
    let old = wake_after_adverts(1_100 * MS, 1_090 * MS);
    assert_eq!(old, deadlines(1_090 * MS).collect::<Vec<_>>());
    let new = wake_after_adverts(old[0], 1_390 * MS);
    let expected: Vec<_> = deadlines(1_390 * MS).take(21).chain(deadlines(1_090 * MS).skip(21)).collect();
    assert_eq!(new, expected);
    assert_eq!(*desk.calls.borrow(), [0_usize; 0], "nobody is silent");
}

#[test]
fn an_advert_that_does_not_go_out_is_no_lease_and_no_other_routers_matter() {
    let (entries, desk) = (Entries::anonymous(COUNT as u32).unwrap(), Desk::default());
    let mut routers = routers(&entries, &desk);
    desk.now_ns.set(1_000 * MS + DOWN_NS);
    desk.refused_vrid.set(3);
    wake(&mut routers, [], |_| &desk);
    let without: Vec<_> =
        (0..COUNT).filter(|index| entries.entry(*index as u32).unwrap().lease().until_ns == 0).collect();
    assert_eq!(without, [2], "VRID 3 is the third");
    assert!(!desk.wishes.borrow().contains(&Wish::Take(2)));
    assert_eq!(desk.wishes.borrow().len(), COUNT - 1);
}

#[test]
fn who_is_not_due_is_left_alone() {
    let (entries, desk) = (Entries::anonymous(COUNT as u32).unwrap(), Desk::default());
    let mut routers = routers(&entries, &desk);
    desk.now_ns.set(1_000 * MS + DOWN_NS - 1);
    wake(&mut routers, [], |_| &desk);
    assert_eq!(desk.calls.borrow().len(), 0);
    assert_eq!(*desk.wishes.borrow(), []);
}

/// The invariant: no advert that claims or renews without a program that was seen, none that claims when something got
/// past it; one that gives up, always.
#[test]
fn without_a_program_nothing_is_claimed_or_renewed() {
    let (entries, desk) = (Entries::anonymous(COUNT as u32).unwrap(), Desk::default());
    let mut routers = routers(&entries, &desk);
    for (is_fenced, hears) in [(false, true), (true, false)] {
        desk.is_fenced.set(is_fenced);
        desk.hears.set(hears);
        desk.now_ns.set(desk.now_ns.get().max(1_000 * MS + DOWN_NS) + 10 * MS);
        wake(&mut routers, [], |_| &desk);
    }
    assert_eq!(*desk.calls.borrow(), [0_usize; 0], "claimed without a program that fences and hears");
    let is_leased = |index: u32| entries.entry(index).unwrap().lease().until_ns != 0;
    assert!(!(0..COUNT as u32).any(is_leased));

    desk.hears.set(true);
    for _ in 0..3 {
        desk.now_ns.set(desk.now_ns.get() + 12 * MS);
        wake(&mut routers, [], |_| &desk);
    }
    assert!((0..COUNT as u32).all(is_leased));

    // Who serves needs no ears to go on.
    let sent = |desk: &Desk| desk.calls.borrow().iter().sum::<usize>();
    let before = sent(&desk);
    desk.hears.set(false);
    desk.now_ns.set(desk.now_ns.get() + 100 * MS);
    wake(&mut routers, [], |_| &desk);
    assert_eq!(sent(&desk), before + COUNT);
    desk.is_fenced.set(false);
    desk.now_ns.set(desk.now_ns.get() + 100 * MS);
    wake(&mut routers, [], |_| &desk);
    assert_eq!(sent(&desk), before + COUNT, "renewed without a program");
    routers.iter_mut().for_each(|router| router.shut_down(&&desk));
    assert_eq!(sent(&desk), before + 2 * COUNT, "a release needs none");
}
