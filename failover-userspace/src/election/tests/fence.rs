//! The kernel program is found missing. The driver lets no advert out until it is back, so each is answered by
//! `AdvertFailed`.

use State::{Active, Backup, Fault};

use super::*;

/// The default router, leased until `DOWN` + 3 s, whose program was found missing at 4 s.
fn unfenced() -> Driver {
    let mut driver = Driver::active();
    assert_eq!(driver.input(4 * SECOND, Input::FenceLost), []);
    driver.sends = Sends::Fail;
    driver
}

#[test]
fn an_active_whose_program_is_back_in_time_carries_on_and_renews_at_once() {
    let mut driver = unfenced();
    while driver.deadline().is_some_and(|at_ns| at_ns < 5 * SECOND) {
        let (_, actions) = driver.next_timeout();
        assert_eq!(actions, [SEND], "tried, and nothing comes of it");
    }
    driver.sends = Sends::Succeed;
    assert_eq!(driver.input(5 * SECOND, Input::FenceBack), [SEND, lease(8 * SECOND)]);
    assert_eq!((driver.state(), driver.deadline()), (Active, Some(6 * SECOND)));
}

#[test]
fn an_active_whose_program_is_not_back_gives_up_an_interval_before_anybody_may_take_over() {
    let mut driver = unfenced();
    let gave_up = loop {
        let (at_ns, actions) = driver.next_timeout();
        if driver.state() != Active {
            assert_eq!(actions, [NO_LEASE, Action::DropAddresses, report(Active, Fault, Reason::FenceLost)]);
            break at_ns;
        }
        assert_eq!(actions, [SEND]);
    };
    // The lease, DOWN + 3 s, less an interval.
    assert_eq!(gave_up, DOWN + 2 * SECOND);
    assert_eq!(driver.deadline(), None, "Fault waits for the program, not for a time");
}

#[test]
fn a_program_that_is_found_missing_too_late_is_not_waited_for() {
    let mut driver = Driver::active();
    driver.sends = Sends::Fail;
    let actions = driver.input(DOWN + 2 * SECOND, Input::FenceLost);
    assert_eq!(actions, [NO_LEASE, Action::DropAddresses, report(Active, Fault, Reason::FenceLost)]);
}

#[test]
fn a_backup_that_was_deaf_listens_for_a_whole_active_down_interval() {
    let mut driver = Driver::started(parameters());
    driver.input(SECOND, Input::FenceLost);
    assert_eq!((driver.state(), driver.deadline()), (Fault, None));
    assert_eq!(driver.input(3 * SECOND, Input::FenceBack), [report(Fault, Backup, Reason::FenceBack)]);
    assert_eq!(driver.deadline(), Some(3 * SECOND + DOWN));
}

#[test]
fn an_active_without_its_program_that_hears_a_better_router_listens_only_when_the_program_is_back() {
    let mut driver = unfenced();
    driver.input(5 * SECOND, Input::Advert(advert(5 * SECOND, 200)));
    assert_eq!((driver.state(), driver.deadline()), (Fault, None));
    // An hour later: what was heard before is no reason to wait less than a whole Active_Down_Interval.
    assert_eq!(driver.input(3_600 * SECOND, Input::FenceBack), [report(Fault, Backup, Reason::FenceBack)]);
    assert_eq!(driver.deadline(), Some(3_600 * SECOND + DOWN));
}

#[test]
fn program_and_link_must_both_be_there() {
    for (first, second, reason) in
        [(Input::LinkUp, Input::FenceBack, Reason::FenceBack), (Input::FenceBack, Input::LinkUp, Reason::LinkUp)]
    {
        let mut driver = Driver::started(parameters());
        driver.input(SECOND, Input::LinkDown);
        driver.input(SECOND, Input::FenceLost);
        assert_eq!(driver.input(2 * SECOND, first), []);
        assert_eq!(driver.input(3 * SECOND, second), [report(Fault, Backup, reason)]);
        assert_eq!(driver.state(), Backup);
    }
}
