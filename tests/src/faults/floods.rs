//! A stranger that sends as many frames as one core can.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::arp_probe;
use crate::faults::{Bite, Scene};
use crate::fixtures::frame;
use crate::flood::Flood;
use crate::frames::claim;
use crate::lab::{INTERFACE, VIP};
use failover_sim::segment;

/// Adverts of priority 200, made by scapy, that RFC 9568 7.1 has refused, and how the program counts them; all would
/// depose the Active. The last one is right but for its addresses, and so of a priority that deposes nobody.
const WRONG: [(&str, Option<&str>); 9] = [
    ("v3 ttl 254", Some("advert_bad_ttl")),
    ("v3 version 2", Some("advert_bad_version")),
    ("v3 type 2", Some("advert_bad_type")),
    ("v3 count above addresses", Some("advert_bad_length")),
    ("v3 checksum off by one", Some("advert_bad_checksum")),
    ("v3 no address", Some("advert_no_address")),
    ("v3 interval 0", Some("advert_zero_interval")),
    // Another virtual router's.
    ("v3 vrid 52", None),
    ("v3 steady, addresses", Some("advert_valid")),
];
/// The stranger's own address.
const STRANGER: [u8; 4] = [192, 0, 2, 66];
/// One below edge-a's, which is the lowest of the network.
const LOWER: [u8; 4] = [192, 0, 1, 66];

pub(super) fn wrong_adverts(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let frames: Vec<_> = WRONG.iter().map(|(name, _)| frame(name)).collect();
    let counters: Vec<_> = WRONG.iter().filter_map(|(_, counter)| *counter).collect();
    flood(scene, length, &frames, &counters)
}

pub(super) fn lower_priority(scene: &mut Scene, length: Duration) -> Result<Bite> {
    flood(scene, length, &[advert(50, STRANGER)], &["advert_valid"])
}

pub(super) fn lower_address(scene: &mut Scene, length: Duration) -> Result<Bite> {
    flood(scene, length, &[advert(150, LOWER)], &["advert_valid"])
}

pub(super) fn higher_priority(scene: &mut Scene, length: Duration) -> Result<Bite> {
    flood(scene, length, &[advert(200, STRANGER)], &["advert_superior"])
}

pub(super) fn arp_requests(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let request = arp_probe::request(scene.lab.mac("stranger")?, STRANGER, VIP.octets());
    flood(scene, length, &[request], &["arp_answered"])
}

pub(super) fn arp_claims(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let mac = scene.lab.mac("stranger")?;
    // A Linux neighbour believes the request at once, and such a reply once a second.
    let claims = [1, 2].map(|operation| claim(operation, mac, VIP.octets()));
    flood(scene, length, &claims, &["arp_conflict"])
}

/// Each of the program's `counters` must have risen by more than its own frames could make it.
fn flood(scene: &mut Scene, length: Duration, frames: &[Vec<u8>], counters: &[&str]) -> Result<Bite> {
    let count = |scene: &Scene| counters.iter().map(|name| scene.a.counter(name)).collect::<Result<Option<Vec<_>>>>();
    let (before, arrived_before) = (count(scene)?, arrived(scene)?);
    let flood = Flood::start(scene.lab.station("stranger")?, INTERFACE, frames)?;
    scene.last(length);
    let (sent, time) = flood.stop()?;
    scene.heals();
    let arrived = arrived(scene)? - arrived_before;
    let rate = (sent as f64 / time.as_secs_f64() / 1e3).round();
    ensure!(arrived > 1000, "of {sent} frames, {arrived} came to edge-a");
    let mut witness = format!("{sent} frames sent, {rate} a millisecond, {arrived} went to edge-a");
    if let (Some(before), Some(after)) = (before, count(scene)?) {
        for ((name, before), after) in counters.iter().zip(before).zip(after) {
            ensure!(after - before > 100, "edge-a counted {} as {name}", after - before);
            witness += &format!(", {} {name}", after - before);
        }
    }
    Ok(Bite::Witness(witness))
}

/// Frames that the switch sent to edge-a, by the port's own counter.
fn arrived(scene: &Scene) -> Result<u64> {
    scene.lab.port("edge-a")?["stats64"]["tx"]["packets"].as_u64().context("a port without counters")
}

/// An advert for the lab's virtual router that is right in every field: scapy's, with another priority, source and
/// interval (100 ms). The checksum covers a pseudo-header, which is the form that both makes accept.
pub(crate) fn advert(priority: u8, source: [u8; 4]) -> Vec<u8> {
    let mut frame = frame("v3 one address");
    frame[26..30].copy_from_slice(&source);
    frame[36] = priority;
    frame[38..40].copy_from_slice(&[0, 10]);
    frame[24..26].fill(0);
    frame[40..42].fill(0);
    let len = (frame.len() - 34) as u16;
    let covered = [&frame[26..34], &[0, 112], &len.to_be_bytes(), &frame[34..]].concat();
    let sums = [(24, segment::sum(&frame[14..34])), (40, segment::sum(&covered))];
    for (at, sum) in sums {
        frame[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
    }
    frame.resize(60, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_advert_is_scapys_but_for_what_was_changed() {
        let scapys = frame("v3 pseudo-header");
        let forged = advert(200, [192, 0, 2, 9]);
        // Without scapy's second address, 192.0.2.11, and with an interval of 10 cs instead of 100.
        let mut expected = scapys.clone();
        expected.truncate(46);
        expected[17] -= 4;
        expected[37] = 1;
        expected[39] = 10;
        // What the sums lose, they gain: 4 of the length, in both; 1 of the count, 90, and the address.
        let gained = |at: usize, by: u32| {
            let sum = u32::from(u16::from_be_bytes([scapys[at], scapys[at + 1]])) + by;
            ((sum >> 16) as u16 + sum as u16).to_be_bytes()
        };
        expected[24..26].copy_from_slice(&gained(24, 4));
        expected[40..42].copy_from_slice(&gained(40, 4 + 1 + 90 + 0xc000 + 0x020b));
        expected.resize(60, 0);
        assert_eq!(forged, expected);
    }
}
