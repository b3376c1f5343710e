#!/usr/bin/python3
"""Writes frames.txt, the frames of ring 2, with scapy (Debian's python3-scapy, 2.5).

    /usr/bin/python3 tests/data/make_frames.py

Nothing here comes from this project's own emit or parse code: scapy lays out every header and sums IPv4, TCP, UDP,
ICMP, VRRP version 2 and the pseudo-header form of version 3. RFC 9568's form of version 3, over the message alone, is
summed by tcp_frames.py's `internet_checksum`, from RFC 1071's definition. A refused frame is wrong in what its name says and in
nothing else: its checksums are those of the wrong bytes.
"""

import pathlib

from scapy.all import (
    ARP,
    ICMP,
    IP,
    TCP,
    UDP,
    Dot1AD,
    Dot1Q,
    Ether,
    ICMPv6EchoRequest,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPv6,
    Raw,
    fragment,
)
from scapy.layers.vrrp import VRRP, VRRPv3

import tcp_frames
from tcp_frames import internet_checksum

NODE_MAC, PEER_MAC, CLIENT_MAC, STRANGER_MAC = (f"02:00:00:00:00:{n}" for n in ("0a", "0b", "c1", "ee"))
GROUP_MAC, BROADCAST = "01:00:5e:00:00:12", "ff:ff:ff:ff:ff:ff"
NODE, PEER, CLIENT, NOBODY = "192.0.2.5", "192.0.2.9", "192.0.2.100", "192.0.2.77"
VIPS = ["192.0.2.10", "192.0.2.11"]
VIP = VIPS[0]
GROUP = "224.0.0.18"

lines = []


def section(text):
    lines.extend(["", f"## {text}"])


def add(name, frame, origin):
    lines.extend([f"# {origin}", f"{name} = {bytes(frame).hex()}"])


# --- adverts ---------------------------------------------------------------------------------------------------------


def link(tags=()):
    frame = Ether(src=PEER_MAC, dst=GROUP_MAC)
    for tag in tags:
        frame = frame / tag
    return frame


def advert3(form="message", ip=None, tags=(), source=PEER, **fields):
    """A version 3 advert; superior to the tests' node, so that one accepted by mistake ends the lease."""
    fields = {"vrid": 51, "priority": 200, "adv": 100, "addrlist": VIPS, **fields}
    header = IP(src=source, dst=GROUP, ttl=255, proto=112, tos=0xC0, id=0, flags="DF")
    for field, value in (ip or {}).items():
        setattr(header, field, value)
    if form == "message":
        bare = IP(bytes(header / VRRPv3(chksum=0, **fields)))
        fields["chksum"] = internet_checksum(bytes(bare.payload))
    return link(tags) / header / VRRPv3(**fields)


def advert2(ip=None, **fields):
    fields = {"vrid": 51, "priority": 200, "adv": 1, "addrlist": VIPS, **fields}
    header = IP(src=PEER, dst=GROUP, ttl=255, proto=112, tos=0xC0, id=0, flags="DF")
    for field, value in (ip or {}).items():
        setattr(header, field, value)
    return link() / header / VRRP(**fields)


def patch(frame, at, replacement):
    raw = bytearray(bytes(frame))
    raw[at : at + len(replacement)] = replacement
    return bytes(raw)


def with_total_length(frame, length):
    """The frame with another IPv4 total length, and the header's checksum of that."""
    raw = bytearray(bytes(frame))
    raw[16:18] = length.to_bytes(2, "big")
    raw[24:26] = b"\0\0"
    header = 4 * (raw[14] & 15)
    raw[24:26] = internet_checksum(bytes(raw[14 : 14 + header])).to_bytes(2, "big")
    return bytes(raw)


by_hand = "VRRPv3, RFC 9568 checksum by RFC 1071"

section("adverts, version 3, valid; priority 200 from 192.0.2.9, 100 cs, two addresses")
add("v3 message", advert3(), by_hand)
add("v3 pseudo-header", advert3("pseudo-header"), "VRRPv3, checksum scapy's (pseudo-header)")
add("v3 router alert option", advert3(ip={"options": [IPOption_Router_Alert()]}), by_hand + ", IP header of 24 bytes")
add("v3 forty bytes of options", advert3(ip={"options": [IPOption_NOP()] * 40}), by_hand + ", IP header of 60 bytes")
add("v3 zero padding", bytes(advert3()) + bytes(10), by_hand + ", padded to 60 bytes")
add("v3 dirty padding", bytes(advert3()) + b"\xa5" * 33, by_hand + ", odd number of bytes after the packet")
TRAILER = b"\x5a" * 16
add("v3 trailer", with_total_length(bytes(advert3()) + TRAILER, 36 + 16), by_hand + ", 16 more bytes inside the IP packet")
add("v3 reserved bits", advert3(res=15), by_hand + ", reserved bits set (RFC 9568 5.2.6: ignored)")
add("v3 one address", advert3(addrlist=VIPS[:1]), by_hand)
add("v3 255 addresses", advert3(addrlist=[f"198.51.100.{n}" for n in range(255)]), by_hand)
add("v3 shortest interval", advert3(adv=1), by_hand)
add("v3 longest interval", advert3(adv=4095), by_hand)
add("v3 owner", advert3(priority=255), by_hand)
add("v3 priority tag", advert3(tags=[Dot1Q(vlan=0, prio=6)]), by_hand + ", 802.1Q tag with VID 0: no VLAN")

section("adverts, version 3, of somebody else")
add("v3 vrid 52", advert3(vrid=52), by_hand)
add("v3 vlan 10", advert3(tags=[Dot1Q(vlan=10)]), by_hand + ", 802.1Q")
add("v3 vlans 100 200", advert3(tags=[Dot1AD(vlan=100), Dot1Q(vlan=200)]), by_hand + ", 802.1ad")
add("v3 three tags", advert3(tags=[Dot1Q(vlan=0)] * 3), by_hand + ", one tag more than is read")
add("v3 other group", advert3(ip={"dst": "224.0.0.19"}), by_hand + ", sent to 224.0.0.19")
add("v3 protocol 113", advert3(ip={"proto": 113}), by_hand + ", IP protocol 113")
add("v3 later fragment", advert3(ip={"flags": "", "frag": 1}), by_hand + ", fragment offset 8: no VRID in it")

section("adverts, version 3, by priority and source")
for priority in (99, 101):
    add(f"v3 priority {priority}", advert3(priority=priority), by_hand)
add("v3 tie 192.0.2.1", advert3(priority=100, source="192.0.2.1"), by_hand)
add("v3 tie 10.0.0.200", advert3(priority=100, source="10.0.0.200"), by_hand + "; greater only if bytes are swapped")
add("v3 tie 200.0.0.1", advert3(priority=100, source="200.0.0.1"), by_hand + "; lesser if bytes are swapped")
add("v3 tie 192.0.2.9", advert3(priority=100, source="192.0.2.9"), by_hand)
add("v3 release", advert3(priority=0), by_hand)

section("adverts, version 3, inferior; each differs from the first in one thing")
add("v3 steady", advert3(priority=50), by_hand)
add("v3 steady, priority", advert3(priority=60), by_hand)
add("v3 steady, source", advert3(priority=50, source="192.0.2.8"), by_hand)
add("v3 steady, interval", advert3(priority=50, adv=200), by_hand)
add("v3 steady, addresses", advert3(priority=50, addrlist=["192.0.2.10", "192.0.2.12"]), by_hand)
add("v3 steady, fewer addresses", advert3(priority=50, addrlist=VIPS[:1]), by_hand)
add("v3 steady, checksum form", advert3("pseudo-header", priority=50), "VRRPv3, checksum scapy's (pseudo-header)")
add("v3 steady, release", advert3(priority=0), by_hand)
add("v3 steady, order of addresses", advert3(priority=50, addrlist=VIPS[::-1]), by_hand)

section("adverts, version 3, refused")
for ttl in (0, 1, 64, 254):
    add(f"v3 ttl {ttl}", advert3(ip={"ttl": ttl}), by_hand)
for version in (0, 2, 4):
    add(f"v3 version {version}", advert3(version=version), by_hand)
for kind in (0, 2, 15):
    add(f"v3 type {kind}", advert3(type=kind), by_hand)
add("v3 count above addresses", advert3(ipcount=3), by_hand + ", three announced, two there")
add("v3 count above packet, in padding", bytes(advert3(ipcount=3)) + bytes(10), "the same, its third is padding")
add("v3 count 255", advert3(ipcount=255), by_hand)
add("v3 packet beyond frame", with_total_length(advert3(), 37), "total length one above what is there")
add("v3 packet below addresses", with_total_length(advert3(), 35), "total length one below what is announced")
add("v3 packet below header", with_total_length(advert3(), 19), "total length below the IP header's")
add("v3 packet without payload", with_total_length(advert3(), 20), "total length without any VRRP")
add("v3 total length 0", with_total_length(advert3(), 0), "total length 0")
add("v3 total length 65535", with_total_length(advert3(), 65535), "total length 65535")
add("v3 checksum 0", advert3(form=None, chksum=0), "VRRPv3, checksum never filled in")
right = bytes(advert3())
wrong = (int.from_bytes(right[40:42], "big") ^ 1).to_bytes(2, "big")
add("v3 checksum off by one", patch(right, 40, wrong), "lowest bit of the checksum flipped")
add("v3 checksum of another source", patch(advert3("pseudo-header", source="192.0.2.8"), 24, bytes(advert3())[24:30]),
    "pseudo-header checksum of 192.0.2.8, sent from 192.0.2.9")
over_all = internet_checksum(bytes(advert3(form=None, chksum=0))[34:] + TRAILER)
add("v3 checksum over trailer", with_total_length(bytes(advert3(form=None, chksum=over_all)) + TRAILER, 36 + 16),
    "the checksum covers 16 bytes behind the message, too")
add("v3 no address", advert3(addrlist=[]), by_hand + ", count 0")
add("v3 interval 0", advert3(adv=0), by_hand)
add("v3 interval 0, reserved bits", advert3(adv=0, res=15), by_hand)
add("v3 ip checksum", patch(right, 24, bytes([right[24] ^ 0x40])), "one bit of the IP checksum flipped")
optioned = bytes(advert3(ip={"options": [IPOption_Router_Alert()]}))
add("v3 ip checksum in option", patch(optioned, 37, bytes([optioned[37] ^ 1])), "one bit of the IP option flipped")
add("v3 first fragment", advert3(ip={"flags": "MF"}), by_hand + ", more fragments follow")
for source in ("0.0.0.0", "127.0.0.1", "224.0.0.18", "240.0.0.1", "255.255.255.255"):
    add(f"v3 from {source}", advert3(source=source), by_hand)
add("v3 from own address", advert3(source=NODE), by_hand + ", from the node's own address")

section("adverts, version 3, wrong in several things: the first check of RFC 9568 7.1 that fails is counted")
wrong = {"form": None, "chksum": 0x1234, "addrlist": [], "adv": 0}
low = {"ttl": 64}
add("v3 all wrong", patch(advert3(ip=low, version=2, type=2, **wrong), 24, b"\0\0"), "and a wrong IP checksum")
add("v3 wrong from ttl", advert3(ip=low, version=2, type=2, **wrong), "every field from the TTL on is wrong")
add("v3 wrong from version", advert3(version=2, type=2, **wrong), "the TTL is right")
add("v3 wrong from type", advert3(type=2, **wrong), "the version, too")
add("v3 wrong from length", advert3(ipcount=1, **wrong), "the type, too; count 1 without an address")
add("v3 wrong from checksum", advert3(**wrong), "the length, too")
add("v3 wrong from address count", advert3(addrlist=[], adv=0), "the checksum, too")

section("adverts, version 2")
PASSWORD = 0x31313131
v2 = "VRRP (RFC 3768), checksum scapy's"
add("v2", advert2(), v2)
add("v2 password", advert2(authtype=1, auth1=PASSWORD), v2 + ', type 1, "1111"')
add("v2 longest password", advert2(authtype=1, auth1=PASSWORD, auth2=0x32323232), v2 + ', type 1, "11112222"')
add("v2 data without type", advert2(auth1=PASSWORD), v2 + ", type 0: the data is to be ignored (RFC 3768 5.3.6)")
add("v2 wrong password", advert2(authtype=1, auth1=PASSWORD + 1), v2 + ', "1112"')
add("v2 wrong 8th byte", advert2(authtype=1, auth1=PASSWORD, auth2=1), v2 + ", the last byte differs")
add("v2 type 2", advert2(authtype=2, auth1=PASSWORD), v2 + ", RFC 2338's IP authentication header")
add("v2 interval 2", advert2(adv=2), v2)
add("v2 interval 0", advert2(adv=0), v2)
add("v2 no address", advert2(addrlist=[]), v2)
add("v2 type 3", advert2(type=3), v2 + ", message type 3")
add("v2 checksum", patch(advert2(), 40, b"\x12\x34"), "another checksum")
without = bytes(VRRP(vrid=51, priority=200, adv=1, addrlist=VIPS, chksum=0))[:16]
without = patch(without, 6, internet_checksum(without).to_bytes(2, "big"))
bare = link() / IP(src=PEER, dst=GROUP, ttl=255, proto=112, tos=0xC0, id=0, flags="DF") / Raw(without)
add("v2 without authentication data", bare, "the 8 bytes after the addresses are missing, the checksum is right")
raw = bytes(advert2())
pseudo = bytes([192, 0, 2, 9, 224, 0, 0, 18, 0, 112]) + (24).to_bytes(2, "big")
add("v2 pseudo-header", patch(raw, 40, internet_checksum(
    pseudo + raw[34:40] + b"\0\0" + raw[42:]).to_bytes(2, "big")), "version 2 has no pseudo-header")

# --- ARP -------------------------------------------------------------------------------------------------------------


def arp(source=CLIENT_MAC, destination=BROADCAST, tags=(), length=60, padding=b"\0", **fields):
    fields = {"op": 1, "hwsrc": source, "psrc": CLIENT, "hwdst": "00:00:00:00:00:00", "pdst": VIP, **fields}
    frame = Ether(src=source, dst=destination)
    for tag in tags:
        frame = frame / tag
    raw = bytes(frame / ARP(hwtype=1, ptype=0x0800, hwlen=6, plen=4, **fields))
    return raw + padding * (length - len(raw))


def answer(target=CLIENT, **fields):
    return arp(source=NODE_MAC, destination=CLIENT_MAC, op=2, psrc=VIP, hwdst=CLIENT_MAC, pdst=target, **fields)


section("ARP requests for 192.0.2.10 and their answers")
tag = [Dot1Q(vlan=0, prio=5)]
add("arp request", arp(), "who has 192.0.2.10? Tell 192.0.2.100")
add("arp request, answer", answer(), "192.0.2.10 is at 02:00:00:00:00:0a")
add("arp request to the node", arp(destination=NODE_MAC, hwdst=NODE_MAC), "unicast, as neighbours re-confirm")
add("arp request of 42 bytes", arp(length=0), "without padding, as a veth carries it")
add("arp request of 42 bytes, answer", answer(length=0), "not longer than the request")
add("arp request, dirty padding", arp(padding=b"\xa5"), "padding is not ours to read")
add("arp request, dirty padding, answer", answer(padding=b"\xa5"), "nor to change")
add("arp probe", arp(psrc="0.0.0.0"), "RFC 5227 2.1.1: sender 0.0.0.0")
add("arp probe, answer", answer(target="0.0.0.0"), "the target is the probe's sender")
add("arp request, priority tag", arp(tags=tag, length=64), "VID 0")
add("arp request, priority tag, answer", answer(tags=tag, length=64), "the tag is kept")
add("arp request, three priority tags", arp(tags=tag * 3, length=72), "VID 0 three times: Linux takes them all off")
add("arp request, second address", arp(pdst=VIPS[1]), "who has 192.0.2.11?")

section("ARP that is not for us to answer")
add("arp other address", arp(pdst=NOBODY), "who has 192.0.2.77?")
# scapy writes addresses of types it does not know as text: the types are changed in the bytes.
add("arp hardware type 6", patch(arp(), 14, b"\0\x06"), "IEEE 802 networks")
add("arp hardware type 256", patch(arp(), 14, b"\x01\0"), "1, bytes swapped")
add("arp protocol ipv6", patch(arp(), 16, b"\x86\xdd"), "protocol type of IPv6")
add("arp hardware length 8", patch(arp(), 18, b"\x08"), "hardware addresses of 8 bytes")
add("arp protocol length 16", patch(arp(), 19, b"\x10"), "protocol addresses of 16 bytes")
add("arp reply", arp(op=2), "a reply whose target is 192.0.2.10")
add("arp operation 0", arp(op=0), "not assigned")
add("arp operation 3", arp(op=3), "reverse request")
add("arp vlan 10", arp(tags=[Dot1Q(vlan=10)], length=64), "another VLAN")
add("arp vlans 100 200", arp(tags=[Dot1AD(vlan=100), Dot1Q(vlan=200)], length=68), "another VLAN")
add("arp sender is not ethernet source", arp(hwsrc=STRANGER_MAC), "proxied, or forged")
add("arp multicast sender", arp(source="03:00:00:00:00:c1"), "group bit set in both source addresses")
add("arp broadcast sender", arp(source=BROADCAST), "an answer would go to everybody")
add("arp request to another station", arp(destination=STRANGER_MAC), "unicast, not to this node")

section("ARP that claims 192.0.2.10")
add("arp announcement, request form", arp(source=PEER_MAC, psrc=VIP), "RFC 5227 2.3")
add("arp announcement, reply form", arp(source=PEER_MAC, op=2, psrc=VIP, hwdst=BROADCAST), "gratuitous reply")
add("arp reply to a client", arp(source=PEER_MAC, destination=CLIENT_MAC, op=2, psrc=VIP, hwdst=CLIENT_MAC,
                                 pdst=CLIENT), "a foreign answer that came by")
add("arp request from the address", arp(source=PEER_MAC, psrc=VIP, pdst=NOBODY), "who has 192.0.2.77? Tell 192.0.2.10")
add("arp request from one address for the other", arp(source=PEER_MAC, psrc=VIPS[1]), "both are virtual addresses")
add("arp announcement, own", arp(source=NODE_MAC, psrc=VIP), "this node's, come back")
add("arp announcement, other address", arp(source=PEER_MAC, psrc=NOBODY, pdst=NOBODY), "of 192.0.2.77")

# --- IP --------------------------------------------------------------------------------------------------------------


def packet(payload, mac=NODE_MAC, tags=(), length=60, **fields):
    frame = Ether(src=CLIENT_MAC, dst=mac)
    for tag in tags:
        frame = frame / tag
    raw = bytes(frame / IP(**{"src": CLIENT, "dst": VIP, "ttl": 64, "id": 7, **fields}) / payload)
    return raw + bytes(max(length - len(raw), 0))


syn = TCP(sport=40000, dport=80, seq=1000, flags="S")
parts = fragment(IP(src=CLIENT, dst=VIP, id=9) / UDP(sport=5000, dport=53) / Raw(b"x" * 100), fragsize=64)

section("IP packets to 192.0.2.10")
add("ip tcp", packet(syn), "SYN to port 80")
add("ip udp", packet(UDP(sport=5000, dport=53) / Raw(b"question")), "datagram to port 53")
add("ip icmp", packet(ICMP(id=1, seq=1) / Raw(b"x" * 56)), "echo request")
add("ip large", packet(UDP(sport=5000, dport=53) / Raw(bytes(range(256)) * 5)), "1,322 bytes")
add("ip first fragment", Ether(src=CLIENT_MAC, dst=NODE_MAC) / parts[0], "offset 0, more fragments")
add("ip last fragment", Ether(src=CLIENT_MAC, dst=NODE_MAC) / parts[-1], "no UDP header in it")
add("ip options", packet(syn, options=[IPOption_Router_Alert()]), "24 byte header")
add("ip forty bytes of options", packet(syn, options=[IPOption_NOP()] * 40), "60 byte header")
add("ip header length 0", patch(packet(syn), 14, b"\x40"), "a header of no bytes")
add("ip header length 60", patch(packet(syn), 14, b"\x4f"), "options beyond the frame")
add("ip total length 0", patch(packet(syn), 16, b"\0\0"), "a packet of no bytes")
add("ip total length 65535", patch(packet(syn), 16, b"\xff\xff"), "longer than the frame")
add("ip wrong checksum", patch(packet(syn), 24, b"\0\0"), "of the IP header")
add("ip ttl 0", packet(syn, ttl=0), "to be dropped by whom it reaches, but not answered by a fenced node")
add("ip header only", packet(b"", length=34), "nothing after 20 bytes")
add("ip vrrp unicast", packet(VRRPv3(vrid=51, priority=200, addrlist=VIPS), proto=112, ttl=255), "VRRP, not to the group")
add("ip broadcast mac", packet(syn, mac=BROADCAST), "to everybody")
add("ip multicast mac", packet(syn, mac="01:00:5e:00:02:0a"), "to a group")
add("ip priority tag", packet(syn, tags=tag, length=64), "VID 0")
add("ip three priority tags", packet(syn, tags=tag * 3, length=72), "VID 0 three times: Linux takes them all off")

section("IP packets that are not to a virtual address here")
add("ip other mac", packet(syn, mac=STRANGER_MAC), "to 192.0.2.10, another station's frame")
add("ip other address", packet(syn, dst=NOBODY), "to 192.0.2.77")
add("ip from the address", packet(syn, src=VIP, dst=NODE), "from 192.0.2.10")
add("ip vlan 10", packet(syn, tags=[Dot1Q(vlan=10)], length=64), "another VLAN")
add("ip vlans 100 200", packet(syn, tags=[Dot1AD(vlan=100), Dot1Q(vlan=200)], length=68), "another VLAN")
add("ip version 6", patch(packet(syn), 14, b"\x65"), "EtherType of IPv4, version 6")
add("ip 19 bytes", packet(syn)[:33], "one byte short of a header")

section("not IPv4, not ARP")
ethernet = Ether(src=CLIENT_MAC, dst=NODE_MAC)
add("ipv6", ethernet / IPv6(src="2001:db8::64", dst="2001:db8::a") / ICMPv6EchoRequest(), "echo request")
add("ipv6 mapped", ethernet / IPv6(src="2001:db8::64", dst="::ffff:192.0.2.10") / UDP(), "to a mapped 192.0.2.10")
add("lldp", bytes.fromhex("0180c200000e0200000000c188cc0207040200000000c1040703020000") + bytes(31),
    "by hand: chassis id, port id, padding")
add("stp", bytes.fromhex("0180c20000000200000000c10026424203000000000080000200000000c1") + bytes(30),
    "by hand: IEEE 802.3 length 38, LLC 42 42 03")
add("link layer ipv4", bytes(ethernet)[:12] + b"\x08\x00", "14 bytes and no more")
add("link layer arp", bytes(ethernet)[:12] + b"\x08\x06", "14 bytes and no more")
add("link layer vlan", bytes(ethernet)[:12] + b"\x81\x00", "14 bytes, the tag is missing")
add("link layer half a tag", bytes(ethernet)[:12] + b"\x81\x00\0\0\x81\x00\0", "the second tag ends early")
add("zeros", bytes(60), "60 zero bytes")
add("ones", b"\xff" * 60, "60 bytes of ones")

tcp_frames.add_all(section, add)

# ---------------------------------------------------------------------------------------------------------------------

head = [
    "# Frames of ring 2: `name = hex`, after a line that says what it is. Written by make_frames.py with scapy 2.5;",
    "# change that, not this. This node: 02:00:00:00:00:0a 192.0.2.5, priority 100, VRID 51, 192.0.2.10 and .11.",
]
pathlib.Path(__file__).with_name("frames.txt").write_text("\n".join(head + lines) + "\n")
