//! The shape of the file: which tables there are, which keys they have, and the type of each.
//!
//! Not serde: it stops at the first problem, and all are wanted, with their places. Deliberately
//! absent: bounds and what keys mean for each other, which validate.rs checks.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::report::Report;
use super::section::Section;
use super::setting::{Key, Setting};

/// The whole file.
pub(super) struct Document<'a> {
    pub(super) node: Node<'a>,
    pub(super) data_plane: DataPlane<'a>,
    pub(super) replication: Option<Replication<'a>>,
    pub(super) virtual_routers: Setting<Vec<VirtualRouter<'a>>>,
}

/// `[node]`; `at` is its header, or the beginning of the file.
#[derive(Default)]
pub(super) struct Node<'a> {
    pub(super) at: usize,
    pub(super) name: Setting<&'a str>,
    pub(super) realtime_priority: Setting<i64>,
}

/// `[data_plane]`.
#[derive(Default)]
pub(super) struct DataPlane<'a> {
    pub(super) pin_path: Setting<&'a str>,
    pub(super) xdp_mode: Setting<&'a str>,
    pub(super) flows_max: Setting<i64>,
    pub(super) resets_per_second: Setting<i64>,
}

/// `[replication]`; `at` is its header.
pub(super) struct Replication<'a> {
    pub(super) at: usize,
    pub(super) listen: Setting<&'a str>,
    pub(super) peers: Setting<&'a [Spanned<DeValue<'a>>]>,
    pub(super) key_file: Setting<&'a str>,
}

/// One `[[virtual_router]]`; `at` is its header.
pub(super) struct VirtualRouter<'a> {
    pub(super) at: usize,
    pub(super) name: Setting<&'a str>,
    pub(super) interface: Setting<&'a str>,
    pub(super) vrid: Setting<i64>,
    pub(super) version: Setting<i64>,
    pub(super) priority: Setting<i64>,
    pub(super) advert_interval: Setting<&'a str>,
    pub(super) addresses: Setting<&'a [Spanned<DeValue<'a>>]>,
    pub(super) preempt: Setting<bool>,
    pub(super) preempt_delay: Setting<&'a str>,
    pub(super) accept: Setting<bool>,
    pub(super) password: Setting<&'a str>,
    pub(super) checksum: Setting<&'a str>,
    pub(super) announce: Announce<'a>,
    pub(super) stale_connections: StaleConnections<'a>,
}

/// `announce`, in either way of writing a table.
#[derive(Default)]
pub(super) struct Announce<'a> {
    pub(super) count: Setting<i64>,
    pub(super) interval: Setting<&'a str>,
    pub(super) refresh: Setting<&'a str>,
}

/// `[virtual_router.stale_connections]`.
#[derive(Default)]
pub(super) struct StaleConnections<'a> {
    pub(super) action: Setting<&'a str>,
    pub(super) hold: Setting<&'a str>,
    pub(super) ports: Setting<&'a [Spanned<DeValue<'a>>]>,
}

impl<'a> Document<'a> {
    pub(super) fn read(entries: &'a DeTable<'a>, report: &mut Report) -> Self {
        let root = Section::root(entries);
        let known = [keys::NODE, keys::DATA_PLANE, keys::REPLICATION, keys::VIRTUAL_ROUTER];
        root.refuse_unknown("at the top level", &known, report);
        let node = root.section(&keys::NODE, report);
        let data_plane = root.section(&keys::DATA_PLANE, report);
        let replication = root.section(&keys::REPLICATION, report);
        let virtual_routers = match root.sections(&keys::VIRTUAL_ROUTER, report) {
            Setting::Absent => Setting::Absent,
            Setting::Refused => Setting::Refused,
            Setting::Given(sections, span) => {
                let tables = sections.iter().map(|section| VirtualRouter::read(section, report));
                Setting::Given(tables.collect(), span)
            }
        };
        Self {
            node: node.map(|section| Node::read(&section, report)).unwrap_or_default(),
            data_plane: data_plane.map(|section| DataPlane::read(&section, report)).unwrap_or_default(),
            replication: replication.map(|section| Replication::read(&section, report)),
            virtual_routers,
        }
    }
}

impl<'a> Node<'a> {
    fn read(section: &Section<'a>, report: &mut Report) -> Self {
        section.refuse_unknown("in [node]", &[keys::NODE_NAME, keys::REALTIME_PRIORITY], report);
        Self {
            at: section.at(),
            name: section.text(&keys::NODE_NAME, report),
            realtime_priority: section.number(&keys::REALTIME_PRIORITY, report),
        }
    }
}

impl<'a> DataPlane<'a> {
    fn read(section: &Section<'a>, report: &mut Report) -> Self {
        let known = [keys::PIN_PATH, keys::XDP_MODE, keys::FLOWS_MAX, keys::RESETS_PER_SECOND];
        section.refuse_unknown("in [data_plane]", &known, report);
        Self {
            pin_path: section.text(&keys::PIN_PATH, report),
            xdp_mode: section.text(&keys::XDP_MODE, report),
            flows_max: section.number(&keys::FLOWS_MAX, report),
            resets_per_second: section.number(&keys::RESETS_PER_SECOND, report),
        }
    }
}

impl<'a> Replication<'a> {
    fn read(section: &Section<'a>, report: &mut Report) -> Self {
        section.refuse_unknown("in [replication]", &[keys::LISTEN, keys::PEERS, keys::KEY_FILE], report);
        Self {
            at: section.at(),
            listen: section.text(&keys::LISTEN, report),
            peers: section.list(&keys::PEERS, report),
            key_file: section.text(&keys::KEY_FILE, report),
        }
    }
}

impl<'a> VirtualRouter<'a> {
    /// The keys of the table, in the order of the documentation.
    const KEYS: [Key; 14] = [
        keys::NAME,
        keys::INTERFACE,
        keys::VRID,
        keys::VERSION,
        keys::PRIORITY,
        keys::ADVERT_INTERVAL,
        keys::ADDRESSES,
        keys::PREEMPT,
        keys::PREEMPT_DELAY,
        keys::ACCEPT,
        keys::PASSWORD,
        keys::CHECKSUM,
        keys::ANNOUNCE,
        keys::STALE_CONNECTIONS,
    ];

    fn read(section: &Section<'a>, report: &mut Report) -> Self {
        section.refuse_unknown("in [[virtual_router]]", &Self::KEYS, report);
        let announce = section.section(&keys::ANNOUNCE, report);
        let stale_connections = section.section(&keys::STALE_CONNECTIONS, report);
        Self {
            at: section.at(),
            name: section.text(&keys::NAME, report),
            interface: section.text(&keys::INTERFACE, report),
            vrid: section.number(&keys::VRID, report),
            version: section.number(&keys::VERSION, report),
            priority: section.number(&keys::PRIORITY, report),
            advert_interval: section.text(&keys::ADVERT_INTERVAL, report),
            addresses: section.list(&keys::ADDRESSES, report),
            preempt: section.truth(&keys::PREEMPT, report),
            preempt_delay: section.text(&keys::PREEMPT_DELAY, report),
            accept: section.truth(&keys::ACCEPT, report),
            password: section.text(&keys::PASSWORD, report),
            checksum: section.text(&keys::CHECKSUM, report),
            announce: announce.map(|section| Announce::read(&section, report)).unwrap_or_default(),
            stale_connections: stale_connections
                .map(|section| StaleConnections::read(&section, report))
                .unwrap_or_default(),
        }
    }
}

impl<'a> Announce<'a> {
    fn read(section: &Section<'a>, report: &mut Report) -> Self {
        section.refuse_unknown("in announce", &[keys::COUNT, keys::INTERVAL, keys::REFRESH], report);
        Self {
            count: section.number(&keys::COUNT, report),
            interval: section.text(&keys::INTERVAL, report),
            refresh: section.text(&keys::REFRESH, report),
        }
    }
}

impl<'a> StaleConnections<'a> {
    fn read(section: &Section<'a>, report: &mut Report) -> Self {
        let known = [keys::ACTION, keys::HOLD, keys::PORTS];
        section.refuse_unknown("in [virtual_router.stale_connections]", &known, report);
        Self {
            action: section.text(&keys::ACTION, report),
            hold: section.text(&keys::HOLD, report),
            ports: section.list(&keys::PORTS, report),
        }
    }
}
