//! What this crate adds to the RFCs for peace: the preemption delay, the defence of the addresses.

use State::{Active, Backup};

use super::*;

/// Its turn is 0.25 s after each full second: `DOWN` is 3.609375 s.
mod taking_turns {
    use super::*;

    fn active() -> Driver {
        let mut driver = Driver::started(Parameters { turn_ns: Some(250 * MS), ..parameters() });
        assert_eq!(driver.deadline(), Some(DOWN), "a takeover waits for no turn");
        driver.timeout(DOWN);
        driver
    }

    #[test]
    fn the_second_advert_comes_at_its_turn_and_then_one_every_interval() {
        let mut driver = active();
        for now in (4..100).map(|second| second * SECOND + 250 * MS) {
            assert_eq!(driver.deadline(), Some(now));
            assert_eq!(driver.timeout(now), [SEND, lease(now + 3 * SECOND)]);
        }
    }

    /// 0.4 ms are not counted; who was stalled goes on at its next turn.
    #[test]
    fn who_is_late_keeps_its_turn() {
        let mut driver = active();
        driver.timeout(4_250 * MS + 400_000);
        assert_eq!(driver.deadline(), Some(5_250 * MS));
        driver.timeout(6_600 * MS);
        assert_eq!(driver.deadline(), Some(7_250 * MS));
    }

    #[test]
    fn an_advert_in_between_does_not_move_it() {
        let mut driver = active();
        assert_eq!(driver.hear(advert(4_100 * MS, 0)), [SEND, lease(7_100 * MS)]);
        assert_eq!(driver.deadline(), Some(4_250 * MS));
        driver.hear(advert(4_300 * MS, 99));
        assert_eq!(driver.deadline(), Some(5_250 * MS), "before its turn, which is 50 ms ago, comes again");
    }
}

mod the_preemption_delay {
    use super::*;

    fn delayed() -> Driver {
        Driver::started(Parameters { preempt_delay_ns: 5 * SECOND, ..parameters() })
    }

    #[test]
    fn a_lower_active_is_left_alone_until_the_delay_is_over() {
        let mut driver = delayed();
        // The delay runs from 0.5 s to 5.5 s.
        for now in [500, 1_400].map(|ms| ms * MS) {
            assert_eq!(driver.hear(advert(now, 99)), []);
            assert_eq!(driver.deadline(), Some(now + DOWN), "unless it is silent before");
        }
        for now in [2_400, 3_400, 4_400, 5_400].map(|ms| ms * MS) {
            assert_eq!(driver.hear(advert(now, 99)), []);
            assert_eq!(driver.deadline(), Some(5_500 * MS));
        }
        let now = 5_500 * MS;
        assert_eq!(driver.timeout(now), [SEND, report(Backup, Active, Reason::Preempting)]);
        assert_eq!(driver.timeout(now + HOLD), [lease(now + 3 * SECOND), Action::TakeAddresses]);
    }

    #[test]
    fn it_takes_nothing_from_the_timer_that_runs_since_the_start() {
        let mut driver = Driver::started(Parameters { preempt_delay_ns: SECOND, ..parameters() });
        for now in [500, 1_400, 2_400, 3_400].map(|ms| ms * MS) {
            driver.hear(advert(now, 99));
            assert_eq!(driver.deadline(), Some(DOWN));
        }
    }

    #[test]
    fn a_lower_active_that_dies_within_the_delay_is_replaced_like_any() {
        let mut driver = delayed();
        driver.hear(advert(500 * MS, 99));
        let now = 500 * MS + DOWN;
        assert_eq!(
            driver.timeout(now),
            [SEND, lease(now + 3 * SECOND), Action::TakeAddresses, report(Backup, Active, Reason::Silence)]
        );
    }

    /// A lower router spoke up once and stepped back, as far as this one can know; then the Active gives up.
    #[test]
    fn a_release_ends_it() {
        let mut driver = delayed();
        driver.hear(advert(3 * SECOND, 200));
        driver.hear(HeardAdvert { source: LESSER_ADDRESS, ..advert(3_100 * MS, 99) });
        driver.hear(advert(3_200 * MS, 0));
        // 156/256 s = 609.375 ms.
        assert_eq!(driver.deadline(), Some(3_809_375_000));
    }

    #[test]
    fn nobody_to_preempt_is_nobody_to_wait_for() {
        assert_eq!(delayed().deadline(), Some(DOWN));
    }

    #[test]
    fn an_advert_of_at_least_our_priority_restarts_it() {
        for priority in [100, 101] {
            let mut driver = delayed();
            driver.hear(advert(SECOND, 99));
            driver.hear(advert(5 * SECOND, priority));
            // Without the restart the delay would have been over at 6 s; now it runs from 6.5 s to 11.5 s.
            driver.hear(advert(6_500 * MS, 99));
            assert_eq!(driver.deadline(), Some(6_500 * MS + DOWN));
            driver.hear(advert(9 * SECOND, 99));
            assert_eq!(driver.deadline(), Some(11_500 * MS));
        }
    }

    #[test]
    fn it_starts_again_with_every_stay_in_backup() {
        let mut driver = delayed();
        driver.hear(advert(SECOND, 99));
        driver.input(2 * SECOND, Input::LinkDown);
        driver.input(7 * SECOND, Input::LinkUp);
        driver.hear(advert(8 * SECOND, 99));
        assert_eq!(driver.deadline(), Some(8 * SECOND + DOWN));
    }
}

mod the_defence {
    use super::*;

    #[test]
    fn every_provocation_is_answered_with_one_advert_and_at_most_ten_announcements_a_second() {
        let start = 100 * SECOND;
        for provoke in [(|now| Input::Advert(advert(now, 99))) as fn(u64) -> Input, |_| Input::Conflict] {
            let mut driver = Driver::new(parameters());
            driver.input(start - SECOND, Input::Resume { lease_until_ns: start });
            let mut announced = Vec::new();
            for ms in [0, 1, 50, 99, 101, 150, 200, 202, 350] {
                let now = start - 500 * MS + ms * MS;
                let actions = driver.input(now, provoke(now));
                assert_eq!(count(&actions, SEND), 1, "{ms} ms");
                assert_eq!(count(&actions, lease(now + 3 * SECOND)), 1, "{ms} ms");
                if count(&actions, Action::Announce) == 1 {
                    announced.push(ms);
                }
            }
            assert_eq!(announced, [0, 101, 202, 350]);
        }
    }

    #[test]
    fn the_limit_is_shared_by_losing_adverts_and_conflicts() {
        let mut driver = Driver::active();
        assert_eq!(count(&driver.input(4_200 * MS, Input::Conflict), Action::Announce), 1);
        assert_eq!(count(&driver.hear(advert(4_250 * MS, 99)), Action::Announce), 0);
    }

    #[test]
    fn a_claim_within_the_gap_is_answered_at_its_end_so_that_the_last_word_is_ours() {
        let mut driver = Driver::active();
        driver.input(4_200 * MS, Input::Conflict);
        driver.input(4_250 * MS, Input::Conflict);
        assert_eq!(driver.deadline(), Some(4_300 * MS));
        assert_eq!(driver.timeout(4_300 * MS - 1), []);
        assert_eq!(driver.timeout(4_300 * MS), [Action::Announce]);
        assert_eq!(driver.deadline(), Some(5_250 * MS), "the advert that answered the second claim, and a second");
    }

    #[test]
    fn who_served_and_gives_way_says_so_once_so_that_the_better_one_announces() {
        let mut loser = Driver::active();
        let yielding = loser.hear(advert(4 * SECOND, 101));
        assert_eq!(yielding, [NO_LEASE, SEND, Action::DropAddresses, report(Active, Backup, superior(101))]);
        assert_eq!(loser.hear(advert(5 * SECOND, 101)), []);
        // The better one's answer to a losing advert.
        assert_eq!(count(&Driver::active().hear(advert(4 * SECOND, 99)), Action::Announce), 1);

        // Nobody has learned of one that did not serve yet, or whose lease had run out.
        let mut holding = Driver::started(parameters());
        holding.hear(advert(SECOND, 99));
        holding.timeout(DOWN);
        assert_eq!(count(&holding.hear(advert(DOWN + MS, 101)), SEND), 0);
        let mut late = Driver::active();
        let heard = advert(DOWN + 3 * SECOND, 101);
        assert_eq!(count(&late.input(DOWN + 4 * SECOND, Input::Advert(heard)), SEND), 0);
    }

    #[test]
    fn it_never_silences_the_regular_adverts() {
        let mut driver = Driver::active();
        let mut last_sent = DOWN;
        for tick in 1..=100 {
            let now = DOWN + tick * 90 * MS;
            let provoked = driver.input(now, Input::Conflict);
            let due = driver.timeout(now);
            if count(&provoked, SEND) + count(&due, SEND) > 0 {
                last_sent = now;
            }
            assert!(now - last_sent <= SECOND && driver.deadline().unwrap() <= now + SECOND);
        }
    }
}
