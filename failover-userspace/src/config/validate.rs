//! From what the file says to what it means: defaults, bounds, and what one key allows another.
//!
//! Every function gives a value even when it reported a problem, so that the next is found too;
//! such a value never leaves, because a [`Report`] with problems is what the caller gets then.
//! Deliberately absent: the reading of single values, in value.rs and address.rs.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use failover_common::abi::{FLOWS_MAX_DEFAULT, STALE_PORTS_MAX, StaleAction};
use ipnet::Ipv4Net;
use toml::Spanned;
use toml::de::DeValue;

use super::report::Report;
use super::setting::{Key, Setting};
use super::unique::{Taken, Taker};
use super::{Announce, ChecksumForm, Config, DataPlane, Node, StaleConnections, Version, VirtualRouter, XdpMode};
use super::{address, keys, raw, replication, section, value};

/// The data plane's maps are made for this many; a node with more is a mistake.
const VIRTUAL_ROUTERS_MAX: usize = 256;
/// Of one virtual router: keepalived's limit, so that a peer of either kind takes our adverts.
const ADDRESSES_MAX: usize = 20;
const NODE_NAME_BYTES_MAX: usize = 63;
const ROUTER_NAME_BYTES_MAX: usize = 31;

/// RFC 9568 §5.2.4: the priority of the router that owns the addresses.
const PRIORITY_OWNER: u8 = 255;
/// RFC 9568 §6.1.
const PRIORITY_DEFAULT: u8 = 100;
/// RFC 9568 §6.1: 100 centiseconds.
const ADVERT_INTERVAL_DEFAULT_CS: u16 = 100;
const ANNOUNCE_DEFAULT: Announce = Announce { count: 5, interval: Duration::from_millis(100), refresh: Duration::ZERO };

/// Fewer are none; more than 16 times the default would take half a gigabyte.
const FLOWS_MAX_ALLOWED: RangeInclusive<u32> = 1024..=4_194_304;
/// A hundred times what fits a 10 Gbit/s link: no limit at all.
const RESETS_PER_SECOND_ALLOWED: RangeInclusive<u32> = 1..=100_000_000;
/// What one CPU's kernel answers about as fast, and a tenth of a 1 Gbit/s link.
const RESETS_PER_SECOND_DEFAULT: u32 = 100_000;
const HOLD_MAX: Duration = Duration::from_secs(60);

/// keepalived's limit.
const PREEMPT_DELAY_MAX: Duration = Duration::from_secs(1000);
const ANNOUNCE_INTERVAL_MAX: Duration = Duration::from_secs(10);
const ANNOUNCE_REFRESH_MIN: Duration = Duration::from_secs(1);
const ANNOUNCE_REFRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The configuration that `raw` means; it may only be used when `report` stays empty.
pub(super) fn config(raw: raw::Document, host_name: &str, report: &mut Report) -> Config {
    let virtual_routers = virtual_routers(raw.virtual_routers, report);
    Config {
        node: node(raw.node, host_name, report),
        data_plane: data_plane(raw.data_plane, report),
        replication: raw.replication.map(|raw| replication::replication(raw, &virtual_routers, report)),
        virtual_routers,
    }
}

fn node(raw: raw::Node, host_name: &str, report: &mut Report) -> Node {
    let valid = |name: &str| value::word(name, NODE_NAME_BYTES_MAX);
    if matches!(raw.name, Setting::Absent) && valid(host_name).is_none() {
        let allowed = keys::NODE_NAME.allowed;
        report
            .missing(raw.at, format!("name is missing in [node] and the host name does not do: it must be {allowed}"));
    }
    Node {
        name: raw.name.convert(&keys::NODE_NAME, report, valid).or(host_name.to_owned()),
        realtime_priority: whole(raw.realtime_priority, &keys::REALTIME_PRIORITY, 0..=99, report).or(0),
    }
}

fn data_plane(raw: raw::DataPlane, report: &mut Report) -> DataPlane {
    let modes = [XdpMode::Auto, XdpMode::Native, XdpMode::Generic];
    let mode = |word: &str| modes.into_iter().find(|mode| mode.as_str() == word);
    let pin_path = raw.pin_path.convert(&keys::PIN_PATH, report, value::absolute_path);
    DataPlane {
        pin_path: pin_path.or(PathBuf::from("/sys/fs/bpf/failover")),
        xdp_mode: raw.xdp_mode.convert(&keys::XDP_MODE, report, mode).or(XdpMode::Auto),
        flows_max: number(raw.flows_max, &keys::FLOWS_MAX, FLOWS_MAX_ALLOWED, report).or(FLOWS_MAX_DEFAULT),
        resets_per_second: number(raw.resets_per_second, &keys::RESETS_PER_SECOND, RESETS_PER_SECOND_ALLOWED, report)
            .or(RESETS_PER_SECOND_DEFAULT),
    }
}

fn virtual_routers(raw: Setting<Vec<raw::VirtualRouter>>, report: &mut Report) -> Vec<VirtualRouter> {
    let (routers, at) = match raw {
        Setting::Refused => return Vec::new(),
        Setting::Absent => (Vec::new(), 0),
        Setting::Given(routers, span) => (routers, span.start),
    };
    if routers.is_empty() {
        report.missing(at, "no virtual router: at least one [[virtual_router]] is needed".to_owned());
    }
    if let Some(router) = routers.get(VIRTUAL_ROUTERS_MAX) {
        let count = routers.len();
        report.at(router.at, format!("{count} virtual routers: a node takes 1 to {VIRTUAL_ROUTERS_MAX}"));
    }
    let mut taken = Taken::default();
    routers.into_iter().map(|raw| virtual_router(raw, &mut taken, report)).collect()
}

fn virtual_router(raw: raw::VirtualRouter, taken: &mut Taken, report: &mut Report) -> VirtualRouter {
    let at = raw.at;
    let name = raw.name.convert(&keys::NAME, report, |text| value::word(text, ROUTER_NAME_BYTES_MAX));
    let interface = raw.interface.convert(&keys::INTERFACE, report, value::interface);
    let vrid = whole(raw.vrid, &keys::VRID, 1..=255, report);
    require(&name, &keys::NAME, at, report);
    require(&interface, &keys::INTERFACE, at, report);
    require(&vrid, &keys::VRID, at, report);
    require(&raw.addresses, &keys::ADDRESSES, at, report);

    let action = stale_action(raw.stale_connections.action, report);
    let passes = action.in_force(StaleAction::Reset).map(|action| action == StaleAction::Pass);
    let taker = Taker { at, interface: &interface, passes };
    taken.name(&taker, &name, report);
    taken.vrid(&taker, &vrid, report);
    let addresses = addresses(raw.addresses, &taker, taken, report);

    let version = raw.version.convert(&keys::VERSION, report, |number| match number {
        2 => Some(Version::V2),
        3 => Some(Version::V3),
        _ => None,
    });
    let version_known = version.in_force(Version::V3);
    let priority = whole(raw.priority, &keys::PRIORITY, 1..=255, report);
    let (preempt, preempt_delay) = preemption(raw.preempt, raw.preempt_delay, &priority, report);
    VirtualRouter {
        advert_interval_cs: advert_interval(raw.advert_interval, version_known, report),
        password: password(raw.password, version_known, report),
        checksum: checksum(raw.checksum, version_known, report),
        announce: announce(raw.announce, report),
        stale_connections: StaleConnections {
            action: action.or(StaleAction::Reset),
            hold: duration(raw.stale_connections.hold, &keys::HOLD, |hold| hold <= HOLD_MAX, report).or(Duration::ZERO),
            ports: ports(raw.stale_connections.ports, report),
        },
        name: name.or(String::new()),
        interface: interface.or(String::new()),
        vrid: vrid.or(0),
        version: version.or(Version::V3),
        priority: priority.or(PRIORITY_DEFAULT),
        addresses,
        preempt,
        preempt_delay,
        accept: raw.accept.or(true),
        line: report.line(at),
    }
}

pub(super) fn require<T>(setting: &Setting<T>, key: &Key, at: usize, report: &mut Report) {
    if matches!(setting, Setting::Absent) {
        report.missing(at, key.is_missing());
    }
}

/// A whole number in `bounds`, which fit a byte.
fn whole(raw: Setting<i64>, key: &Key, bounds: RangeInclusive<u8>, report: &mut Report) -> Setting<u8> {
    raw.convert(key, report, |number| u8::try_from(number).ok().filter(|number| bounds.contains(number)))
}

/// A whole number in `bounds`.
fn number(raw: Setting<i64>, key: &Key, bounds: RangeInclusive<u32>, report: &mut Report) -> Setting<u32> {
    raw.convert(key, report, |number| u32::try_from(number).ok().filter(|number| bounds.contains(number)))
}

/// A duration for which `allowed` holds.
fn duration(
    raw: Setting<&str>,
    key: &Key,
    allowed: impl Fn(Duration) -> bool,
    report: &mut Report,
) -> Setting<Duration> {
    raw.convert(key, report, |text| value::duration(text).filter(|duration| allowed(*duration)))
}

fn addresses(raw: Setting<&[Spanned<DeValue>]>, taker: &Taker, taken: &mut Taken, report: &mut Report) -> Vec<Ipv4Net> {
    let Setting::Given(elements, span) = raw else {
        return Vec::new();
    };
    match elements.len() {
        0 => report.at(span.start, keys::ADDRESSES.must_be("an empty list")),
        1..=ADDRESSES_MAX => {}
        count => {
            let message = format!("{count} addresses: a virtual router takes 1 to {ADDRESSES_MAX}");
            report.at(span.start, message);
        }
    }
    let mut own = HashSet::new();
    let mut addresses = Vec::new();
    for element in elements {
        let (span, found) = (element.span(), section::found(element, report));
        let Some(text) = element.get_ref().as_str() else {
            report.at(span.start, keys::ADDRESSES.must_be(&format!("of {found}")));
            continue;
        };
        match address::parse(text) {
            Err(reason) => report.at(span.start, format!("address {found} {reason}")),
            Ok(net) if !own.insert(net.addr()) => {
                report.at(span.start, format!("address {found} is given twice: once is allowed"));
            }
            Ok(net) => {
                taken.address(taker, net.addr(), &span, report);
                addresses.push(net);
            }
        }
    }
    addresses
}

fn advert_interval(raw: Setting<&str>, version: Option<Version>, report: &mut Report) -> u16 {
    let interval = raw.convert(&keys::ADVERT_INTERVAL, report, value::duration);
    // Without a version there are no bounds to hold it to.
    let Some(version) = version else {
        return ADVERT_INTERVAL_DEFAULT_CS;
    };
    let in_steps = interval.and_then(report, |interval, report, span| {
        value::advert_interval_cs(interval, version)
            .map_err(|reason| format!("advert_interval {} {reason}", report.quoted(span)))
    });
    in_steps.or(ADVERT_INTERVAL_DEFAULT_CS)
}

fn preemption(
    preempt: Setting<bool>,
    delay: Setting<&str>,
    priority: &Setting<u8>,
    report: &mut Report,
) -> (bool, Duration) {
    let delay = duration(delay, &keys::PREEMPT_DELAY, |delay| delay <= PREEMPT_DELAY_MAX, report);
    let owner = matches!(priority, Setting::Given(PRIORITY_OWNER, _));
    let never = matches!(preempt, Setting::Given(false, _));
    if let Setting::Given(false, span) = &preempt
        && owner
    {
        // RFC 9568 §6.1: the owner preempts whatever this flag says.
        let message = "preempt = false is not allowed with priority 255: the owner of the addresses always preempts";
        report.at(span.start, format!("{message} (RFC 9568 section 6.1)"));
    }
    if let Setting::Given(pause, span) = &delay
        && never
        && !pause.is_zero()
    {
        let written = report.quoted(span);
        let message = format!("preempt_delay {written} is not allowed with preempt = false: only \"0s\" is");
        report.at(span.start, message);
    }
    (preempt.or(true), delay.or(Duration::ZERO))
}

fn password(raw: Setting<&str>, version: Option<Version>, report: &mut Report) -> Option<[u8; 8]> {
    // RFC 9568 §9: version 3 has no authentication.
    refuse_unless(Version::V2, version, &raw, "password is only allowed with version 2", report);
    match raw.convert(&keys::PASSWORD, report, value::password) {
        Setting::Absent | Setting::Refused => None,
        Setting::Given(password, _) => Some(password),
    }
}

fn checksum(raw: Setting<&str>, version: Option<Version>, report: &mut Report) -> ChecksumForm {
    let forms = [ChecksumForm::Auto, ChecksumForm::Rfc9568, ChecksumForm::PseudoHeader];
    let form = raw.convert(&keys::CHECKSUM, report, |word| forms.into_iter().find(|form| form.as_str() == word));
    if let Setting::Given(ChecksumForm::Rfc9568 | ChecksumForm::PseudoHeader, span) = &form {
        let message = format!(
            "checksum {} is only allowed with version 3: version 2 has one form, \"auto\"",
            report.quoted(span)
        );
        refuse_unless(Version::V3, version, &form, &message, report);
    }
    form.or(ChecksumForm::Auto)
}

/// Reports a setting that is in the file although the version is known to be another.
fn refuse_unless<T>(
    needed: Version,
    version: Option<Version>,
    setting: &Setting<T>,
    message: &str,
    report: &mut Report,
) {
    if let Setting::Given(_, span) = setting
        && version.is_some_and(|version| version != needed)
    {
        report.at(span.start, message.to_owned());
    }
}

fn announce(raw: raw::Announce, report: &mut Report) -> Announce {
    let interval_allowed = |interval| interval <= ANNOUNCE_INTERVAL_MAX;
    let refresh_allowed =
        |refresh: Duration| refresh.is_zero() || (ANNOUNCE_REFRESH_MIN..=ANNOUNCE_REFRESH_MAX).contains(&refresh);
    Announce {
        count: whole(raw.count, &keys::COUNT, 1..=100, report).or(ANNOUNCE_DEFAULT.count),
        interval: duration(raw.interval, &keys::INTERVAL, interval_allowed, report).or(ANNOUNCE_DEFAULT.interval),
        refresh: duration(raw.refresh, &keys::REFRESH, refresh_allowed, report).or(ANNOUNCE_DEFAULT.refresh),
    }
}

fn stale_action(raw: Setting<&str>, report: &mut Report) -> Setting<StaleAction> {
    let actions = [StaleAction::Reset, StaleAction::Pass, StaleAction::Drop];
    raw.convert(&keys::ACTION, report, |word| actions.into_iter().find(|action| action.as_str() == word))
}

fn ports(raw: Setting<&[Spanned<DeValue>]>, report: &mut Report) -> Vec<u16> {
    let Setting::Given(elements, span) = raw else {
        return Vec::new();
    };
    if elements.len() > STALE_PORTS_MAX {
        report.at(span.start, format!("{} ports: at most {STALE_PORTS_MAX} are allowed", elements.len()));
    }
    let mut ports = Vec::new();
    for element in elements {
        let (at, found) = (element.span().start, section::found(element, report));
        let port = element.get_ref().as_integer().and_then(|integer| {
            let port = u16::from_str_radix(integer.as_str(), integer.radix()).ok();
            port.filter(|port| *port != 0)
        });
        match port {
            None => report.at(at, keys::PORTS.must_be(&format!("of {found}"))),
            Some(port) if ports.contains(&port) => {
                report.at(at, format!("port {found} is given twice: once is allowed"));
            }
            Some(port) => ports.push(port),
        }
    }
    ports
}
