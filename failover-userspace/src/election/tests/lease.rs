//! What this crate adds to the RFCs for safety: the lease, the 2 ms before an Active that may still
//! be serving is replaced, the lapse, the resumption.

use State::{Active, Backup, Fault, Initialize};

use super::*;

/// The default router at 3.609375 s, its first advert just sent, in the middle of preempting a
/// router whose last advert came at `heard_at`.
fn preempting(heard_at: u64) -> Driver {
    let mut driver = Driver::started(parameters());
    driver.hear(advert(heard_at, 99));
    assert_eq!(driver.timeout(DOWN), [SEND, report(Backup, Active, Reason::Preempting)]);
    driver
}

/// When `Driver::active`'s lease ends.
const LEASE_END: u64 = DOWN + 3 * SECOND;

mod from_an_advert {
    use super::*;

    #[test]
    fn the_lease_counts_from_before_the_send() {
        let mut driver = Driver::started(parameters());
        driver.send_takes_ns = 300 * US;
        let actions = driver.timeout(DOWN);
        assert_eq!(actions[..2], [SEND, lease(LEASE_END)]);
    }

    #[test]
    fn a_backup_that_fires_half_a_millisecond_late_is_in_time_and_a_later_one_holds() {
        let mut driver = Driver::started(parameters());
        assert_eq!(driver.timeout(DOWN + 500 * US)[1], lease(LEASE_END + 500 * US));
        let mut driver = Driver::started(parameters());
        let late = DOWN + 500 * US + 1;
        assert_eq!(driver.timeout(late), [SEND, report(Backup, Active, Reason::Silence)]);
        assert_eq!(driver.deadline(), Some(late + HOLD));
        assert_eq!(driver.timeout(late + HOLD), [lease(late + 3 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn a_first_advert_that_left_late_holds_from_when_it_left() {
        let mut driver = Driver::started(parameters());
        driver.send_takes_ns = 600 * US;
        assert_eq!(driver.timeout(DOWN), [SEND, report(Backup, Active, Reason::Silence)]);
        assert_eq!(driver.deadline(), Some(DOWN + 600 * US + HOLD));
    }

    #[test]
    fn a_takeover_whose_advert_failed_serves_nothing() {
        let mut driver = Driver::started(parameters());
        driver.sends = Sends::Fail;
        assert_eq!(driver.timeout(DOWN), [SEND, report(Backup, Active, Reason::Silence)]);
        for _ in 0..50 {
            let (now, actions) = driver.next_timeout();
            assert!(!leases(&actions) && count(&actions, Action::TakeAddresses) == 0, "{now}: {actions:?}");
        }
    }

    #[test]
    fn a_failed_first_advert_is_retried_within_the_interval_and_then_held() {
        let mut driver = Driver::started(parameters());
        driver.sends = Sends::Fail;
        driver.timeout(DOWN);
        driver.sends = Sends::Succeed;
        let (retry, actions) = driver.next_timeout();
        assert!(retry > DOWN && retry <= DOWN + SECOND, "retried at {retry}");
        assert_eq!(actions, [SEND]);
        assert_eq!(driver.deadline(), Some(retry + HOLD));
        assert_eq!(driver.timeout(retry + HOLD - 1), []);
        assert_eq!(driver.timeout(retry + HOLD), [lease(retry + 3 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn a_failed_renewal_leaves_the_lease_as_it_was_and_is_retried_within_the_interval() {
        let mut driver = Driver::active();
        driver.sends = Sends::Fail;
        assert_eq!(driver.timeout(DOWN + SECOND), [SEND]);
        driver.sends = Sends::Succeed;
        let (retry, actions) = driver.next_timeout();
        assert!(retry > DOWN + SECOND && retry <= DOWN + 2 * SECOND, "retried at {retry}");
        assert_eq!(actions, [SEND, lease(retry + 3 * SECOND)]);
    }

    #[test]
    fn a_failed_answer_to_a_losing_advert_or_a_conflict_renews_nothing() {
        for input in [Input::Advert(advert(4 * SECOND, 99)), Input::Conflict, Input::Advert(advert(4 * SECOND, 0))] {
            let mut driver = Driver::active();
            driver.sends = Sends::Fail;
            let actions = driver.input(4 * SECOND, input);
            assert_eq!(count(&actions, SEND), 1);
            assert!(!leases(&actions), "{input:?}: {actions:?}");
        }
    }

    #[test]
    fn when_every_send_fails_the_lease_is_ended_and_nothing_is_leased_again() {
        let mut driver = Driver::active();
        driver.sends = Sends::Fail;
        let mut ended_at = None;
        while driver.deadline().unwrap() < LEASE_END + 5 * SECOND {
            let (now, actions) = driver.next_timeout();
            assert!(!leases(&actions), "{now}: {actions:?}");
            if count(&actions, NO_LEASE) > 0 {
                ended_at = ended_at.or(Some(now));
            }
        }
        let ended_at = ended_at.expect("the lapse must be noticed");
        assert!((LEASE_END..=LEASE_END + SECOND).contains(&ended_at), "at {ended_at}");
    }

    #[test]
    fn a_release_that_cannot_be_sent_does_not_keep_the_addresses() {
        let mut driver = Driver::active();
        driver.sends = Sends::Fail;
        assert_eq!(
            driver.input(4 * SECOND, Input::Shutdown),
            [NO_LEASE, RELEASE, Action::DropAddresses, report(Active, Initialize, Reason::Shutdown)]
        );
    }
}

mod the_hold {
    use super::*;

    #[test]
    fn a_live_active_is_preempted_by_an_advert_and_two_milliseconds_later_by_the_lease() {
        let mut driver = preempting(3_500 * MS);
        assert_eq!((driver.state(), driver.deadline()), (Active, Some(DOWN + HOLD)));
        assert_eq!(driver.timeout(DOWN + HOLD - 1), []);
        assert_eq!(driver.timeout(DOWN + HOLD), [lease(LEASE_END), Action::TakeAddresses]);
        assert_eq!(driver.deadline(), Some(DOWN + SECOND));
    }

    #[test]
    fn the_preempted_one_is_the_last_sign() {
        assert_eq!(preempting(3_500 * MS).last_signs.last(), Some(&Some(3_500 * MS)));
    }

    #[test]
    fn it_starts_no_earlier_than_the_send() {
        let mut driver = Driver::started(parameters());
        driver.hear(advert(3_500 * MS, 99));
        driver.send_takes_ns = MS;
        driver.timeout(DOWN);
        assert_eq!(driver.timeout(DOWN + HOLD - 1), []);
        assert_eq!(driver.timeout(DOWN + MS + HOLD), [lease(LEASE_END), Action::TakeAddresses]);
    }

    #[test]
    fn a_superior_advert_in_between_calls_the_takeover_off() {
        for (priority, source) in [(101, LESSER_ADDRESS), (255, GREATER_ADDRESS), (100, GREATER_ADDRESS)] {
            let mut driver = preempting(3_500 * MS);
            let actions = driver.hear(HeardAdvert { source, ..advert(DOWN + MS, priority) });
            assert!(!leases(&actions) && count(&actions, Action::TakeAddresses) == 0, "{actions:?}");
            assert_eq!(driver.state(), Backup);
            assert_eq!(driver.timeout(DOWN + HOLD), []);
            assert_eq!(driver.timeout(DOWN + SECOND), []);
            assert_eq!(driver.deadline(), Some(DOWN + MS + DOWN));
        }
    }

    #[test]
    fn a_lost_link_or_a_shutdown_in_between_calls_it_off() {
        for (input, state) in [(Input::LinkDown, Fault), (Input::Shutdown, Initialize)] {
            let mut driver = preempting(3_500 * MS);
            driver.input(DOWN + MS, input);
            assert_eq!(driver.state(), state);
            assert_eq!(driver.timeout(DOWN + HOLD), []);
        }
    }

    #[test]
    fn losing_adverts_in_between_are_answered_and_cannot_postpone_it_for_ever() {
        let mut driver = preempting(3_500 * MS);
        let mut leased_at = None;
        for tick in 1..=10 {
            let now = DOWN + tick * MS;
            let actions = driver.hear(advert(now, 99));
            assert_eq!(count(&actions, SEND), 1);
            if leased_at.is_none() {
                assert_eq!(count(&actions, Action::Announce), 0, "announced without a lease");
                leased_at = leases(&driver.timeout(now)).then_some(now);
            }
        }
        let leased_at = leased_at.expect("ten losing adverts must not stop a takeover");
        assert!((DOWN + HOLD..=DOWN + 2 * HOLD).contains(&leased_at), "{leased_at}");
    }

    #[test]
    fn it_counts_from_the_advert_and_not_from_the_wish_to_send_it() {
        let mut driver = Driver::started(parameters());
        driver.hear(advert(3_500 * MS, 99));
        driver.election.handle_timeout(DOWN);
        assert_eq!(driver.election.poll_action(), Some(SEND));
        // Stalled here for 5 ms: the other hears of us only now.
        let sent_at = DOWN + 5 * MS;
        driver.election.handle(sent_at, Input::AdvertSent { before_send_ns: sent_at });
        driver.apply(sent_at);
        assert!(!leases(&driver.timeout(sent_at)));
        assert!(!leases(&driver.timeout(sent_at + HOLD - 1)));
        assert_eq!(driver.timeout(sent_at + HOLD), [lease(sent_at + 3 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn it_counts_from_the_first_advert_that_left_and_not_from_one_that_failed() {
        let mut driver = Driver::started(parameters());
        driver.hear(advert(3_500 * MS, 99));
        driver.sends = Sends::Fail;
        driver.timeout(DOWN);
        driver.sends = Sends::Succeed;
        // The answer to a losing advert is the first that leaves.
        let sent_at = DOWN + 1_900 * US;
        assert_eq!(driver.hear(advert(sent_at, 99)), [SEND]);
        assert!(!leases(&driver.timeout(sent_at + HOLD - 1)), "the other may not have heard us yet");
        assert_eq!(driver.timeout(sent_at + HOLD), [lease(sent_at + 3 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn it_counts_from_a_retry_however_short_the_interval() {
        // 10 ms: 30 ms + 156/256 x 10 ms = 36.09375 ms; whatever part of it the retry waits.
        let mut driver = Driver::started(Parameters { advert_interval_cs: 1, ..parameters() });
        driver.hear(HeardAdvert { interval_cs: 1, ..advert(30 * MS, 99) });
        driver.sends = Sends::Fail;
        driver.timeout(36_093_750);
        driver.sends = Sends::Succeed;
        let (mut sent_at, mut actions) = driver.next_timeout();
        while count(&actions, SEND) == 0 {
            assert!(!leases(&actions), "{actions:?}");
            (sent_at, actions) = driver.next_timeout();
        }
        assert!(!leases(&driver.timeout(sent_at + HOLD - 1)));
        assert_eq!(driver.timeout(sent_at + HOLD), [lease(sent_at + 30 * MS), Action::TakeAddresses]);
    }

    #[test]
    fn the_owner_holds_at_startup() {
        let mut driver = Driver::new(owner());
        let actions = driver.input(SECOND, Input::Startup);
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(driver.deadline(), Some(SECOND + HOLD));
        assert_eq!(driver.timeout(SECOND + HOLD - 1), []);
        assert_eq!(driver.timeout(SECOND + HOLD), [lease(4 * SECOND), Action::TakeAddresses]);
        assert_eq!(driver.deadline(), Some(2 * SECOND));
    }

    #[test]
    fn an_active_may_be_alive_for_three_intervals_after_its_last_advert() {
        // Its last advert came 2.9 s ago: its lease may have 0.1 s to run.
        preempting(DOWN - 2_900 * MS);
    }

    #[test]
    fn an_active_is_dead_three_of_its_intervals_and_a_skew_after_its_last_advert() {
        let mut driver = Driver::started(parameters());
        // 3 x 100 ms after 100 ms.
        driver.hear(HeardAdvert { interval_cs: 10, ..advert(100 * MS, 99) });
        assert_eq!(
            driver.timeout(DOWN),
            [SEND, lease(LEASE_END), Action::TakeAddresses, report(Backup, Active, Reason::Silence)]
        );
    }

    #[test]
    fn an_active_with_a_longer_interval_than_ours_is_alive_for_three_of_its_own() {
        let mut driver = Driver::started(parameters());
        // Its lease may run until 30.1 s.
        driver.hear(HeardAdvert { interval_cs: 1000, ..advert(100 * MS, 99) });
        let actions = driver.timeout(DOWN);
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(driver.timeout(DOWN + HOLD), [lease(LEASE_END), Action::TakeAddresses]);
    }

    #[test]
    fn a_release_says_nothing_about_somebody_else_who_is_alive() {
        let mut driver = Driver::started(parameters());
        driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(SECOND, 99) });
        driver.hear(advert(1_100 * MS, 0));
        let actions = driver.timeout(1_100 * MS + SKEW);
        assert_eq!((count(&actions, SEND), driver.state()), (1, Active));
        assert!(!leases(&actions), "{actions:?}");
    }

    #[test]
    fn a_lower_router_that_was_quicker_after_a_release_is_preempted_with_a_hold() {
        let mut driver = Driver::started(parameters());
        driver.hear(advert(SECOND, 200));
        driver.hear(advert(2 * SECOND, 0));
        driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(2_500 * MS, 99) });
        let actions = driver.timeout(2 * SECOND + SKEW);
        assert_eq!((count(&actions, SEND), driver.state()), (1, Active));
        assert!(!leases(&actions), "{actions:?}");
        let actions = driver.timeout(2 * SECOND + SKEW + HOLD);
        assert_eq!(actions, [lease(5 * SECOND + SKEW), Action::TakeAddresses]);
    }

    #[test]
    fn a_release_by_the_only_one_alive_needs_no_hold() {
        let mut driver = Driver::started(parameters());
        driver.hear(advert(SECOND, 99));
        driver.hear(advert(1_100 * MS, 0));
        let actions = driver.timeout(1_100 * MS + SKEW);
        assert_eq!(
            actions,
            [SEND, lease(4_100 * MS + SKEW), Action::TakeAddresses, report(Backup, Active, Reason::Released)]
        );
    }

    #[test]
    fn a_stall_in_the_hold_does_not_take_addresses_with_a_dead_lease() {
        let mut driver = preempting(3_500 * MS);
        let now = LEASE_END + 7 * SECOND;
        let actions = driver.timeout(now);
        assert_eq!(count(&actions, Action::TakeAddresses), 0, "{actions:?}");
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(count(&actions, SEND), 1, "{actions:?}");
        assert_eq!(driver.timeout(now + HOLD), [lease(now + 3 * SECOND), Action::TakeAddresses]);
    }
}

mod the_lapse {
    use super::*;

    const LAPSED: Action =
        Action::Report(Transition { from: Active, to: Active, reason: Reason::Lapsed, last_sign_ns: None });

    #[test]
    fn a_renewal_in_the_last_nanosecond_is_no_lapse() {
        let mut driver = Driver::active();
        assert_eq!(driver.timeout(LEASE_END - 1), [SEND, lease(LEASE_END - 1 + 3 * SECOND)]);
    }

    #[test]
    fn a_lease_that_ran_out_is_ended_and_only_taken_again_after_the_hold() {
        for now in [LEASE_END, LEASE_END + 60 * SECOND] {
            let mut driver = Driver::active();
            assert_eq!(driver.timeout(now), [NO_LEASE, SEND, LAPSED]);
            assert_eq!(driver.last_signs.last(), Some(&Some(DOWN)), "our own last advert");
            assert_eq!((driver.state(), driver.deadline()), (Active, Some(now + HOLD)));
            assert_eq!(driver.timeout(now + HOLD - 1), []);
            assert_eq!(driver.timeout(now + HOLD), [lease(now + 3 * SECOND), Action::TakeAddresses]);
            assert_eq!(driver.deadline(), Some(now + SECOND));
        }
    }

    #[test]
    fn a_superior_advert_in_its_hold_makes_it_backup() {
        let mut driver = Driver::active();
        driver.timeout(LEASE_END);
        let actions = driver.hear(advert(LEASE_END + MS, 101));
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(driver.timeout(LEASE_END + HOLD), []);
        assert_eq!(driver.state(), Backup);
    }

    #[test]
    fn somebody_else_heard_since_serves_by_now_whatever_its_priority() {
        for (received_at_ns, priority) in [(LEASE_END, 99), (LEASE_END + 5 * SECOND, 1), (LEASE_END, 100)] {
            let mut driver = Driver::active();
            let heard = HeardAdvert { source: LESSER_ADDRESS, ..advert(received_at_ns, priority) };
            assert_eq!(
                driver.input(LEASE_END + 6 * SECOND, Input::Advert(heard)),
                [
                    NO_LEASE,
                    Action::DropAddresses,
                    report(Active, Backup, Reason::LapsedToOther { source: LESSER_ADDRESS })
                ]
            );
            assert_eq!(driver.state(), Backup);
            assert!(driver.deadline().is_some());
        }
    }

    #[test]
    fn having_stepped_back_it_preempts_with_a_hold_like_any_backup() {
        let mut driver = Driver::active();
        let mut now = LEASE_END + 10 * SECOND;
        driver.input(now, Input::Advert(advert(LEASE_END + SECOND, 99)));
        let mut sent_at = None;
        while sent_at.is_none() && now < LEASE_END + 20 * SECOND {
            now += 100 * MS;
            driver.hear(advert(now, 99));
            let actions = driver.timeout(now);
            assert!(!leases(&actions), "{actions:?}");
            sent_at = (count(&actions, SEND) == 1).then_some(now);
        }
        let sent_at = sent_at.expect("it must preempt in the end");
        assert_eq!(driver.timeout(sent_at + HOLD), [lease(sent_at + 3 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn a_losing_advert_from_before_the_lapse_proves_nothing_but_gives_no_lease_without_a_hold() {
        let mut driver = Driver::active();
        let now = LEASE_END + SECOND;
        let actions = driver.input(now, Input::Advert(advert(LEASE_END - 1, 99)));
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(driver.state(), Active);
        assert!(!leases(&driver.timeout(now)));
        assert!(!leases(&driver.timeout(now + HOLD - 1)));
        assert!(leases(&driver.timeout(now + HOLD)));
    }

    #[test]
    fn nothing_is_announced_once_the_lease_ran_out() {
        let now = LEASE_END + SECOND;
        for input in [Input::Conflict, Input::Advert(advert(now, 0)), Input::Advert(advert(LEASE_END - 1, 99))] {
            let mut driver = Driver::active();
            let actions = driver.input(now, input);
            assert_eq!(count(&actions, Action::Announce), 0, "{input:?}: {actions:?}");
        }
    }

    #[test]
    fn somebody_else_is_left_to_serve_even_if_a_conflict_noticed_the_lapse_first() {
        let now = LEASE_END + 5 * SECOND;
        let mut driver = Driver::active();
        driver.input(now, Input::Conflict);
        driver.input(now, Input::Advert(HeardAdvert { source: LESSER_ADDRESS, ..advert(LEASE_END + SECOND, 99) }));
        assert_eq!(driver.state(), Backup);
    }

    /// RFC 9568 6.4.3: the lower router that had taken over becomes a Backup when it hears the late advert.
    #[test]
    fn after_an_advert_that_left_too_late_a_lower_router_is_not_left_to_serve() {
        let now = LEASE_END + 5 * SECOND;
        let mut driver = Driver::active();
        driver.election.handle_timeout(DOWN + SECOND);
        assert_eq!(driver.election.poll_action(), Some(SEND));
        driver.election.handle(now, Input::AdvertSent { before_send_ns: now });
        driver.apply(now);
        let heard = HeardAdvert { source: LESSER_ADDRESS, ..advert(LEASE_END + SECOND, 99) };
        assert!(!leases(&driver.input(now, Input::Advert(heard))));
        assert!(!leases(&driver.timeout(now + HOLD - 1)));
        assert_eq!(driver.timeout(now + HOLD), [lease(now + 3 * SECOND), Action::TakeAddresses]);
    }

    /// It preempted, was stalled before the hold was over, and the other took over again meanwhile.
    #[test]
    fn a_hold_that_outlived_its_advert_begins_anew() {
        let mut driver = Driver::started(parameters());
        driver.hear(advert(DOWN - 100 * MS, 99));
        assert!(!leases(&driver.timeout(DOWN)), "it preempts");
        let now = DOWN + 5 * SECOND;
        assert!(!leases(&driver.input(now, Input::Advert(advert(now - MS, 99)))));
        assert!(!leases(&driver.timeout(now)));
        assert!(!leases(&driver.timeout(now + HOLD - 1)));
        assert!(leases(&driver.timeout(now + HOLD)));
    }

    #[test]
    fn an_advert_that_left_when_its_own_lease_was_over_is_sent_again() {
        let now = LEASE_END + 5 * SECOND;
        let mut driver = Driver::active();
        driver.election.handle_timeout(DOWN + SECOND);
        assert_eq!(driver.election.poll_action(), Some(SEND));
        driver.election.handle(now, Input::AdvertSent { before_send_ns: DOWN + SECOND });
        let actions = driver.apply(now);
        assert_eq!((count(&actions, NO_LEASE), count(&actions, SEND)), (1, 1), "{actions:?}");
        assert!(leases(&driver.timeout(now + HOLD)));
    }

    #[test]
    fn a_conflict_or_a_release_after_the_lapse_gives_no_lease_without_a_hold() {
        let now = LEASE_END + SECOND;
        for input in [Input::Conflict, Input::Advert(advert(now, 0))] {
            let mut driver = Driver::active();
            let actions = driver.input(now, input);
            assert!(!leases(&actions), "{input:?}: {actions:?}");
            assert!(!leases(&driver.timeout(now)));
            assert!(!leases(&driver.timeout(now + HOLD - 1)));
            assert!(leases(&driver.timeout(now + HOLD)), "{input:?}");
        }
    }

    #[test]
    fn an_advert_that_left_after_the_lease_had_ended_is_no_renewal() {
        let mut driver = Driver::active();
        driver.election.handle_timeout(DOWN + SECOND);
        assert_eq!(driver.election.poll_action(), Some(SEND));
        // Stalled here: the clock is read, and the advert leaves, when the lease is over.
        let late = LEASE_END + 5 * SECOND;
        driver.election.handle(late, Input::AdvertSent { before_send_ns: late });
        let actions = driver.apply(late);
        assert!(!leases(&actions), "{actions:?}");
        assert!(!leases(&driver.timeout(late + HOLD - 1)));
        assert!(leases(&driver.timeout(late + 2 * HOLD)));
    }

    #[test]
    fn the_last_sign_after_a_lapse_is_the_last_advert_that_left() {
        let mut driver = Driver::active();
        driver.timeout(DOWN + SECOND);
        driver.sends = Sends::Fail;
        driver.timeout(DOWN + 2 * SECOND);
        driver.timeout(DOWN + 4 * SECOND);
        assert_eq!(driver.last_signs.last(), Some(&Some(DOWN + SECOND)));
    }
}

mod resuming {
    use super::*;

    /// What a driver does: the input, and the timeout if that is due at once.
    fn resume(driver: &mut Driver, now: u64, lease_until_ns: u64) -> Vec<Action> {
        let mut actions = driver.input(now, Input::Resume { lease_until_ns });
        if driver.deadline() == Some(now) {
            actions.extend(driver.timeout(now));
        }
        actions
    }

    #[test]
    fn a_live_lease_is_renewed_at_once() {
        let mut driver = Driver::new(parameters());
        let actions = resume(&mut driver, 10 * SECOND, 10 * SECOND + 1);
        for wanted in [SEND, lease(13 * SECOND), report(Initialize, Active, Reason::Resumed)] {
            assert_eq!(count(&actions, wanted), 1, "{wanted:?} in {actions:?}");
        }
        assert_eq!((driver.state(), driver.deadline()), (Active, Some(11 * SECOND)));
    }

    #[test]
    fn a_failed_send_leaves_the_found_lease_until_it_lapses() {
        let mut driver = Driver::new(parameters());
        driver.sends = Sends::Fail;
        let actions = resume(&mut driver, 10 * SECOND, 12 * SECOND);
        assert_eq!(count(&actions, SEND), 1);
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(driver.state(), Active);
        let actions = driver.timeout(12 * SECOND);
        assert_eq!(count(&actions, NO_LEASE), 1);
    }

    #[test]
    fn a_lease_that_ran_out_meanwhile_is_not_renewed_without_a_hold() {
        let mut driver = Driver::new(parameters());
        let actions = resume(&mut driver, 10 * SECOND, 10 * SECOND);
        assert_eq!(count(&actions, SEND), 1);
        assert!(!leases(&actions), "{actions:?}");
        assert_eq!(driver.timeout(10 * SECOND + HOLD), [lease(13 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn a_superior_advert_ends_the_found_lease() {
        let mut driver = Driver::new(parameters());
        driver.sends = Sends::Fail;
        resume(&mut driver, 10 * SECOND, 12 * SECOND);
        let actions = driver.hear(advert(10_100 * MS, 101));
        assert_eq!(actions[..3], [NO_LEASE, SEND, Action::DropAddresses]);
    }
}
