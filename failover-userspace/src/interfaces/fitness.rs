//! Which interfaces cannot serve a virtual address.
//!
//! Deliberately absent: whether one is up, or has an address. That may change.

use std::collections::BTreeMap;

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

use crate::unfit::Unfit;

/// All links of this network namespace by their index: name and kind.
pub type Links = BTreeMap<u32, (String, Option<InfoKind>)>;

/// Why a link cannot serve, by what netlink tells of it; `None`: it can.
pub fn unfit(link: &LinkMessage, links: &Links) -> Option<Unfit> {
    let layer = link.header.link_layer_type;
    let name = |index: u32| links.get(&index).map_or_else(|| format!("index {index}"), |(name, _)| name.clone());
    if link.header.flags.contains(LinkFlags::Loopback) {
        return Some(Unfit::Loopback);
    }
    if layer != LinkLayerType::Ether {
        return Some(Unfit::NotEthernet(u16::from(layer)));
    }
    let value = |of: fn(&LinkAttribute) -> Option<u32>| link.attributes.iter().find_map(of);
    let master = value(|attribute| match attribute {
        LinkAttribute::Controller(index) if *index != 0 => Some(*index),
        _ => None,
    });
    if let Some(master) = master {
        match links.get(&master).and_then(|(_, kind)| kind.as_ref()) {
            // It routes by another table, its frames are its own.
            Some(InfoKind::Vrf) => {}
            kind => {
                let kind = kind.map_or_else(|| "interface".into(), ToString::to_string);
                return Some(Unfit::Port { kind, master: name(master) });
            }
        }
    }
    match kind_of(link)? {
        InfoKind::Dummy => Some(Unfit::Dummy),
        InfoKind::Vrf => Some(Unfit::Vrf),
        InfoKind::MacVlan => {
            // One whose parent is in another network namespace: the kernel there does not have the addresses.
            let is_elsewhere = link.attributes.iter().any(|one| matches!(one, LinkAttribute::LinkNetNsId(_)));
            let parent = value(|attribute| match attribute {
                LinkAttribute::Link(index) => Some(*index),
                _ => None,
            });
            parent.filter(|_| !is_elsewhere).map(|parent| Unfit::Macvlan(name(parent)))
        }
        _ => None,
    }
}

/// What kind of link it is; `None`: a device that a driver made.
pub fn kind_of(link: &LinkMessage) -> Option<&InfoKind> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link as the kernel tells of it.
    fn link(layer: LinkLayerType, kind: Option<InfoKind>, more: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        (message.header.link_layer_type, message.header.index) = (layer, 2);
        message.attributes.push(LinkAttribute::IfName("it".into()));
        message.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        message.attributes.extend_from_slice(more);
        message
    }

    fn others() -> Links {
        let named = |name: &str, kind| (name.to_string(), kind);
        Links::from([
            (3, named("eth0", None)),
            (4, named("br0", Some(InfoKind::Bridge))),
            (5, named("bond0", Some(InfoKind::Bond))),
            (6, named("team0", Some(InfoKind::Team))),
            (7, named("red", Some(InfoKind::Vrf))),
            (8, named("ovs-system", Some(InfoKind::Other("openvswitch".into())))),
        ])
    }

    fn judge(message: &LinkMessage) -> Option<String> {
        unfit(message, &others()).map(|unfit| unfit.to_string())
    }

    #[test]
    fn f12_what_has_a_wire_of_its_own_serves() {
        use LinkLayerType::Ether;
        for (kind, more) in [
            (None, vec![]),
            (None, vec![LinkAttribute::Controller(0)]),
            (None, vec![LinkAttribute::Controller(7)]),
            (Some(InfoKind::Veth), vec![LinkAttribute::Link(9), LinkAttribute::LinkNetNsId(0)]),
            (Some(InfoKind::Bridge), vec![]),
            (Some(InfoKind::Bond), vec![]),
            (Some(InfoKind::Vlan), vec![LinkAttribute::Link(3)]),
            (Some(InfoKind::Tun), vec![]),
            (Some(InfoKind::MacVlan), vec![LinkAttribute::Link(3), LinkAttribute::LinkNetNsId(0)]),
        ] {
            assert_eq!(judge(&link(Ether, kind.clone(), &more)), None, "{kind:?} {more:?}");
        }
    }

    #[test]
    fn f12_what_has_none_is_refused_with_what_to_use() {
        use LinkLayerType::Ether;
        for (message, told) in [
            (link(LinkLayerType::None, Some(InfoKind::Tun), &[]), "is not Ethernet (link type 65534)"),
            (link(LinkLayerType::None, Some(InfoKind::Wireguard), &[]), "is not Ethernet (link type 65534)"),
            (link(LinkLayerType::Ppp, None, &[]), "is not Ethernet (link type 512)"),
            (link(Ether, Some(InfoKind::Dummy), &[]), "is a dummy, which has no wire"),
            (link(Ether, Some(InfoKind::Vrf), &[]), "is a VRF, which has no wire: use an interface in it"),
            (link(Ether, Some(InfoKind::MacVlan), &[LinkAttribute::Link(3)]), "is a macvlan on \"eth0\""),
            (link(Ether, Some(InfoKind::Veth), &[LinkAttribute::Controller(4)]), "is a port of the bridge \"br0\""),
            (link(Ether, None, &[LinkAttribute::Controller(5)]), "is a port of the bond \"bond0\""),
            (link(Ether, None, &[LinkAttribute::Controller(6)]), "is a port of the team \"team0\""),
            (link(Ether, None, &[LinkAttribute::Controller(8)]), "is a port of the openvswitch \"ovs-system\""),
            (link(Ether, None, &[LinkAttribute::Controller(99)]), "is a port of the interface \"index 99\""),
        ] {
            let unfit = judge(&message).unwrap_or_else(|| panic!("{told}: taken"));
            assert!(unfit.starts_with(told), "{unfit}");
        }
        let mut loopback = link(LinkLayerType::Loopback, None, &[]);
        loopback.header.flags = LinkFlags::Loopback | LinkFlags::Up;
        assert!(judge(&loopback).is_some_and(|unfit| unfit.starts_with("is the loopback")));
    }
}
