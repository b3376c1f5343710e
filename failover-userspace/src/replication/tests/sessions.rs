//! Tables and changes arrive, whatever comes between.

use std::net::TcpListener;

use super::support::{
    Node, Table, answer, at, closed, flow, ip, keep_log, logged, missing_ip, opened, record, shared_key, wait,
};
use crate::replication::{News, Replication, Settings};

#[test]
fn two_nodes_with_ten_thousand_flows_each_converge() {
    let (a_ip, b_ip) = (ip(), ip());
    let mut served = Table::default();
    served.serve(0..10_000);
    let settings = |listen, peer| Settings { listen: at(listen), peers: vec![at(peer)], key: shared_key() };
    let a = Node::start_with(settings(a_ip, b_ip), served);
    let b = Node::start(b_ip, &[a_ip]);
    b.change((20_000..30_000).map(opened).collect());
    b.wait_for_flows_of(&a, 0);
    a.wait_for_flows_of(&b, 0);
    assert_eq!(b.table().of_peer(0).len(), 10_000);
    assert_eq!(b.table().of_peer(0)[&flow(9_999)], None);
    assert_eq!(b.table().of_peer(0)[&flow(9_998)], record(9_998).send_next);

    // Changes only, no second table.
    a.change((0..5_000).map(closed).chain((10_000..12_000).map(opened)).collect());
    b.wait_for_flows_of(&a, 0);
    assert_eq!(b.table().of_peer(0).len(), 7_000);
    // 10,000 flows: a third of 6 bytes, two thirds of 10. Then 5,000 closed with 6, 2,000 opened.
    let table_bytes = 3_334 * 6 + 6_666 * 10;
    let changes_bytes = 5_000 * 6 + 666 * 6 + 1_334 * 10;
    // Flows are there before the numbers of them are.
    a.wait("the numbers", |table| {
        let status = table.status(0);
        status.sent_bytes >= table_bytes + changes_bytes && status.syncs == 1
    });
    b.wait("its numbers", |table| table.status(0).syncs == 1);
    let (a, b) = (a.table().status(0), b.table().status(0));
    assert_eq!((a.syncs, b.syncs), (1, 1));
    assert_eq!((a.is_sending, a.is_receiving, b.is_sending, b.is_receiving), (1, 1, 1, 1));
    assert_eq!((a.address.to_ip(), a.port), (b_ip.into(), at(b_ip).port()));
    assert!(a.sent_bytes < table_bytes + changes_bytes + 2_000, "{a:?}");
}

#[test]
fn a_connection_made_anew_removes_what_is_gone() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let a = Node::start(a_ip, &[b_ip]);
    a.change((0..100).map(opened).collect());
    b.wait_for_flows_of(&a, 0);
    drop(a);
    b.wait("the end of the connection", |table| table.status(0).is_receiving == 0);
    assert_eq!(b.table().of_peer(0).len(), 100, "the flows of a dead peer stay: they are what this is for");

    let mut served = Table::default();
    served.serve(50..120);
    let settings = Settings { listen: at(a_ip), peers: vec![at(b_ip)], key: shared_key() };
    let a = Node::start_with(settings, served);
    b.wait("the second table", |table| table.synced == 2);
    b.wait_for_flows_of(&a, 0);
    assert_eq!(b.table().of_peer(0).len(), 70);
}

#[test]
fn the_last_changes_are_told_before_a_node_stops() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let a = Node::start(a_ip, &[b_ip]);
    a.change((0..100).map(opened).collect());
    b.wait_for_flows_of(&a, 0);
    a.change((0..100).map(closed).collect());
    drop(a);
    b.wait("the closing of all flows", |table| table.heard.is_empty() && table.closed == 100);
}

#[test]
fn lost_events_are_made_good_by_a_table() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let a = Node::start(a_ip, &[b_ip]);
    a.change((0..100).map(opened).collect());
    b.wait_for_flows_of(&a, 0);
    // Nobody tells of these.
    a.table().change(&[closed(1), closed(2), opened(500)]);
    a.tell(News::Lost);
    b.wait_for_flows_of(&a, 0);
    a.wait("the second table to be counted", |table| table.status(0).syncs == 2);
}

#[test]
fn more_changes_than_the_queue_holds_lead_to_a_table() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let a = Node::start(a_ip, &[b_ip]);
    a.change((0..100).map(opened).collect());
    b.wait_for_flows_of(&a, 0);
    let before = b.table().closed;
    // 6 bytes each: 4.8 MB, more than 4 MiB.
    let mut flood: Vec<_> = (1_000_000..1_800_000).map(closed).collect();
    flood.extend([closed(7), opened(8_000)]);
    a.change(flood);
    b.wait_for_flows_of(&a, 0);
    assert_eq!(b.table().of_peer(0).len(), 100);
    assert_eq!(b.table().closed, before, "the queue was dropped whole");
    a.wait("the second table to be counted", |table| table.status(0).syncs == 2);
    // And it goes on with changes.
    a.change(vec![opened(9_000)]);
    b.wait_for_flows_of(&a, 0);
}

/// Flows open and close all the time while tables are sent: whatever falls between snapshot and end must end right.
#[test]
fn flows_that_come_and_go_during_tables_end_right() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let mut served = Table::default();
    // A table of some 100 frames.
    served.serve(0..200_000);
    let settings = Settings { listen: at(a_ip), peers: vec![at(b_ip)], key: shared_key() };
    let a = Node::start_with(settings, served);
    let mut round = 0;
    // Until a third table has begun.
    while b.table().synced < 2 || a.table().reads < 3 {
        let (old, young) = (round * 20, 1_000_000 + round * 20);
        a.change((old..old + 20).map(closed).chain((young..young + 20).map(opened)).collect());
        // Half of the young are gone at once, and a quarter of the old come back.
        a.change((young..young + 10).map(closed).chain((old..old + 5).map(opened)).collect());
        round += 1;
        if round.is_multiple_of(50) {
            a.tell(News::Lost);
        }
    }
    a.change(vec![closed(0)]);
    b.wait_for_flows_of(&a, 0);
    assert!(round > 100 && b.table().closed > 0);
}

/// One peer is stuck before it answers, one after: it has the key, reads nothing and confirms nothing.
#[test]
fn stuck_peers_delay_nobody() {
    let (a_ip, mute_ip, full_ip, c_ip) = (ip(), ip(), ip(), ip());
    let mute = TcpListener::bind(at(mute_ip)).unwrap();
    let full = TcpListener::bind(at(full_ip)).unwrap();
    socket2::SockRef::from(&full).set_recv_buffer_size(4_096).unwrap();
    let c = Node::start(c_ip, &[a_ip]);
    let a = Node::start(a_ip, &[mute_ip, full_ip, c_ip]);
    let _mute = mute.accept().unwrap();
    let _full = answer(&full, &shared_key());
    a.wait("the third", |table| table.status(2).is_sending == 1);
    for flood in 1..=2 {
        // 3 MB each. Buffers don't hold both.
        a.change((1_000_000..1_500_000).map(closed).collect());
        c.wait("the flood", |table| table.closed >= flood * 500_000);
    }
    for n in 0..10 {
        a.change(vec![opened(n)]);
        c.wait_for_flows_of(&a, 0);
    }
    a.wait("the lag of both", |table| table.status(0).lag_ms > 0 && table.status(1).lag_ms > 0);
    a.wait("the third's confirmation", |table| table.status(2).sent_bytes > 6_000_000 && table.status(2).lag_ms == 0);
    let full = a.table().status(1);
    assert!((1..6_000_000).contains(&full.sent_bytes), "it was stuck: {full:?}");
    assert!(!a.is_sending(0) && !a.is_sending(1));
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let taken = ip();
    let _taken = TcpListener::bind(at(taken)).unwrap();
    let settings = Settings { listen: at(taken), peers: vec![], key: shared_key() };
    let error = Replication::bind(settings).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(&at(taken).to_string()) && text.contains("in use"), "{text}");
}

#[test]
fn an_address_that_is_missing_is_warned_of_and_listened_on() {
    keep_log();
    let missing = at(missing_ip());
    let here = at(ip());
    let settings = |listen| Settings { listen, peers: vec![], key: shared_key() };
    let missing_node = Replication::bind(settings(missing)).unwrap();
    let _here_node = Replication::bind(settings(here)).unwrap();
    let text = "the address is not on this machine yet; peers cannot reach it until it is";
    assert_eq!((logged(missing, &["WARN", text]), logged(here, &[text])), (1, 0));
    // The port is taken there too.
    let error = Replication::bind(settings(missing)).unwrap_err();
    assert!(format!("{error:#}").contains("in use"), "{error:#}");
    drop(missing_node);
    Replication::bind(settings(missing)).unwrap();
}

#[test]
fn a_node_whose_address_is_missing_dials_on_and_says_so_once() {
    keep_log();
    let b_ip = ip();
    let listener = TcpListener::bind(at(b_ip)).unwrap();
    let a = Node::start(missing_ip(), &[b_ip]);
    wait("three tries", || logged(at(b_ip), &["as before"]) >= 2);
    let reason = "dialling from the address of `listen`: Cannot assign requested address";
    assert_eq!(logged(at(b_ip), &["WARN"]), 1);
    assert_eq!(logged(at(b_ip), &["WARN", reason]), 1);
    assert!(!a.is_sending(0));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "from no other address");
}
