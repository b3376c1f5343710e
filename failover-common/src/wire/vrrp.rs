//! VRRP adverts: version 3 (RFC 9568 with its verified errata) and version 2 (RFC 3768, and RFC
//! 2338's password as keepalived still sends it), over IPv4.
//!
//! `check` refuses in the order of RFC 9568 7.1, one counter each, and returns the smallest type
//! that is valid: nothing after it checks again. Deliberately absent: what an advert *means*; that
//! is the election's.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{Sum, checksum};
use super::ethernet::{ETHER_TYPE_IPV4, EthernetHeader, Mac};
use super::ipv4::{DONT_FRAGMENT, Ipv4Header, is_unicast};
use super::{Emit, Frame};
use crate::abi::{ADDRESSES_PER_ROUTER_MAX, AUTHENTICATION_SIMPLE, ChecksumForm, Counter, Settings};
use crate::address::Address;

/// IP protocol number (RFC 9568 5.1.1.4).
pub const PROTOCOL: u8 = 112;
/// Where adverts go (RFC 9568 5.1.1.2).
pub const GROUP_IPV4: [u8; 4] = [224, 0, 0, 18];
/// The only TTL an advert may have (RFC 9568 5.1.1.3).
pub const TTL: u8 = 255;
/// The priority of the owner of the addresses (RFC 9568 5.2.4).
pub const PRIORITY_OWNER: u8 = 255;
/// The priority that gives the addresses up (RFC 9568 5.2.4).
pub const PRIORITY_RELEASE: u8 = 0;
/// Longest frame that [`AdvertFrame::emit`] builds: headers, 20 addresses, a password.
pub const ADVERT_FRAME_LEN_MAX: usize = 14 + 20 + 8 + 4 * ADDRESSES_PER_ROUTER_MAX + AUTHENTICATION_LEN;

/// DSCP CS6, network control: queues that drop under load drop this last.
const TYPE_OF_SERVICE: u8 = 0xc0;
/// The only message type (RFC 9568 5.2.2).
const TYPE_ADVERT: u8 = 1;
/// Authentication data behind a version 2 advert's addresses (RFC 3768 5.3.10).
const AUTHENTICATION_LEN: usize = 8;
/// 4-byte words of the longest message: header, 255 addresses, authentication data.
const WORDS_MAX: usize = 2 + 255 + 2;

/// The 8 bytes before the addresses (RFC 9568 5.1, RFC 3768 5.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct VrrpHeader {
    /// Version in the high half, type in the low half.
    pub version_and_type: u8,
    /// Virtual router id.
    pub vrid: u8,
    /// Priority.
    pub priority: u8,
    /// How many addresses follow.
    pub address_count: u8,
    /// Version 3: 4 reserved bits, Max Advertise Interval in centiseconds (12 bits). Version 2:
    /// authentication type, interval in seconds.
    pub interval: U16,
    /// See [`ChecksumForm`].
    pub checksum: U16,
}

/// A digest of an advert's addresses that does not depend on their order, to notice that two nodes
/// are configured differently. Not a cryptographic one: a mistake is what it finds, not an attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressDigest(pub u32);

impl AddressDigest {
    /// Adds one address.
    #[inline(always)]
    pub fn add(&mut self, address: [u8; 4]) {
        self.0 = self.0.wrapping_add(Self::spread(address));
    }

    /// Takes one back that was added.
    #[inline(always)]
    fn remove(&mut self, address: [u8; 4]) {
        self.0 = self.0.wrapping_sub(Self::spread(address));
    }

    /// Two multiplications and a shift spread each address over the word, so that sums of different
    /// sets differ although sums commute.
    #[inline(always)]
    fn spread(address: [u8; 4]) -> u32 {
        let mixed = u32::from_be_bytes(address).wrapping_mul(0x9e37_79b1);
        (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca77)
    }
}

/// A valid advert of a virtual router that is configured here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The sender's primary address.
    pub source: Address,
    /// 0: the sender gives up. 255: it owns the addresses.
    pub priority: u8,
    /// Its interval, centiseconds for either version.
    pub interval_cs: u16,
    /// Digest of the addresses it lists.
    pub address_digest: AddressDigest,
    /// How its checksum was made.
    pub checksum_form: ChecksumForm,
}

/// The virtual router id of the VRRP message behind the IPv4 header at `offset`; `None` when there
/// is none: a later fragment, or a packet without a whole VRRP header.
#[inline(always)]
pub fn vrid<F: Frame + ?Sized>(frame: &F, ip: &Ipv4Header, offset: usize) -> Option<u8> {
    const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
    if ip.header_len() < 20 || ip.fragment.get() & FRAGMENT_OFFSET_MASK != 0 {
        return None;
    }
    let header: VrrpHeader = frame.read(offset + ip.header_len())?;
    Some(header.vrid)
}

/// Validates an advert of a virtual router with these `settings`; `ip` is the header at `offset`.
///
/// # Errors
/// The counter of the first check that failed.
#[inline(always)]
pub fn check<F: Frame + ?Sized>(
    frame: &F,
    ip: &Ipv4Header,
    offset: usize,
    settings: &Settings,
) -> Result<Advert, Counter> {
    // What an IP layer would have refused before VRRP saw it.
    if ip.is_fragment() || !ip.checksum_holds(frame, offset) {
        return Err(Counter::AdvertBadIp);
    }
    if ip.ttl != TTL {
        return Err(Counter::AdvertBadTtl);
    }
    let start = offset + ip.header_len();
    let header: VrrpHeader = frame.read(start).ok_or(Counter::AdvertBadLength)?;
    if header.version_and_type >> 4 != settings.version {
        return Err(Counter::AdvertBadVersion);
    }
    if header.version_and_type & 0x0f != TYPE_ADVERT {
        return Err(Counter::AdvertBadType);
    }
    let is_v2 = settings.version == 2;
    let authentication_len = if is_v2 { AUTHENTICATION_LEN } else { 0 };
    let addresses_len = usize::from(header.address_count) * 4;
    let message_len = 8 + addresses_len + authentication_len;
    // Longer is allowed: only what the address count announces is the message (RFC 9568 7.1 asks
    // for "the complete VRRP packet"; trailers such as keepalived's HMAC exist).
    if ip.payload_len(frame, offset).is_none_or(|payload_len| payload_len < message_len) {
        return Err(Counter::AdvertBadLength);
    }
    let body = read_body(frame, &header, start, message_len, authentication_len)?;
    let checksum_form = checksum_form(body.sum, ip, message_len, is_v2)?;
    let advert = Advert {
        source: Address::from_ipv4(ip.source),
        priority: header.priority,
        interval_cs: if is_v2 { (header.interval.get() & 0xff) * 100 } else { header.interval.get() & 0x0fff },
        address_digest: body.digest,
        checksum_form,
    };
    // Erratum 8299.
    if header.address_count == 0 {
        return Err(Counter::AdvertNoAddress);
    }
    if is_v2 {
        check_v2(frame, &header, start + 8 + addresses_len, settings)?;
    }
    // Erratum 8301; for version 2 keepalived's issue 1615, an interval that was rounded to 0.
    if advert.interval_cs == 0 {
        return Err(Counter::AdvertZeroInterval);
    }
    // RFC 3768 7.1: an advert with another interval MUST be discarded. Version 3 learns it.
    if is_v2 && advert.interval_cs != settings.advert_interval_cs {
        return Err(Counter::AdvertOtherInterval);
    }
    if !is_unicast(ip.source) || advert.source == settings.own_address {
        return Err(Counter::AdvertBadSource);
    }
    Ok(advert)
}

/// Authentication as configured: type 0 (RFC 3768), or type 1 with the same 8 bytes (RFC 2338).
#[inline(always)]
fn check_v2<F: Frame + ?Sized>(
    frame: &F,
    header: &VrrpHeader,
    data_at: usize,
    settings: &Settings,
) -> Result<(), Counter> {
    if (header.interval.get() >> 8) as u8 != settings.authentication {
        return Err(Counter::AdvertBadAuthentication);
    }
    if settings.authentication == AUTHENTICATION_SIMPLE && frame.read(data_at) != Some(settings.password) {
        return Err(Counter::AdvertBadAuthentication);
    }
    Ok(())
}

/// What one pass over words of 4 bytes yields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words {
    /// Their sum.
    pub sum: Sum,
    /// Their digest, as if each were an address.
    pub digest: AddressDigest,
}

/// Reads the `len` bytes at `offset`, a multiple of 4 and at most a message's; `None` past the end.
#[inline(always)]
pub fn read_words<F: Frame + ?Sized>(frame: &F, offset: usize, len: usize) -> Option<Words> {
    let mut words = Words::default();
    for index in 0..WORDS_MAX {
        if index * 4 >= len {
            break;
        }
        let word = frame.read(offset + index * 4)?;
        words.sum.add_four(word);
        words.digest.add(word);
    }
    Some(words)
}

/// Reads the whole message once. All words go into both sums and those that are no addresses are taken out of the digest
/// again.
#[inline(always)]
fn read_body<F: Frame + ?Sized>(
    frame: &F,
    header: &VrrpHeader,
    start: usize,
    message_len: usize,
    authentication_len: usize,
) -> Result<Words, Counter> {
    let word = |offset: usize| frame.read::<[u8; 4]>(start + offset).ok_or(Counter::AdvertBadLength);
    let mut body = frame.words(start, message_len).ok_or(Counter::AdvertBadLength)?;
    let words: [[u8; 4]; 2] = zerocopy::transmute!(*header);
    words.into_iter().for_each(|word| body.digest.remove(word));
    if authentication_len > 0 {
        body.digest.remove(word(message_len - 8)?);
        body.digest.remove(word(message_len - 4)?);
    }
    Ok(body)
}

/// Which form of checksum fits. Both are accepted in version 3 whatever is configured: refusing a
/// peer for its form would make two Actives out of a setting.
#[inline(always)]
fn checksum_form(message: Sum, ip: &Ipv4Header, message_len: usize, is_v2: bool) -> Result<ChecksumForm, Counter> {
    if message.folded() == 0xffff {
        return Ok(ChecksumForm::Message);
    }
    let mut with_pseudo_header = message;
    add_pseudo_header(&mut with_pseudo_header, ip.source, ip.destination, message_len);
    if !is_v2 && with_pseudo_header.folded() == 0xffff {
        return Ok(ChecksumForm::PseudoHeader);
    }
    Err(Counter::AdvertBadChecksum)
}

/// RFC 793's pseudo-header, as RFC 5798 was read.
#[inline(always)]
fn add_pseudo_header(sum: &mut Sum, source: [u8; 4], destination: [u8; 4], message_len: usize) {
    sum.add_four(source);
    sum.add_four(destination);
    sum.add(u16::from(PROTOCOL));
    sum.add(message_len as u16);
}

/// All that an advert frame is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertFrame<'a> {
    /// The interface's hardware address.
    pub source_mac: Mac,
    /// The interface's primary address.
    pub source: [u8; 4],
    /// 2 or 3.
    pub version: u8,
    /// Virtual router id.
    pub vrid: u8,
    /// Priority; 0 to release.
    pub priority: u8,
    /// Centiseconds; whole seconds in version 2.
    pub interval_cs: u16,
    /// The virtual addresses.
    pub addresses: &'a [[u8; 4]],
    /// Version 2: the password, for authentication type 1.
    pub password: Option<[u8; 8]>,
    /// Version 3: [`ChecksumForm::PseudoHeader`] adds the pseudo-header, all else is RFC 9568's.
    pub checksum_form: ChecksumForm,
}

impl AdvertFrame<'_> {
    /// Builds the frame and returns its length; `None` when the buffer is too small, which
    /// [`ADVERT_FRAME_LEN_MAX`] bytes never are for [`ADDRESSES_PER_ROUTER_MAX`] addresses.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let is_v2 = self.version == 2;
        let authentication_len = if is_v2 { AUTHENTICATION_LEN } else { 0 };
        let message_len = 8 + 4 * self.addresses.len() + authentication_len;
        let mut emit = Emit::new(buffer);
        emit.put(&EthernetHeader {
            destination: Mac::VRRP_IPV4,
            source: self.source_mac,
            ether_type: U16::new(ETHER_TYPE_IPV4),
        })?;
        let ip_at = emit.put(&self.ip_header(message_len))?;
        let message_at = emit.put(&self.vrrp_header())?;
        for address in self.addresses {
            emit.put(address)?;
        }
        if is_v2 {
            emit.put(&self.password.unwrap_or_default())?;
        }
        let frame = emit.written();
        let ip_checksum = U16::new(checksum(&frame[ip_at..message_at]));
        let mut sum = Sum::default();
        sum.add_bytes(&frame[message_at..]);
        if !is_v2 && self.checksum_form == ChecksumForm::PseudoHeader {
            add_pseudo_header(&mut sum, self.source, GROUP_IPV4, message_len);
        }
        frame.write(ip_at + 10, &ip_checksum)?;
        frame.write(message_at + 6, &U16::new(sum.checksum()))?;
        Some(frame.len())
    }

    fn ip_header(&self, message_len: usize) -> Ipv4Header {
        Ipv4Header {
            version_and_len: 0x45,
            type_of_service: TYPE_OF_SERVICE,
            total_len: U16::new(20 + message_len as u16),
            // RFC 6864 4.1: an atomic datagram needs no identification.
            id: U16::ZERO,
            fragment: U16::new(DONT_FRAGMENT),
            ttl: TTL,
            protocol: PROTOCOL,
            checksum: U16::ZERO,
            source: self.source,
            destination: GROUP_IPV4,
        }
    }

    fn vrrp_header(&self) -> VrrpHeader {
        let interval = if self.version == 2 {
            let authentication = if self.password.is_some() { u16::from(AUTHENTICATION_SIMPLE) << 8 } else { 0 };
            authentication | (self.interval_cs / 100)
        } else {
            self.interval_cs & 0x0fff
        };
        VrrpHeader {
            version_and_type: self.version << 4 | TYPE_ADVERT,
            vrid: self.vrid,
            priority: self.priority,
            address_count: self.addresses.len() as u8,
            interval: U16::new(interval),
            checksum: U16::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
