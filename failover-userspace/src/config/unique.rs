//! What no two virtual routers of one node may share: names, VRIDs and addresses.
//!
//! Deliberately absent: other nodes, which share VRIDs and addresses on purpose.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use super::report::Report;
use super::setting::Setting;

/// What the virtual routers seen so far have taken, with the place of each one's header.
#[derive(Default)]
pub(super) struct Taken {
    names: HashMap<String, usize>,
    /// By interface. IPv4 only so far: the other family has VRIDs of its own.
    vrids: HashMap<(String, u8), usize>,
    /// By interface.
    addresses: HashMap<(String, Ipv4Addr), usize>,
    /// On any interface.
    anywhere: HashMap<Ipv4Addr, Holders>,
}

/// Who has an address first.
struct Holders {
    /// Of all.
    first: usize,
    /// Of those that do something about stale connections.
    first_acting: Option<usize>,
}

/// The virtual router that takes.
pub(super) struct Taker<'a> {
    /// The place of its header.
    pub(super) at: usize,
    pub(super) interface: &'a Setting<String>,
    /// Whether it lets stale connections pass; `None` where that is not known.
    pub(super) passes: Option<bool>,
}

impl Taken {
    /// Takes a name, or reports who has it.
    pub(super) fn name(&mut self, taker: &Taker, name: &Setting<String>, report: &mut Report) {
        let Setting::Given(name, span) = name else {
            return;
        };
        let first = *self.names.entry(name.clone()).or_insert(taker.at);
        if first != taker.at {
            let (name, line) = (report.quoted(span), report.line(first));
            report
                .at(span.start, format!("name {name} is taken by the virtual router on line {line}: each has its own"));
        }
    }

    /// Takes a VRID on an interface, or reports who has it.
    pub(super) fn vrid(&mut self, taker: &Taker, vrid: &Setting<u8>, report: &mut Report) {
        let (Setting::Given(interface, _), Setting::Given(vrid, span)) = (taker.interface, vrid) else {
            return;
        };
        let first = *self.vrids.entry((interface.clone(), *vrid)).or_insert(taker.at);
        if first != taker.at {
            let line = report.line(first);
            let message = format!("vrid {vrid} is taken on {interface} by the virtual router on line {line}");
            report.at(span.start, message);
        }
    }

    /// Takes an address, or reports who has it: on the same interface, or on any where one of the two does something
    /// about connections. These are known by address alone, so what one router gains or loses would be the other's too.
    pub(super) fn address(&mut self, taker: &Taker, address: Ipv4Addr, span: &Range<usize>, report: &mut Report) {
        let Setting::Given(interface, _) = taker.interface else {
            return;
        };
        let first = *self.addresses.entry((interface.clone(), address)).or_insert(taker.at);
        if first != taker.at {
            let (address, line) = (report.quoted(span), report.line(first));
            let message = format!("address {address} is taken on {interface} by the virtual router on line {line}");
            report.at(span.start, message);
            return;
        }
        let Some(passes) = taker.passes else {
            return;
        };
        let holders = self.anywhere.entry(address).or_insert(Holders { first: taker.at, first_acting: None });
        let other = if passes { holders.first_acting } else { Some(holders.first).filter(|first| *first != taker.at) };
        if !passes {
            holders.first_acting.get_or_insert(taker.at);
        }
        if let Some(other) = other {
            let (address, line) = (report.quoted(span), report.line(other));
            let message = format!(
                "address {address} is taken by the virtual router on line {line}: an address is on one interface \
                 only, unless stale_connections.action is \"pass\" in both"
            );
            report.at(span.start, message);
        }
    }
}
