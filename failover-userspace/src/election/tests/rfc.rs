//! What RFC 9568 (version 3) and RFC 3768 (version 2) ask, one sentence per test.

use State::{Active, Backup};

use super::*;

/// Startup at 0 in Backup: when its Active_Down_Timer fires.
fn first_deadline(version: u8, priority: u8, advert_interval_cs: u16) -> Option<u64> {
    Driver::started(Parameters { version, priority, advert_interval_cs, ..parameters() }).deadline()
}

fn nonpreempting() -> Parameters {
    Parameters { preempt: false, ..parameters() }
}

#[test]
fn rfc9568_6_1_version_3_waits_three_intervals_and_a_skew_that_scales_with_the_interval() {
    // 3 x 1 s + 156/256 x 1 s.
    assert_eq!(first_deadline(3, 100, 100), Some(3_609_375_000));
    // 3 x 1 s + 56/256 x 1 s.
    assert_eq!(first_deadline(3, 200, 100), Some(3_218_750_000));
    // 3 x 10 ms + 2/256 x 10 ms = 30 ms + 78.125 us.
    assert_eq!(first_deadline(3, 254, 1), Some(30_078_125));
    // 3 x 4 s + 255/256 x 4 s.
    assert_eq!(first_deadline(3, 1, 400), Some(15_984_375_000));
    // The largest Max Advertise Interval, 40.95 s: 122.85 s + 128/256 x 40.95 s.
    assert_eq!(first_deadline(3, 128, 4095), Some(143_325_000_000));
}

#[test]
fn rfc3768_6_1_version_2_skews_by_a_fraction_of_one_second_whatever_the_interval() {
    // 3 x 1 s + 156/256 s.
    assert_eq!(first_deadline(2, 100, 100), Some(3_609_375_000));
    // 3 x 3 s + 156/256 s.
    assert_eq!(first_deadline(2, 100, 300), Some(9_609_375_000));
    // 3 x 10 s + 2/256 s.
    assert_eq!(first_deadline(2, 254, 1000), Some(30_007_812_500));
}

#[test]
fn rfc3768_6_4_2_version_2_takes_over_one_skew_after_a_release() {
    let mut driver = Driver::started(Parameters { version: 2, advert_interval_cs: 300, ..parameters() });
    driver.hear(HeardAdvert { interval_cs: 300, ..advert(SECOND, 200) });
    assert_eq!(driver.deadline(), Some(SECOND + 9_609_375_000));
    driver.hear(HeardAdvert { interval_cs: 300, ..advert(2 * SECOND, 0) });
    assert_eq!(driver.deadline(), Some(2_609_375_000), "156/256 s after the release, not 3 x that");
}

#[test]
fn rfc3768_6_4_3_version_2_leases_three_of_its_intervals() {
    let mut driver = Driver::started(Parameters { version: 2, advert_interval_cs: 300, ..parameters() });
    let actions = driver.timeout(9_609_375_000);
    assert_eq!(actions[..2], [SEND, lease(18_609_375_000)]);
    assert_eq!(driver.deadline(), Some(12_609_375_000));
}

#[test]
fn rfc9568_6_4_1_the_owner_becomes_active_at_startup() {
    for preempt in [true, false] {
        let mut driver = Driver::new(Parameters { preempt, preempt_delay_ns: 60 * SECOND, ..owner() });
        let actions = driver.input(SECOND, Input::Startup);
        assert_eq!(
            actions,
            [Action::SendAdvert { priority: 255 }, report(State::Initialize, Active, Reason::Owner)],
            "preempt {preempt}"
        );
        assert_eq!(driver.state(), Active);
        assert_eq!(driver.last_signs, [None]);
    }
}

#[test]
fn rfc9568_6_4_1_priority_254_is_not_the_owner() {
    let mut driver = Driver::new(Parameters { priority: 254, ..parameters() });
    assert_eq!(driver.input(0, Input::Startup), [report(State::Initialize, Backup, Reason::Startup)]);
}

#[test]
fn rfc9568_6_4_2_an_advert_is_judged_by_when_it_was_received() {
    let mut driver = Driver::started(parameters());
    // Received at 1 s, handled 200 ms later.
    driver.input(1_200 * MS, Input::Advert(advert(SECOND, 200)));
    assert_eq!(driver.deadline(), Some(SECOND + DOWN));
}

#[test]
fn rfc9568_6_4_2_backup_stays_silent_while_better_adverts_come() {
    let mut driver = Driver::started(parameters());
    for second in 1..=60 {
        assert_eq!(driver.hear(advert(second * SECOND, 200)), []);
        assert_eq!(driver.timeout(second * SECOND), []);
        assert_eq!(driver.deadline(), Some(second * SECOND + DOWN));
    }
    assert_eq!(driver.timeout(60 * SECOND + DOWN - 1), []);
    assert_eq!(driver.state(), Backup);
}

#[test]
fn rfc9568_6_4_2_the_timer_firing_makes_it_active() {
    let mut driver = Driver::started(parameters());
    driver.hear(advert(10 * SECOND, 200));
    let now = 13_609_375_000;
    assert_eq!(driver.timeout(now - 1), []);
    assert_eq!(
        driver.timeout(now),
        [SEND, lease(16_609_375_000), Action::TakeAddresses, report(Backup, Active, Reason::Silence)]
    );
    assert_eq!(driver.last_signs.last(), Some(&Some(10 * SECOND)), "the last sign of the Active");
    assert_eq!(driver.deadline(), Some(14_609_375_000));
}

#[test]
fn rfc9568_6_4_2_backup_learns_the_actives_interval() {
    let mut driver = Driver::started(parameters());
    // 3 x 200 ms + 156/256 x 200 ms = 600 ms + 121.875 ms.
    driver.hear(HeardAdvert { interval_cs: 20, ..advert(SECOND, 200) });
    assert_eq!(driver.deadline(), Some(1_721_875_000));
    // 3 x 2 s + 156/256 x 2 s = 6 s + 1.21875 s.
    driver.hear(HeardAdvert { interval_cs: 200, ..advert(1_500 * MS, 200) });
    assert_eq!(driver.deadline(), Some(8_718_750_000));
    // As Active it advertises, and leases, with its own interval: section 6.1.
    let actions = driver.timeout(8_718_750_000);
    assert_eq!(actions[..2], [SEND, lease(11_718_750_000)]);
    assert_eq!(driver.deadline(), Some(9_718_750_000));
}

#[test]
fn rfc9568_6_4_1_what_was_learned_is_forgotten_at_the_next_start() {
    let mut driver = Driver::started(parameters());
    driver.hear(HeardAdvert { interval_cs: 1000, ..advert(SECOND, 200) });
    assert_eq!(driver.deadline(), Some(37_093_750_000), "1 s + 30 s + 156/256 x 10 s");
    driver.input(2 * SECOND, Input::LinkDown);
    driver.input(3 * SECOND, Input::LinkUp);
    assert_eq!(driver.deadline(), Some(3 * SECOND + DOWN));
}

#[test]
fn rfc9568_6_4_2_a_release_sets_the_timer_to_the_learned_skew() {
    let mut driver = Driver::started(parameters());
    driver.hear(HeardAdvert { interval_cs: 200, ..advert(SECOND, 200) });
    // The release's own interval is not learned: 156/256 x 2 s = 1.21875 s.
    driver.hear(HeardAdvert { interval_cs: 4000, ..advert(2 * SECOND, 0) });
    assert_eq!(driver.deadline(), Some(3_218_750_000));
    assert_eq!(
        driver.timeout(3_218_750_000),
        [SEND, lease(6_218_750_000), Action::TakeAddresses, report(Backup, Active, Reason::Released)]
    );
}

#[test]
fn rfc9568_6_4_2_a_better_advert_after_a_release_calls_the_takeover_off() {
    let mut driver = Driver::started(parameters());
    driver.hear(advert(SECOND, 200));
    driver.hear(advert(2 * SECOND, 0));
    assert_eq!(driver.deadline(), Some(2 * SECOND + SKEW));
    driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(2_300 * MS, 150) });
    assert_eq!(driver.deadline(), Some(2_300 * MS + DOWN));
    // And when that one falls silent, silence is the reason.
    let actions = driver.timeout(2_300 * MS + DOWN);
    assert_eq!(actions.last(), Some(&report(Backup, Active, Reason::Silence)));
}

#[test]
fn rfc9568_6_4_2_preempt_mode_discards_lower_adverts_and_lets_the_timer_run() {
    let mut driver = Driver::started(parameters());
    for tenth in 1..=36 {
        // Nor is anything learned from them.
        assert_eq!(driver.hear(HeardAdvert { interval_cs: 10, ..advert(tenth * 100 * MS, 99) }), []);
        assert_eq!(driver.deadline(), Some(DOWN));
    }
    let actions = driver.timeout(DOWN);
    assert_eq!(actions, [SEND, report(Backup, Active, Reason::Preempting)]);
}

#[test]
fn rfc9568_6_4_2_without_preempt_mode_lower_adverts_count_like_any() {
    let mut driver = Driver::started(nonpreempting());
    for second in 1..=60 {
        assert_eq!(driver.hear(advert(second * SECOND, 1)), []);
        assert_eq!(driver.deadline(), Some(second * SECOND + DOWN));
    }
    // Learned, too: 3 x 500 ms + 156/256 x 500 ms.
    driver.hear(HeardAdvert { interval_cs: 50, ..advert(61 * SECOND, 1) });
    assert_eq!(driver.deadline(), Some(62_804_687_500));
    // That one falls silent: nobody is preempted.
    let actions = driver.timeout(62_804_687_500);
    assert_eq!(actions, [SEND, lease(65_804_687_500), Action::TakeAddresses, report(Backup, Active, Reason::Silence)]);
}

#[test]
fn rfc9568_6_4_2_an_equal_priority_is_never_preempted_whatever_its_address() {
    for source in [LESSER_ADDRESS, GREATER_ADDRESS] {
        let mut driver = Driver::started(parameters());
        driver.hear(HeardAdvert { source, ..advert(3 * SECOND, 100) });
        assert_eq!(driver.deadline(), Some(3 * SECOND + DOWN), "{source:?}");
    }
}

#[test]
fn rfc9568_6_4_3_adverts_go_out_every_interval() {
    let mut driver = Driver::active();
    for beat in 1..=100 {
        let now = DOWN + beat * SECOND;
        assert_eq!(driver.deadline(), Some(now));
        assert_eq!(driver.timeout(now - 1), []);
        assert_eq!(driver.timeout(now), [SEND, lease(now + 3 * SECOND)]);
    }
}

/// RFC 9568 6.4.3: each comes an interval after the one before. A thread that wakes a little late each time must not make
/// the intervals longer, and one that was stalled must not send in a hurry what it owes.
#[test]
fn rfc9568_6_4_3_what_a_wake_up_is_late_does_not_add_up() {
    const LITTLE: u64 = 400_000;
    let mut driver = Driver::active();
    for beat in 1..=100 {
        let due = DOWN + beat * SECOND;
        assert_eq!(driver.deadline(), Some(due));
        assert_eq!(driver.timeout(due + LITTLE), [SEND, lease(due + LITTLE + 3 * SECOND)]);
    }
    let stalled = DOWN + 102 * SECOND + SECOND / 2;
    assert_eq!(driver.timeout(stalled), [SEND, lease(stalled + 3 * SECOND)]);
    assert_eq!(driver.deadline(), Some(stalled + SECOND));
}

#[test]
fn rfc9568_6_4_3_a_greater_priority_wins_whatever_its_address() {
    for source in [LESSER_ADDRESS, GREATER_ADDRESS] {
        let mut driver = Driver::active();
        let actions = driver.hear(HeardAdvert { source, ..advert(4 * SECOND, 101) });
        assert_eq!(actions[..3], [NO_LEASE, SEND, Action::DropAddresses]);
        assert_eq!(driver.state(), Backup);
    }
}

#[test]
fn rfc9568_6_4_3_a_lower_priority_loses_whatever_its_address() {
    for source in [LESSER_ADDRESS, GREATER_ADDRESS] {
        let mut driver = Driver::active();
        let actions = driver.hear(HeardAdvert { source, ..advert(4 * SECOND, 99) });
        assert_eq!((count(&actions, SEND), driver.state()), (1, Active));
    }
}

#[test]
fn rfc9568_6_4_3_a_tie_is_broken_by_the_greater_address_unsigned_in_network_order() {
    // .128 is greater than .2 only when unsigned; 10.0.0.255 is less than 10.0.1.0 only in network order.
    let tie = |own: [u8; 4], peer: [u8; 4]| {
        let mut driver = Driver::started(Parameters { own_address: Address::from_ipv4(own), ..parameters() });
        driver.timeout(DOWN);
        driver.hear(HeardAdvert { source: Address::from_ipv4(peer), ..advert(4 * SECOND, 100) });
        driver.state()
    };
    assert_eq!(tie([192, 0, 2, 2], [192, 0, 2, 128]), Backup);
    assert_eq!(tie([192, 0, 2, 128], [192, 0, 2, 2]), Active);
    assert_eq!(tie([10, 0, 1, 0], [10, 0, 0, 255]), Active);
    assert_eq!(tie([10, 0, 0, 255], [10, 0, 1, 0]), Backup);
}

#[test]
fn rfc9568_6_4_3_stepping_back_learns_the_winners_interval() {
    let mut driver = Driver::active();
    driver.input(4_100 * MS, Input::Advert(HeardAdvert { interval_cs: 200, ..advert(4 * SECOND, 200) }));
    // 4 s + 3 x 2 s + 156/256 x 2 s.
    assert_eq!(driver.deadline(), Some(11_218_750_000));
}

#[test]
fn rfc9568_6_4_3_preempt_mode_is_not_consulted_in_active() {
    let mut driver = Driver::started(nonpreempting());
    driver.timeout(DOWN);
    assert_eq!(count(&driver.hear(advert(4 * SECOND, 99)), SEND), 1);
    assert_eq!(driver.state(), Active);
    driver.hear(advert(4 * SECOND, 101));
    assert_eq!(driver.state(), Backup);
}

#[test]
fn rfc9568_6_4_3_a_release_is_answered_at_once_and_resets_the_advert_timer() {
    let mut driver = Driver::active();
    let actions = driver.hear(advert(4 * SECOND, 0));
    assert_eq!(actions[..2], [SEND, lease(7 * SECOND)]);
    assert_eq!((driver.state(), driver.deadline()), (Active, Some(5 * SECOND)));
}

#[test]
fn rfc9568_6_4_3_shutdown_releases() {
    let mut driver = Driver::active();
    assert_eq!(
        driver.input(4 * SECOND, Input::Shutdown),
        [NO_LEASE, RELEASE, Action::DropAddresses, report(Active, State::Initialize, Reason::Shutdown)]
    );
}

#[test]
fn rfc9568_6_4_2_a_backups_shutdown_is_silent() {
    let mut driver = Driver::started(parameters());
    assert_eq!(count(&driver.input(SECOND, Input::Shutdown), RELEASE), 0);
}

#[test]
fn erratum_8298_of_two_owners_the_lesser_address_steps_back() {
    let mut driver = Driver::started(owner());
    driver.timeout(HOLD);
    let lesser = driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(500 * MS, 255) });
    assert_eq!((count(&lesser, Action::SendAdvert { priority: 255 }), driver.state()), (1, Active));
    let greater = driver.hear(advert(600 * MS, 255));
    let last_word = Action::SendAdvert { priority: 255 };
    assert_eq!(greater, [NO_LEASE, last_word, Action::DropAddresses, report(Active, Backup, superior(255))]);
    // 3 x 1 s + 1/256 s later.
    assert_eq!(driver.deadline(), Some(600 * MS + 3_003_906_250));
}

#[test]
fn rfc9568_6_4_3_and_erratum_8298_hold_in_version_2_too() {
    // RFC 3768 has a losing advert discarded in silence and an owner deaf: two Actives then stay two.
    let mut driver = Driver::started(Parameters { version: 2, ..parameters() });
    driver.timeout(DOWN);
    assert_eq!((count(&driver.hear(advert(4 * SECOND, 99)), SEND), driver.state()), (1, Active));

    let mut driver = Driver::started(Parameters { version: 2, ..owner() });
    driver.timeout(HOLD);
    let lesser = driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(500 * MS, 255) });
    assert_eq!((count(&lesser, Action::SendAdvert { priority: 255 }), driver.state()), (1, Active));
    driver.hear(advert(600 * MS, 255));
    assert_eq!(driver.state(), Backup);
}

#[test]
fn rfc9568_6_1_the_owner_preempts_whatever_preempt_mode_says() {
    let mut driver = Driver::started(Parameters { preempt: false, ..owner() });
    driver.timeout(HOLD);
    driver.hear(advert(500 * MS, 255));
    assert_eq!(driver.state(), Backup);
    // The other owner went away and somebody of priority 254 serves.
    for tenth in 6..=34 {
        driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(tenth * 100 * MS, 254) });
    }
    assert_eq!(driver.deadline(), Some(3_503_906_250), "500 ms + 3 x 1 s + 1/256 s");
}
