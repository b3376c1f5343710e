#!/usr/bin/env bash
# A packet socket that asks for one EtherType gets the frames of VLANs that have no device, without their tag.
#
# Seen on Linux 6.18.44 with scapy 2.6.1: an ARP request with an 802.1Q tag (VLAN 50) reaches a socket bound to ETH_P_ALL
# with its tag (PACKET_AUXDATA: TP_STATUS_VLAN_VALID, VLAN 50), and one bound to ETH_P_ARP without: no VLAN in the auxiliary
# data, the frame's bytes untagged. All that is left of it is the packet type, PACKET_OTHERHOST (3) instead of
# PACKET_BROADCAST (1). One would guess that such a socket gets no tagged frame (its EtherType is 0x8100), or the tag with
# it. Who hears ARP or VRRP in this way takes another VLAN's for its own unless it looks at the packet type; a classic BPF
# filter on SKF_AD_VLAN_TAG_PRESENT does not tell either. Why: __netif_receive_skb_core clears the tag of an unknown VLAN
# after the sockets for all protocols and before those for one.
#
# Needs root, python3 with venv, iproute2. Exits with 1 if this changes.
set -euo pipefail
work=$(mktemp -d)
name="fnd$$"
cleanup() { ip netns delete "$name" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scapy==2.6.1
ip netns add "$name"
ip -n "$name" link add name left type veth peer name right
ip -n "$name" link set left up
ip -n "$name" link set right up
cat >"$work/look.py" <<'PY'
import socket, struct, sys, time
from scapy.all import ARP, Dot1Q, Ether, raw

def listen(protocol):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    s.bind(("right", protocol))
    s.settimeout(10)
    return s

every, arp = listen(3), listen(0x0806)  # ETH_P_ALL, ETH_P_ARP
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("left", 0))

def send(address, *tag):
    frame = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
    for one in tag:
        frame = frame / one
    sender.send(raw(frame / ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="192.0.2.1", pdst=address)))

def seen(s, address):
    wanted = socket.inet_aton(address)
    while True:
        data, more, _, (_, _, kind, _, _) = s.recvmsg(2048, 256)
        if data[-4:] != wanted and wanted not in data:
            continue
        # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid; TP_STATUS_VLAN_VALID is 16.
        status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", more[0][2])
        vlan = tci & 0xFFF if status & 16 else None
        return {"vlan": vlan, "ether_type": data[12:14].hex(), "packet_type": kind}

send("192.0.2.50", Dot1Q(vlan=50))
send("192.0.2.99")
got = {
    "ETH_P_ALL, VLAN 50": seen(every, "192.0.2.50"),
    "ETH_P_ARP, VLAN 50": seen(arp, "192.0.2.50"),
    "ETH_P_ARP, no VLAN": seen(arp, "192.0.2.99"),
}
for what, how in got.items():
    print(f"{what}: {how}")
expected = {
    "ETH_P_ALL, VLAN 50": {"vlan": 50, "ether_type": "0806", "packet_type": 1},
    "ETH_P_ARP, VLAN 50": {"vlan": None, "ether_type": "0806", "packet_type": 3},
    "ETH_P_ARP, no VLAN": {"vlan": None, "ether_type": "0806", "packet_type": 1},
}
sys.exit(got != expected)
PY
echo "Linux $(uname -r)"
ip netns exec "$name" "$work/venv/bin/python" "$work/look.py"
