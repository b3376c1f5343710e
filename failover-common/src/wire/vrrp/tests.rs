//! Expected bytes: scapy 2.5 (its VRRPv3 layer sums the pseudo-header), or summed by hand where a
//! comment says so.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::abi::{AUTHENTICATION_NONE, FAMILY_IPV4};

/// scapy: VRRPv3, vrid 51, priority 150, 100 cs, 192.0.2.10 and .11, pseudo-header checksum 11bb.
const V3_PSEUDO: [u8; 50] = [
    0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 0x02, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x08, 0x00, 0x45, 0xc0, 0x00, 0x24, 0x00,
    0x00, 0x40, 0x00, 0xff, 0x70, 0xd8, 0x95, 0xc0, 0x00, 0x02, 0x01, 0xe0, 0x00, 0x00, 0x12, 0x31, 0x33, 0x96, 0x02,
    0x00, 0x64, 0x11, 0xbb, 0xc0, 0x00, 0x02, 0x0a, 0xc0, 0x00, 0x02, 0x0b,
];
/// By hand: 3133+9602+0064+c000+020a+c000+020b = 24bae, folded 4bb0, complement b44f.
const V3_CHECKSUM_BY_HAND: [u8; 2] = [0xb4, 0x4f];
/// scapy: VRRP version 2, vrid 51, priority 100, 1 s, 192.0.2.10, type 1 password "1111".
const V2: [u8; 54] = [
    0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 0x02, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x08, 0x00, 0x45, 0xc0, 0x00, 0x28, 0x00,
    0x00, 0x40, 0x00, 0xff, 0x70, 0xd8, 0x91, 0xc0, 0x00, 0x02, 0x01, 0xe0, 0x00, 0x00, 0x12, 0x21, 0x33, 0x64, 0x01,
    0x01, 0x01, 0x55, 0x5d, 0xc0, 0x00, 0x02, 0x0a, 0x31, 0x31, 0x31, 0x31, 0x00, 0x00, 0x00, 0x00,
];
const IP: usize = 14;
const VRRP: usize = 34;

fn settings_v3() -> Settings {
    Settings {
        own_address: Address::from_ipv4([192, 0, 2, 2]),
        advert_interval_cs: 100,
        vrid: 51,
        version: 3,
        family: FAMILY_IPV4,
        priority: 100,
        authentication: AUTHENTICATION_NONE,
        ..Settings::default()
    }
}

fn settings_v2() -> Settings {
    Settings { version: 2, authentication: AUTHENTICATION_SIMPLE, password: *b"1111\0\0\0\0", ..settings_v3() }
}

fn v3() -> Vec<u8> {
    let mut frame = V3_PSEUDO.to_vec();
    frame[VRRP + 6..VRRP + 8].copy_from_slice(&V3_CHECKSUM_BY_HAND);
    frame
}

fn checked(frame: &[u8], settings: &Settings) -> Result<Advert, Counter> {
    check(frame, &frame.read(IP).unwrap(), IP, settings)
}

/// Changes bytes of a valid advert, mends both checksums, and returns the verdict.
fn refusal(frame: &[u8], settings: &Settings, change: impl Fn(&mut Vec<u8>)) -> Counter {
    let mut frame = frame.to_vec();
    change(&mut frame);
    mend(&mut frame);
    checked(&frame, settings).unwrap_err()
}

/// An independent, slow checksum: by RFC 1071's definition, with u128 and no folding tricks.
fn ones_complement(bytes: &[u8]) -> [u8; 2] {
    let total: u128 =
        bytes.chunks(2).map(|word| u128::from(word[0]) << 8 | u128::from(*word.get(1).unwrap_or(&0))).sum();
    let rest = total % 0xffff;
    let folded = if rest == 0 && total != 0 { 0xffff } else { rest as u16 };
    (!folded).to_be_bytes()
}

fn mend(frame: &mut [u8]) {
    let header_end = IP + usize::from(frame[IP] & 0x0f) * 4;
    frame[IP + 10..IP + 12].fill(0);
    let ip_sum = ones_complement(&frame[IP..header_end]);
    frame[IP + 10..IP + 12].copy_from_slice(&ip_sum);
    frame[header_end + 6..header_end + 8].fill(0);
    let sum = ones_complement(&frame[header_end..]);
    frame[header_end + 6..header_end + 8].copy_from_slice(&sum);
}

#[test]
fn refusals_in_the_order_of_rfc_9568_section_7_1() {
    let v3 = v3();
    let s = settings_v3();
    assert_eq!(refusal(&v3, &s, |f| f[IP + 6] = 0x20), Counter::AdvertBadIp, "more fragments");
    assert_eq!(refusal(&v3, &s, |f| f[IP + 8] = 254), Counter::AdvertBadTtl);
    assert_eq!(refusal(&v3, &s, |f| f[VRRP] = 0x21), Counter::AdvertBadVersion);
    assert_eq!(refusal(&v3, &s, |f| f[VRRP] = 0x32), Counter::AdvertBadType);
    assert_eq!(refusal(&v3, &s, |f| f[VRRP + 3] = 3), Counter::AdvertBadLength, "a third address that is not there");
    assert_eq!(refusal(&v3, &s, |f| f[IP + 3] = 0x25), Counter::AdvertBadLength, "longer than the frame");
    assert_eq!(refusal(&v3, &s, |f| f[IP + 3] = 0x23), Counter::AdvertBadLength, "shorter than the message");
    assert_eq!(
        refusal(&v3, &s, |f| {
            f[VRRP + 3] = 0;
            f.truncate(VRRP + 8);
            f[IP + 3] = 28;
        }),
        Counter::AdvertNoAddress
    );
    assert_eq!(refusal(&v3, &s, |f| f[VRRP + 5] = 0), Counter::AdvertZeroInterval);
    assert_eq!(refusal(&v3, &s, |f| f[IP + 12] = 224), Counter::AdvertBadSource);
    assert_eq!(refusal(&v3, &s, |f| f[IP + 12] = 127), Counter::AdvertBadSource);
    assert_eq!(refusal(&v3, &s, |f| f[IP + 15] = 2), Counter::AdvertBadSource, "our own address");

    // The first of two faults is the one that counts.
    assert_eq!(refusal(&v3, &s, |f| (f[IP + 8], f[VRRP]) = (1, 0x21)), Counter::AdvertBadTtl);
    assert_eq!(refusal(&v3, &s, |f| f[VRRP] = 0x22), Counter::AdvertBadVersion);
}

#[test]
fn wrong_checksums_are_refused() {
    let mut frame = v3();
    frame[VRRP + 6] ^= 1;
    assert_eq!(checked(&frame, &settings_v3()), Err(Counter::AdvertBadChecksum));
    let mut frame = v3();
    frame[IP + 10] ^= 1;
    assert_eq!(checked(&frame, &settings_v3()), Err(Counter::AdvertBadIp));
    let mut frame = V2.to_vec();
    frame[VRRP + 7] ^= 1;
    assert_eq!(checked(&frame, &settings_v2()), Err(Counter::AdvertBadChecksum));
}

#[test]
fn version_2_has_no_pseudo_header_form() {
    // By hand: the pseudo-header of V2 sums to c000+0201+e000+0012+0070+0014 = 1a297, folded
    // a298; the message's checksum 555d less that, in one's complement, is b2c4.
    let mut frame = V2.to_vec();
    frame[VRRP + 6..VRRP + 8].copy_from_slice(&[0xb2, 0xc4]);
    assert_eq!(checked(&frame, &settings_v2()), Err(Counter::AdvertBadChecksum));
}

#[test]
fn version_2_refusals() {
    let s = settings_v2();
    assert_eq!(refusal(&V2, &s, |f| f[VRRP + 4] = 0), Counter::AdvertBadAuthentication, "no authentication");
    assert_eq!(refusal(&V2, &s, |f| f[VRRP + 12] = b'2'), Counter::AdvertBadAuthentication, "another password");
    assert_eq!(refusal(&V2, &s, |f| f[VRRP + 19] = 1), Counter::AdvertBadAuthentication, "a longer password");
    assert_eq!(refusal(&V2, &s, |f| f[VRRP + 5] = 0), Counter::AdvertZeroInterval);
    assert_eq!(refusal(&V2, &s, |f| f[VRRP + 5] = 2), Counter::AdvertOtherInterval);
    let open = Settings { authentication: AUTHENTICATION_NONE, ..s };
    assert_eq!(refusal(&V2, &open, |_| ()), Counter::AdvertBadAuthentication, "a password nobody asked for");
    let short = |f: &mut Vec<u8>| {
        f.truncate(VRRP + 12);
        f[IP + 3] = 32;
    };
    assert_eq!(refusal(&V2, &s, short), Counter::AdvertBadLength, "without authentication data");
}

#[test]
fn every_truncation_is_refused_or_has_no_vrid() {
    let frame = v3();
    for end in IP + 20..frame.len() {
        let cut = &frame[..end];
        let ip = cut.read(IP).unwrap();
        assert_eq!(vrid(cut, &ip, IP).is_some(), end >= VRRP + 8, "{end} bytes");
        assert!(check(cut, &ip, IP, &settings_v3()).is_err(), "{end} bytes");
    }
}

#[test]
fn both_checksum_forms_of_version_3_are_read_and_told_apart() {
    let advert = checked(&V3_PSEUDO, &settings_v3()).unwrap();
    assert_eq!(advert.checksum_form, ChecksumForm::PseudoHeader);
    assert_eq!((advert.priority, advert.interval_cs), (150, 100));
    assert_eq!(advert.source, Address::from_ipv4([192, 0, 2, 1]));
    assert_eq!(checked(&v3(), &settings_v3()), Ok(Advert { checksum_form: ChecksumForm::Message, ..advert }));
}

#[test]
fn version_2_is_read() {
    let advert = checked(&V2, &settings_v2()).unwrap();
    assert_eq!((advert.priority, advert.interval_cs, advert.checksum_form), (100, 100, ChecksumForm::Message));
}

#[test]
fn reserved_bits_options_padding_and_trailers_do_not_matter() {
    // RFC 9568 5.2.6: reserved, ignored on receipt.
    let mut reserved = v3();
    reserved[VRRP + 4] = 0xf0;
    mend(&mut reserved);
    assert_eq!(checked(&reserved, &settings_v3()).unwrap().interval_cs, 100);

    let mut options = v3();
    options.splice(VRRP..VRRP, [0x94, 0x04, 0x00, 0x00]);
    (options[IP], options[IP + 3]) = (0x46, 0x28);
    mend(&mut options);
    assert_eq!(vrid(&options[..], &options[..].read(IP).unwrap(), IP), Some(51));
    assert!(checked(&options, &settings_v3()).is_ok());

    let mut padded = v3();
    padded.resize(60, 0xaa);
    assert!(checked(&padded, &settings_v3()).is_ok(), "Ethernet padding is no part of the packet");
}

#[test]
fn a_later_fragment_has_no_vrid() {
    let mut frame = v3();
    frame[IP + 7] = 1;
    assert_eq!(vrid(&frame[..], &frame[..].read(IP).unwrap(), IP), None);
}

#[test]
fn emitted_frames_are_scapys_byte_for_byte() {
    let mut buffer = [0xa5; ADVERT_FRAME_LEN_MAX];
    let frame = AdvertFrame {
        source_mac: Mac([0x02, 0, 0, 0, 0, 0x0a]),
        source: [192, 0, 2, 1],
        version: 3,
        vrid: 51,
        priority: 150,
        interval_cs: 100,
        addresses: &[[192, 0, 2, 10], [192, 0, 2, 11]],
        password: None,
        checksum_form: ChecksumForm::PseudoHeader,
    };
    let len = frame.emit(&mut buffer).unwrap();
    assert_eq!(buffer[..len], V3_PSEUDO[..]);
    let len = AdvertFrame { checksum_form: ChecksumForm::Message, ..frame.clone() }.emit(&mut buffer).unwrap();
    assert_eq!(buffer[..len], v3()[..]);
    let v2 = AdvertFrame {
        version: 2,
        priority: 100,
        addresses: &[[192, 0, 2, 10]],
        password: Some(*b"1111\0\0\0\0"),
        ..frame
    };
    let len = v2.emit(&mut buffer).unwrap();
    assert_eq!(buffer[..len], V2[..]);
    assert_eq!(v2.emit(&mut buffer[..53]), None);
}

#[test]
fn version_2_without_a_password_sends_type_0_and_zeros() {
    // RFC 3768 5.3.10. By hand: 2133+6401+0001+c000+020a = 1473f, folded 4740, complement b8bf.
    let mut expected = V2.to_vec();
    expected[VRRP + 4] = 0;
    expected[VRRP + 6..VRRP + 8].copy_from_slice(&[0xb8, 0xbf]);
    expected[VRRP + 12..].fill(0);
    let mut buffer = [0xa5; ADVERT_FRAME_LEN_MAX];
    let len = AdvertFrame {
        source_mac: Mac([0x02, 0, 0, 0, 0, 0x0a]),
        source: [192, 0, 2, 1],
        version: 2,
        vrid: 51,
        priority: 100,
        interval_cs: 100,
        addresses: &[[192, 0, 2, 10]],
        password: None,
        checksum_form: ChecksumForm::Message,
    }
    .emit(&mut buffer);
    assert_eq!(buffer[..len.unwrap()], expected[..]);
}

#[test]
fn the_reserved_bits_are_sent_as_zero_and_the_interval_in_twelve_bits() {
    // RFC 9568 5.1 and 5.2.6.
    for interval_cs in 1..=4095_u16 {
        let mut buffer = [0xa5; ADVERT_FRAME_LEN_MAX];
        let frame = AdvertFrame {
            source_mac: Mac::default(),
            source: [192, 0, 2, 1],
            version: 3,
            vrid: 51,
            priority: 100,
            interval_cs,
            addresses: &[[192, 0, 2, 10]],
            password: None,
            checksum_form: ChecksumForm::Message,
        };
        frame.emit(&mut buffer).unwrap();
        let (high, low) = (interval_cs / 256, interval_cs % 256);
        assert!(high < 16);
        assert_eq!((buffer[VRRP + 4], buffer[VRRP + 5]), (high as u8, low as u8), "{interval_cs} cs");
    }
}

#[test]
fn another_list_of_addresses_is_no_refusal_in_either_version() {
    // RFC 9568 7.1 only has it logged; RFC 3768 7.1 leaves the check, and with it the refusal, to the receiver.
    for (good, settings) in [(v3(), settings_v3()), (V2.to_vec(), settings_v2())] {
        let expected = checked(&good, &settings).unwrap();
        let mut other = good;
        other[VRRP + 11] = 77;
        mend(&mut other);
        let advert = checked(&other, &settings).unwrap();
        assert_ne!(advert.address_digest, expected.address_digest);
        assert_eq!(Advert { address_digest: expected.address_digest, ..advert }, expected);
    }
}

#[test]
fn the_digest_ignores_order_and_sees_sets_with_equal_sums() {
    let digest = |addresses: &[[u8; 4]]| {
        let mut digest = AddressDigest::default();
        addresses.iter().for_each(|address| digest.add(*address));
        digest
    };
    let (a, b) = ([192, 0, 2, 10], [192, 0, 2, 13]);
    assert_eq!(digest(&[a, b]), digest(&[b, a]));
    assert_ne!(digest(&[a, b]), digest(&[[192, 0, 2, 11], [192, 0, 2, 12]]));
    assert_ne!(digest(&[a]), digest(&[a, a]));
    assert_eq!(checked(&v3(), &settings_v3()).unwrap().address_digest, digest(&[a, [192, 0, 2, 11]]));
    assert_eq!(checked(&V2, &settings_v2()).unwrap().address_digest, digest(&[a]), "without the password");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_nothing_but_ttl_255_is_valid(mut bytes in proptest::collection::vec(any::<u8>(), 34..200)) {
        bytes[IP] = 0x45;
        let ip: Ipv4Header = bytes[..].read(IP).unwrap();
        let _ = vrid(&bytes[..], &ip, IP);
        if check(&bytes[..], &ip, IP, &settings_v3()).is_ok() {
            prop_assert_eq!(ip.ttl, 255);
        }
    }

    #[test]
    fn what_is_emitted_is_valid(
        priority: u8, vrid_byte: u8, interval_cs in 1u16..4096, count in 1usize..=20, pseudo: bool
    ) {
        let addresses: Vec<[u8; 4]> = (0..count).map(|last| [198, 51, 100, last as u8]).collect();
        let checksum_form = if pseudo { ChecksumForm::PseudoHeader } else { ChecksumForm::Message };
        let mut buffer = [0; ADVERT_FRAME_LEN_MAX];
        let len = AdvertFrame {
            source_mac: Mac::default(), source: [192, 0, 2, 1], version: 3, vrid: vrid_byte, priority, interval_cs,
            addresses: &addresses, password: None, checksum_form,
        }.emit(&mut buffer).unwrap();
        let frame = &buffer[..len];
        prop_assert_eq!(vrid(frame, &frame.read(IP).unwrap(), IP), Some(vrid_byte));
        let advert = checked(frame, &settings_v3()).unwrap();
        prop_assert_eq!((advert.priority, advert.interval_cs), (priority, interval_cs));
        prop_assert_eq!(advert.checksum_form, checksum_form);
    }
}
