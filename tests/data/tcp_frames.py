"""TCP segments to 192.0.2.10 of connections that nobody has, for make_frames.py; and the resets that answer them.

The segments are scapy's. The resets are laid out here byte by byte from RFC 9293 3.1, 3.5.2 and 3.10.7.1 and RFC 791 3.1,
each with the sequence numbers that the RFC gives it, and summed by `internet_checksum` from RFC 1071's definition. A
refused segment is wrong in what its name says and in nothing else: its checksums are those of the wrong bytes.
"""

import socket

from scapy.all import IP, TCP, Dot1AD, Dot1Q, Ether, IPOption_NOP, IPOption_Router_Alert, Raw

NODE_MAC, CLIENT_MAC, BROADCAST = "02:00:00:00:00:0a", "02:00:00:00:00:c1", "ff:ff:ff:ff:ff:ff"
VIP, SECOND_VIP, CLIENT = "192.0.2.10", "192.0.2.11", "192.0.2.100"
CLIENT_PORT, SERVER_PORT = 40000, 80
# Of the segments: all bytes differ.
SEQ, ACK = 0x01020304, 0xA1B2C3D4


def internet_checksum(data):
    """RFC 1071: the complement of the one's complement sum of the 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def two(number):
    return number.to_bytes(2, "big")


def segment(flags="A", payload=b"", tags=(), length=60, padding=b"\0", mac=NODE_MAC, source_mac=CLIENT_MAC, ip=None,
            **tcp):
    """A frame of at least `length` bytes: scapy's, with what follows the packet."""
    frame = Ether(src=source_mac, dst=mac)
    for tag in tags:
        frame = frame / tag
    header = IP(**{"src": CLIENT, "dst": VIP, "ttl": 57, "id": 7, "flags": "DF", **(ip or {})})
    fields = {"sport": CLIENT_PORT, "dport": SERVER_PORT, "seq": SEQ, "ack": ACK, "window": 501, **tcp}
    raw = bytes(frame / header / TCP(flags=flags, **fields) / Raw(payload))
    return raw + padding * (length - len(raw))


def patched(frame, at, replacement):
    return frame[:at] + replacement + frame[at + len(replacement) :]


def summed(frame):
    """An untagged frame with the checksums of the bytes that are there, TCP's as far as the lengths make sense."""
    tcp_at = 14 + 4 * (frame[14] & 15)
    frame = patched(frame, 24, b"\0\0")
    frame = patched(frame, 24, two(internet_checksum(frame[14:tcp_at])))
    tcp_len = int.from_bytes(frame[16:18], "big") - (tcp_at - 14)
    if tcp_at < 34 or not 18 <= tcp_len <= len(frame) - tcp_at:
        return frame
    frame = patched(frame, tcp_at + 16, b"\0\0")
    pseudo_header = frame[26:34] + two(6) + two(tcp_len)
    return patched(frame, tcp_at + 16, two(internet_checksum(pseudo_header + frame[tcp_at : tcp_at + tcp_len])))


def partial(frame):
    """What a local stack leaves to the hardware: the sum of the pseudo-header, not complemented (CHECKSUM_PARTIAL)."""
    tcp_len = int.from_bytes(frame[16:18], "big") - 20
    pseudo_header = frame[26:34] + two(6) + two(tcp_len)
    return patched(frame, 50, two(~internet_checksum(pseudo_header) & 0xFFFF))


# Bytes 12 and 13 of the TCP header: data offset 5, and the control bits.
RST, RST_ACK = b"\x50\x04", b"\x50\x14"


def reset(seq, ack, control, length=60, tags=b"", vip=VIP, client_port=CLIENT_PORT, server_port=SERVER_PORT):
    addresses = socket.inet_aton(vip) + socket.inet_aton(CLIENT)
    # Version 4 and 5 words, TOS 0, 40 bytes; identification 0, DF; TTL 64, protocol 6.
    ip = bytes.fromhex("45000028" "00004000" "4006")
    ip += two(internet_checksum(ip + b"\0\0" + addresses)) + addresses
    tcp = two(server_port) + two(client_port) + seq.to_bytes(4, "big") + ack.to_bytes(4, "big") + control
    window, urgent = b"\0\0", b"\0\0"
    pseudo_header = addresses + bytes.fromhex("0006" "0014")
    checksum = two(internet_checksum(pseudo_header + tcp + window + b"\0\0" + urgent))
    ethernet = bytes.fromhex("0200000000c1" "02000000000a") + tags + b"\x08\x00"
    frame = ethernet + ip + tcp + window + checksum + urgent
    return frame + bytes(length - len(frame))


def answered(add):
    def pair(name, frame, origin, answer, answer_origin):
        add(name, frame, origin)
        add(f"{name}, reset", answer, answer_origin)

    def to_ack(name, origin, ack=ACK, change=bytes, reset_fields=None, **fields):
        answer = reset(ack, 0, RST, **(reset_fields or {}))
        pair(name, change(segment(ack=ack, **fields)), origin, answer, "<SEQ=SEG.ACK><CTL=RST>")

    def without_ack(name, origin, acknowledged, flags="", **fields):
        answer = reset(0, acknowledged, RST_ACK)
        pair(name, segment(flags, **fields), origin, answer, "<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>")

    to_ack("tcp ack", "60 bytes, 6 of them zeros after the packet")
    to_ack("tcp ack of 54 bytes", "without padding, as a veth carries it", length=0, reset_fields={"length": 54})
    to_ack("tcp ack of 57 bytes", "three bytes of padding", length=57, padding=b"\xa5", reset_fields={"length": 57})
    to_ack("tcp ack, dirty padding", "padding that is not zero", padding=b"\xa5")
    to_ack("tcp ack, trailer", "46 bytes after the packet", length=100, padding=b"\xa5")
    to_ack("tcp data, even", "10 bytes", flags="PA", payload=b"0123456789")
    to_ack("tcp data, odd", "7 bytes", flags="PA", payload=b"0123456")
    to_ack("tcp data of one byte", "55 bytes, without padding", flags="PA", payload=b"\xff", length=0,
           reset_fields={"length": 55})
    to_ack("tcp data, trailer", "7 bytes, and 50 after the packet", flags="PA", payload=b"0123456", length=111,
           padding=b"\xa5")
    to_ack("tcp data, most", "1,460 bytes", flags="PA", payload=bytes(range(146)) * 10)
    to_ack("tcp data, most and odd", "1,459 bytes of ones", flags="A", payload=b"\xff" * 1459)
    to_ack("tcp fin", "FIN and ACK", flags="FA")
    to_ack("tcp fin and data", "FIN, PSH and ACK, 7 bytes", flags="FPA", payload=b"0123456")
    to_ack("tcp urgent", "URG, urgent pointer 5", flags="UPA", urgptr=5, payload=b"0123456789")
    to_ack("tcp ece cwr", "ECN's bits (RFC 3168)", flags="ECA")
    to_ack("tcp reserved bits", "the reserved bits set, AE among them (RFC 9293 3.1)", flags="NA", reserved=7)
    to_ack("tcp ack of all ones", "SEG.ACK is the last number", ack=0xFFFFFFFF)
    to_ack("tcp ack of zero", "SEG.ACK is 0: still no ACK in the answer", ack=0)
    to_ack("tcp other ports", "65535 to 1", sport=65535, dport=1, reset_fields={"client_port": 65535, "server_port": 1})
    to_ack("tcp second address", "to 192.0.2.11", ip={"dst": SECOND_VIP}, reset_fields={"vip": SECOND_VIP})
    to_ack("tcp other ip fields", "TOS, identification and TTL that are not to be copied, DF not set",
           ip={"tos": 0xFE, "id": 0xFFFF, "ttl": 1, "flags": 0})

    without_ack("tcp no flags", "not even ACK: SEG.LEN 0", SEQ)
    without_ack("tcp no ack, data even", "SEG.LEN 10", SEQ + 10, "P", payload=b"0123456789")
    without_ack("tcp no ack, data odd", "SEG.LEN 7", SEQ + 7, "P", payload=b"0123456")
    without_ack("tcp no ack, data most", "SEG.LEN 1,460", SEQ + 1460, "P", payload=bytes(range(146)) * 10)
    without_ack("tcp no ack, urgent", "URG alone, SEG.LEN 7", SEQ + 7, "U", urgptr=1, payload=b"0123456")
    without_ack("tcp no ack, fin", "FIN counts: SEG.LEN 1", SEQ + 1, "F")
    without_ack("tcp no ack, fin and data", "SEG.LEN 11", SEQ + 11, "FP", payload=b"0123456789")
    without_ack("tcp no ack, dirty padding", "SEG.LEN 1: padding is no data", SEQ + 1, "F", padding=b"\xa5")
    without_ack("tcp no ack, trailer", "SEG.LEN 7: what follows the packet is no data", SEQ + 7, "P",
                payload=b"0123456", length=111, padding=b"\xa5")
    without_ack("tcp no ack, wraps", "SEG.SEQ ffffff00, SEG.LEN 5b4: 4b4", 0x4B4, "P", seq=0xFFFFFF00,
                payload=bytes(1460))
    without_ack("tcp no ack, fin wraps", "SEG.SEQ is the last number, SEG.LEN 1: 0", 0, "F", seq=0xFFFFFFFF)
    without_ack("tcp no ack, low word wraps", "SEG.SEQ 0000ffff, SEG.LEN 1: 00010000", 0x10000, "F", seq=0xFFFF)

    timestamps = [("NOP", None), ("NOP", None), ("Timestamp", (0x11223344, 0x55667788))]
    to_ack("tcp timestamps", "12 bytes of options, none of them in the answer", options=timestamps)
    to_ack("tcp forty bytes of options", "the longest header", options=[("NOP", None)] * 40)
    to_ack("tcp timestamps and sack", "40 bytes of options, and data", flags="PA", payload=b"0123456",
           options=timestamps + [("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4, 5, 6))])
    to_ack("tcp options end", "end of the option list, then zeros", options=[("NOP", None), ("EOL", None)])
    without_ack("tcp no ack, options", "SEG.LEN 7: options are no data", SEQ + 7, "P", payload=b"0123456",
                options=timestamps)
    alert, nops = [IPOption_Router_Alert()], [IPOption_NOP()] * 40
    to_ack("tcp ip options", "IP header of 24 bytes", ip={"options": alert})
    to_ack("tcp forty bytes of ip options", "IP header of 60 bytes", ip={"options": nops})
    without_ack("tcp no ack, ip options", "SEG.LEN 7: IP options are no data", SEQ + 7, "P", payload=b"0123456",
                ip={"options": alert})
    without_ack("tcp no ack, longest headers", "60 and 60 bytes, SEG.LEN 7", SEQ + 7, "P", payload=b"0123456",
                ip={"options": nops}, options=[("NOP", None)] * 40)

    priority, priority_bytes = Dot1Q(vlan=0, prio=5), bytes.fromhex("8100a000")
    one = {"tags": priority_bytes}
    two_tags = {"tags": priority_bytes * 2, "length": 62}
    to_ack("tcp priority tag", "VID 0; 64 bytes, of which 58 are used", tags=[priority], length=64, reset_fields=one)
    to_ack("tcp priority tag of 58 bytes", "without padding", tags=[priority], length=0,
           reset_fields={**one, "length": 58})
    to_ack("tcp priority tag, data", "65 bytes", tags=[priority], flags="PA", payload=b"0123456", reset_fields=one)
    to_ack("tcp two priority tags", "62 bytes", tags=[priority] * 2, length=0, reset_fields=two_tags)
    to_ack("tcp two priority tags, data", "72 bytes: cut to the 62 of the headers", tags=[priority] * 2, flags="PA",
           payload=b"0123456789", reset_fields=two_tags)
    to_ack("tcp vlan 10", "802.1Q", tags=[Dot1Q(vlan=10)], length=64,
           reset_fields={"tags": bytes.fromhex("8100000a")})
    to_ack("tcp vlans 100 200", "802.1ad", tags=[Dot1AD(vlan=100), Dot1Q(vlan=200)], length=68,
           reset_fields={"tags": bytes.fromhex("88a80064" "810000c8"), "length": 62})

    to_ack("tcp partial checksum", "CHECKSUM_PARTIAL: the pseudo-header's sum alone", change=partial)
    to_ack("tcp partial checksum, data", "the same over 7 bytes", change=partial, flags="PA", payload=b"0123456")
    # SEG.ACK chosen so that a checksum is 0: two forms of zero, and a sum that carries twice.
    plain = internet_checksum(segment(ack=0)[26:34] + two(6) + two(20) + patched(segment(ack=0), 50, b"\0\0")[34:54])
    to_ack("tcp checksum of zeros", "it is 0", ack=plain)
    to_ack("tcp checksum of ones", "it is 0, and written as ffff", ack=plain,
           change=lambda frame: patched(frame, 50, b"\xff\xff"))
    to_ack("tcp reset's checksum of zeros", "the answer's checksum is 0", ack=int.from_bytes(reset(0, 0, RST)[50:52], "big"))


def refused(section, add):
    section("TCP segments to 192.0.2.10 that begin or end a connection")
    add("tcp syn", segment("S", ack=0), "SYN")
    add("tcp syn, ecn", segment("SEC", ack=0), "SYN that asks for ECN (RFC 3168 6.1.1)")
    add("tcp syn, options", segment("S", ack=0, options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)),
                                                       ("NOP", None), ("WScale", 7)]), "as Linux sends it")
    add("tcp syn ack", segment("SA"), "SYN and ACK: an answer to a SYN from the address")
    add("tcp syn, second address", segment("S", ack=0, ip={"dst": SECOND_VIP}), "SYN to 192.0.2.11")
    add("tcp rst", segment("R", ack=0), "RST")
    add("tcp rst ack", segment("RA"), "RST and ACK")

    section("TCP segments to 192.0.2.10 that get no reset")
    data = bytes(range(64))
    add("tcp first fragment", segment("PA", data, ip={"flags": "MF"}), "offset 0, more fragments")
    add("tcp first fragment, df", segment("PA", data, ip={"flags": "MF+DF"}), "offset 0, more fragments, DF")
    add("tcp middle fragment", segment("PA", data, ip={"flags": "MF", "frag": 8}), "offset 64, more fragments")
    add("tcp last fragment", segment("PA", data, ip={"flags": 0, "frag": 185}), "offset 1,480")
    add("tcp last fragment, offset 8", segment("PA", data, ip={"flags": 0, "frag": 1}), "offset 8 (RFC 1858 4)")
    ack, odd = segment(), segment("PA", b"0123456")
    add("tcp wrong checksum", patched(ack, 50, bytes([ack[50], ack[51] ^ 1])), "lowest bit of the checksum flipped")
    add("tcp wrong last byte", patched(odd, 60, b"7"), "the payload's last byte, at an odd length")
    add("tcp wrong checksum, zero", patched(ack, 50, b"\0\0"), "never filled in")
    add("tcp wrong partial checksum", patched(ack, 50, partial(odd)[50:52]), "the pseudo-header's sum of another length")
    add("tcp wrong complemented partial checksum", patched(ack, 50, bytes(byte ^ 0xFF for byte in partial(ack)[50:52])),
        "the pseudo-header's checksum")
    add("tcp checksum over padding", patched(segment(padding=b"\xa5"), 50, segment(payload=b"\xa5" * 6)[50:52]),
        "that of 6 bytes of data which are padding here")
    add("tcp wrong ip checksum", patched(ack, 24, bytes([ack[24] ^ 0x40])), "one bit of the IP checksum flipped")
    optioned = segment(ip={"options": [IPOption_Router_Alert()]})
    add("tcp wrong ip checksum, option", patched(optioned, 37, bytes([optioned[37] ^ 1])), "a bit of the IP option")

    sources = [VIP, SECOND_VIP, "224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "254.1.2.3",
               "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3"]
    for source in sources:
        add(f"tcp from {source}", segment(ip={"src": source}), "a source that no answer may go to")
    add("tcp from multicast mac", segment(source_mac="03:00:00:00:00:c1"), "group bit in the source")
    add("tcp from broadcast mac", segment(source_mac=BROADCAST), "all ones in the source")
    add("tcp to multicast mac", segment(mac="01:00:5e:00:02:0a"), "to a group's hardware address")
    add("tcp to broadcast mac", segment(mac=BROADCAST), "to everybody's hardware address")

    for length in (20, 21, 33, 39):
        add(f"tcp total length {length}", summed(patched(ack, 16, two(length))), f"{length - 20} bytes of TCP header")
    for length in (0, 19):
        add(f"tcp total length {length}", summed(patched(ack, 16, two(length))), "below the IP header's")
    for length in (47, 65535):
        add(f"tcp total length {length}", summed(patched(ack, 16, two(length))), "past the frame's end, at 60")
    for words in range(5):
        add(f"tcp data offset {words}", segment(dataofs=words), "below the header's 5 words")
    add("tcp data offset 6", segment(dataofs=6), "past the packet's end, in padding")
    add("tcp data offset 15", segment(dataofs=15, length=100), "past the packet's end, in padding")
    add("tcp data offset 7, data", segment("PA", b"\1" * 7, dataofs=7), "one byte past the packet's end")
    longer = segment(length=100)
    add("tcp ip header past packet", summed(patched(longer, 14, b"\x4f")), "IP header of 60 bytes in a packet of 40")
    add("tcp ip header of 16 bytes", summed(patched(ack, 14, b"\x44")), "below IP's 5 words")

    # A segment whose options are these bytes: to scapy they are data.
    for name, options in {
        "length 0": b"\x08\x00\x01\x01",
        "length 1": b"\x08\x01\x01\x01",
        "past the header": b"\x01\x02\x04\x05",
        "far past the header": b"\x05\xff\x01\x01",
        "without length": b"\x01\x01\x01\x02",
        "length 0 in the last words": b"\x01" * 38 + b"\x08\x00",
        "without length in the last byte": b"\x01" * 39 + b"\x08",
        "past the header into data": b"\x01\x01\x08\x0a",
    }.items():
        data = b"0123456789" if "data" in name else b""
        add(f"tcp option {name}", segment(payload=options + data, dataofs=5 + len(options) // 4),
            f"options {options.hex()}")
    for name, options in {
        "length 0": b"\x07\x00\x04\x00",
        "length 1": b"\x07\x01\x04\x00",
        "past the header": b"\x01\x07\x04\x04",
        "far past the header": b"\x94\xff\x00\x00",
        "without length": b"\x01\x01\x01\x94",
        "without length in the last byte": b"\x01" * 39 + b"\x94",
    }.items():
        nops = segment(ip={"options": [IPOption_NOP()] * len(options)})
        add(f"tcp ip option {name}", summed(patched(nops, 34, options)), f"IP options {options.hex()}")


def add_all(section, add):
    section("TCP segments to 192.0.2.10 that nobody here knows, and their resets")
    answered(add)
    refused(section, add)
