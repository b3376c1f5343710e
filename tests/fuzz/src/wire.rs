//! The parsers and builders of `failover-common`, against straightforward readings of the RFCs.
//!
//! Input: a frame; the same bytes also choose what is built. Deliberately absent: what the frame path makes of it.

use failover_common::abi::{AUTHENTICATION_NONE, AUTHENTICATION_SIMPLE, ChecksumForm, FAMILY_IPV4, Settings};
use failover_common::address::Address;
use failover_common::wire::arp::{self, ArpPacket};
use failover_common::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, Link, Mac};
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::tcp::{self, Ends, RESET_LEN, Reset, TcpHeader};
use failover_common::wire::vrrp::{self, ADVERT_FRAME_LEN_MAX, AddressDigest, Advert, AdvertFrame};
use failover_common::wire::{Frame, Header};
use failover_sim::fixtures::{version_2, version_2_with_password, version_3};
use failover_sim::segment::{assert_resets, sum};

use crate::bytes::Bytes;

/// Any frame: no panic, nothing read past the end, and what is built is read as what it was built from.
pub fn wire(bytes: &[u8]) {
    read(bytes);
    build(&mut Bytes(bytes));
}

fn read(frame: &[u8]) {
    let Some(link) = Link::read(frame) else {
        // Only its end can be missing: of the header, or of a tag.
        assert!(frame.len() < 22);
        return;
    };
    assert!(matches!(link.payload, 14 | 18 | 22) && link.payload <= frame.len());
    assert_eq!(link.ether_type.to_be_bytes(), frame[link.payload - 2..link.payload]);
    if let Some(packet) = frame.read::<ArpPacket>(link.payload) {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let answer = packet.answer(mac);
        assert_eq!(packet.is_ipv4_over_ethernet(), answer.is_ipv4_over_ethernet());
        // The answer's answer is to whom it came from.
        assert_eq!(
            answer.answer(packet.sender_mac),
            ArpPacket { operation: arp::REPLY.into(), target_mac: mac, ..packet }
        );
    }
    if let Some(ip) = frame.read::<Ipv4Header>(link.payload) {
        read_ipv4(frame, link.payload, &ip);
    }
}

fn read_ipv4(frame: &[u8], at: usize, ip: &Ipv4Header) {
    let header = frame.get(at..at + 4 * usize::from(frame[at] & 0x0f));
    // RFC 791 3.1: a header has 20 bytes at least.
    let is_right = header.is_some_and(|header| header.len() >= 20 && sum(header) == 0xffff);
    assert_eq!(ip.checksum_holds(frame, at), is_right);
    let payload_len = ip.payload_len(frame, at);
    let total_len = usize::from(u16::from_be_bytes([frame[at + 2], frame[at + 3]]));
    let packet = frame.get(at..at + total_len).filter(|packet| packet.len() >= 20);
    let payload =
        header.filter(|header| header.len() >= 20).zip(packet).and_then(|(header, packet)| packet.get(header.len()..));
    assert_eq!(payload_len, payload.map(<[u8]>::len));
    for settings in [version_3(), version_2(), version_2_with_password(b"1111\0\0\0\0")] {
        if let Ok(advert) = vrrp::check(frame, ip, at, &settings) {
            check_advert(payload.expect("an advert is a packet's payload"), ip, &settings, &advert);
        }
    }
    if let Some(segment) = payload {
        read_tcp(frame, at + ip.header_len(), ip, segment);
    }
}

/// RFC 9568 7.1 and RFC 3768 7.1, of an advert that was found valid.
fn check_advert(message: &[u8], ip: &Ipv4Header, settings: &Settings, advert: &Advert) {
    assert_eq!((ip.ttl, ip.is_fragment()), (255, false));
    let is_v2 = settings.version == 2;
    assert_eq!(message[0], settings.version << 4 | 1);
    let count = usize::from(message[3]);
    let addresses = &message[8..8 + 4 * count];
    let len = 8 + addresses.len() + if is_v2 { 8 } else { 0 };
    assert!(count > 0 && message.len() >= len);
    let pseudo_header = [&ip.source[..], &ip.destination, &[0, 112], &(len as u16).to_be_bytes()].concat();
    let covered = match advert.checksum_form {
        ChecksumForm::Message => message[..len].to_vec(),
        ChecksumForm::PseudoHeader if !is_v2 => [&pseudo_header, &message[..len]].concat(),
        form => panic!("{form:?}"),
    };
    assert_eq!(sum(&covered), 0xffff);
    let interval =
        if is_v2 { u16::from(message[5]) * 100 } else { u16::from_be_bytes([message[4] & 0x0f, message[5]]) };
    assert_eq!((advert.priority, advert.interval_cs), (message[2], interval));
    assert!(interval > 0 && (!is_v2 || interval == settings.advert_interval_cs));
    if is_v2 {
        assert_eq!(message[4], settings.authentication);
        assert!(message[4] == AUTHENTICATION_NONE || message[len - 8..len] == settings.password);
    }
    assert_eq!(advert.source, Address::from_ipv4(ip.source));
    assert_ne!(advert.source, settings.own_address);
    assert!(!matches!(ip.source[0], 0 | 127 | 224..));
    assert_eq!(advert.address_digest, digest(addresses.as_chunks().0));
}

fn digest(addresses: &[[u8; 4]]) -> AddressDigest {
    let mut digest = AddressDigest::default();
    addresses.iter().for_each(|address| digest.add(*address));
    digest
}

fn read_tcp(frame: &[u8], at: usize, ip: &Ipv4Header, segment: &[u8]) {
    let Some(header) = segment.read::<TcpHeader>(0) else { return };
    let pseudo_header = [&ip.source[..], &ip.destination, &[0, 6], &(segment.len() as u16).to_be_bytes()].concat();
    let is_whole = u16::from_be_bytes([segment[16], segment[17]]) != sum(&pseudo_header);
    assert_eq!(tcp::has_whole_checksum(ip, &header, segment.len()), is_whole);
    let is_right = sum(&[&pseudo_header, segment].concat()) == 0xffff;
    assert_eq!(tcp::checksum_holds(frame, ip, at, &header, segment.len()), is_right || !is_whole);
    let header_len = usize::from(segment[12] >> 4) * 4;
    let Some(options) = segment.get(20..header_len.max(20)) else { return };
    assert_eq!(tcp::options_hold(frame, at + 20, options.len()), are_whole(options));
    if header_len < 20 || segment[13] & 0x06 != 0 {
        return;
    }
    let ends = Ends {
        source: ip.destination,
        destination: ip.source,
        source_port: header.destination_port.get(),
        destination_port: header.source_port.get(),
    };
    let reset = Reset::answering(&header, segment.len()).packet(&ends);
    // Behind the hardware addresses turned round, it is the whole answer.
    let behind = |link: [&[u8]; 2], packet: &[u8]| [link[0], link[1], &[8, 0], packet].concat();
    let (from, to) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = &frame[at - ip.header_len()..at + segment.len()];
    let mut answer = behind([&from, &to], &reset);
    assert_eq!(reset.len(), RESET_LEN);
    answer.resize(60, 0);
    let mut sent = behind([&to, &from], packet);
    sent.resize(sent.len().max(60), 0);
    assert_resets(&sent, &answer);
}

/// RFC 9293 3.1: an option is one byte, or says how long it is, and none runs past the header.
fn are_whole(mut options: &[u8]) -> bool {
    loop {
        options = match options {
            [] | [0, ..] => return true,
            [1, rest @ ..] => rest,
            [_, len, ..] if (2..=options.len()).contains(&usize::from(*len)) => &options[usize::from(*len)..],
            _ => return false,
        }
    }
}

/// Builds an advert, an announcement and a tickle, and reads them.
fn build(choices: &mut Bytes<'_>) {
    let is_v2 = choices.byte() & 1 != 0;
    let password = (is_v2 && choices.byte() & 1 != 0).then(|| choices.array());
    let interval_cs = if is_v2 { u16::from(choices.byte().max(1)) * 100 } else { choices.short() % 4095 + 1 };
    let mut source: [u8; 4] = choices.array();
    source[0] = source[0] % 126 + 1;
    let checksum_form =
        if !is_v2 && choices.byte() & 1 != 0 { ChecksumForm::PseudoHeader } else { ChecksumForm::Message };
    let (vrid, priority) = (choices.byte(), choices.byte());
    let addresses: Vec<[u8; 4]> = (0..=choices.byte() % 20).map(|_| choices.array()).collect();
    let version = if is_v2 { 2 } else { 3 };
    let source_mac = Mac([2, 0, 0, 0, 0, 1]);
    let advert = AdvertFrame {
        source_mac,
        source,
        version,
        vrid,
        priority,
        interval_cs,
        addresses: &addresses,
        password,
        checksum_form,
    };
    let mut buffer = [0xff; ADVERT_FRAME_LEN_MAX];
    let len = advert.emit(&mut buffer).expect("the longest fits");
    let frame = &buffer[..len];
    let settings = Settings {
        password: password.unwrap_or_default(),
        advert_interval_cs: interval_cs,
        vrid,
        version,
        family: FAMILY_IPV4,
        authentication: if password.is_some() { AUTHENTICATION_SIMPLE } else { AUTHENTICATION_NONE },
        ..Settings::default()
    };
    assert_eq!(link_of(frame), (ETHER_TYPE_IPV4, 14));
    let ip: Ipv4Header = header(frame, 14);
    assert_eq!((ip.protocol, ip.destination, vrrp::vrid(frame, &ip, 14)), (112, [224, 0, 0, 18], Some(vrid)));
    let expected = Advert {
        source: Address::from_ipv4(source),
        priority,
        interval_cs,
        address_digest: digest(&addresses),
        checksum_form,
    };
    let read = vrrp::check(frame, &ip, 14, &settings).expect("it is valid");
    // Where the pseudo-header sums to zero, the two forms are one.
    assert_eq!(Advert { checksum_form, ..read }, expected);
    assert!(read.checksum_form == checksum_form || checksum_form == ChecksumForm::PseudoHeader);
    check_advert(&frame[34..], &ip, &settings, &read);

    let mac = Mac(choices.array());
    let announcement = arp::announcement(arp::REQUEST, mac, source);
    assert_eq!(link_of(&announcement), (ETHER_TYPE_ARP, 14));
    let packet: ArpPacket = header(&announcement, 14);
    assert!(packet.is_ipv4_over_ethernet() && announcement[42..] == [0; 18]);
    assert_eq!((packet.sender_mac, packet.sender_ip, packet.target_ip), (mac, source, source));

    let ends =
        Ends { source, destination: choices.array(), source_port: choices.short(), destination_port: choices.short() };
    let tickle = tcp::tickle(&ends, password.map(|[a, b, c, d, ..]| u32::from_be_bytes([a, b, c, d])));
    let frame = [&[0; 12], &[8, 0][..], &tickle].concat();
    let ip: Ipv4Header = header(&frame, 14);
    assert!(ip.checksum_holds(&frame[..], 14));
    assert_eq!(ip.payload_len(&frame[..], 14), Some(tickle.len() - 20));
    read_tcp(&frame, 34, &ip, &frame[34..]);
    assert!(tcp::checksum_holds(&frame[..], &ip, 34, &header(&frame, 34), tickle.len() - 20));
}

fn link_of(frame: &[u8]) -> (u16, usize) {
    let link = Link::read(frame).expect("it has a header");
    (link.ether_type, link.payload)
}

fn header<T: Header>(frame: &[u8], at: usize) -> T {
    frame.read(at).expect("it has that header")
}
