//! Every fault, in the order in which they are played.

use std::time::Duration;

use crate::faults::{Fault, Group, Setting, floods, links, load, processes};

const USUAL: Setting = Setting { advert_ms: 100, realtime: [0; 2] };
const QUICK: Setting = Setting { advert_ms: 10, realtime: [0; 2] };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A fault as most are: nodes that hear each other, adverts every 100 ms.
const BASE: Fault = Fault {
    name: "",
    title: "",
    group: Group::Processes,
    setting: USUAL,
    apart: false,
    length: ms(3000),
    length_in_tests: Some(ms(1000)),
    inflict: processes::kill,
    what: "",
    hurts: "",
    why: "",
};

/// Nobody speaks from the end of the lease to the end of the Backup's patience.
const SKEW: &str = "silent for the Backup's skew";
const LEASE_THEN_SKEW: &str = "The kernel program answers until the lease ends, three adverts after the last one; the \
                               Backup waits for its skew of 61 ms longer, as the protocol has it.";

const STOP: Fault = Fault {
    inflict: processes::stop,
    what: "SIGSTOP to all of its processes, later SIGCONT.",
    hurts: SKEW,
    why: LEASE_THEN_SKEW,
    ..BASE
};

const LINK: Fault = Fault { group: Group::Links, inflict: links::nothing_from_active, ..BASE };

/// Until one hears the other there are two.
const APART: Fault = Fault { apart: true, ..LINK };

const FLOOD: Fault = Fault { group: Group::Floods, inflict: floods::wrong_adverts, ..BASE };

const HOGS: Fault = Fault { group: Group::Load, setting: QUICK, inflict: load::normal, ..BASE };

const REALTIME_HOGS: Fault = Fault { inflict: load::realtime, ..HOGS };

/// The table.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "kill",
        title: "kill -9 of the controller",
        what: "SIGKILL to all of its processes at once, as by the OOM killer; started again afterwards.",
        hurts: SKEW,
        why: LEASE_THEN_SKEW,
        ..BASE
    },
    Fault { name: "stop-0.1s", title: "SIGSTOP for 0.1 s", length: ms(100), length_in_tests: Some(ms(100)), ..STOP },
    Fault { name: "stop-0.5s", title: "SIGSTOP for 0.5 s", length: ms(500), length_in_tests: Some(ms(500)), ..STOP },
    Fault { name: "stop-1s", title: "SIGSTOP for 1 s", length: ms(1000), ..STOP },
    Fault { name: "stop-3s", title: "SIGSTOP for 3 s", length: ms(3000), length_in_tests: Some(ms(2000)), ..STOP },
    Fault { name: "stop-10s", title: "SIGSTOP for 10 s", length: ms(10_000), length_in_tests: None, ..STOP },
    Fault {
        name: "freeze",
        title: "cgroup frozen",
        inflict: processes::freeze,
        what: "All of its processes in a control group of their own, which is frozen and thawed.",
        hurts: SKEW,
        why: LEASE_THEN_SKEW,
        ..BASE
    },
    Fault {
        name: "upgrade",
        title: "upgraded in place",
        group: Group::Upgrades,
        inflict: processes::replace,
        what: "failover: another file of the program, kill -9, and started at once. keepalived: SIGHUP, its reload.",
        hurts: "loading may outlast a lease of 300 ms",
        why: "The new controller loads its program before it advertises, and the kernel's verifier takes about a third of a \
              second for that. When the lease ends first, the Backup takes over, and gives back.",
        ..BASE
    },
    Fault {
        name: "upgrade-500ms",
        title: "upgraded in place, 500 ms adverts",
        group: Group::Upgrades,
        setting: Setting { advert_ms: 500, ..USUAL },
        length_in_tests: Some(ms(2000)),
        inflict: processes::replace,
        what: "The same, within the lease.",
        ..BASE
    },
    Fault {
        name: "restart",
        title: "stopped and started",
        group: Group::Upgrades,
        inflict: processes::restart,
        what: "SIGTERM, and started at once.",
        hurts: SKEW,
        why: "A release makes the Backup wait for its skew and no longer, as the protocol has it.",
        ..BASE
    },
    Fault {
        name: "nothing-from-active",
        title: "cut one way: nothing from the Active",
        what: "The switch drops all that comes from it; carrier stays.",
        hurts: "silent for three adverts and the skew; both answer for up to an advert after it heals",
        why: "The Backup hears nothing and takes over; the Active goes on for nobody. When it heals, the first advert ends it.",
        ..APART
    },
    Fault {
        name: "nothing-to-active",
        title: "cut one way: nothing to the Active",
        inflict: links::nothing_to_active,
        what: "The switch drops all that goes to it; carrier stays.",
        hurts: "silent for as long as it lasts",
        why: "No client reaches the Active; but the Backup hears its adverts, and VRRP knows no other sign. Only a check of \
              what the Active can reach would tell, and that is not built yet.",
        ..APART
    },
    Fault {
        name: "nothing-to-backup",
        title: "cut one way: nothing to the Backup",
        inflict: links::nothing_to_backup,
        what: "The switch drops all that goes to it; carrier stays.",
        hurts: "clients are led astray for up to 100 ms at a time",
        why: "The Backup hears nothing, takes over and announces the address five times, 100 ms apart. The Active hears \
              that and announces it again, but at most every 100 ms.",
        ..APART
    },
    Fault {
        name: "no-multicast",
        title: "switch stops flooding multicast",
        inflict: links::no_multicast,
        what: "`mcast_flood off` on both nodes' ports: no advert arrives, broadcasts do.",
        hurts: "both answer for as long as it lasts",
        why: "Neither hears the other's adverts: two Actives, as the protocol has it. What they hear of each other is ARP, \
              which makes both announce the address, and neither give way.",
        ..APART
    },
    Fault {
        name: "port-flaps",
        title: "switch port flaps without carrier loss",
        length_in_tests: Some(ms(2000)),
        inflict: links::flapping_port,
        what: "The Active's port out of the bridge for 0.5 s, in it for 0.5 s.",
        hurts: "each time silent for three adverts and the skew; both answer for up to an advert after it heals",
        why: "Each time it is a partition, and heals.",
        ..APART
    },
    Fault {
        name: "link-flaps",
        title: "link flaps",
        inflict: links::flapping_link,
        what: "The Active's carrier away for 0.1 s, there for 0.1 s.",
        hurts: "silent for three adverts and the skew, once",
        why: "Without a carrier no release gets out, so the Backup has to wait. It serves until the Active has heard \
              nothing better for three adverts and a skew, which it does not while the link flaps.",
        ..LINK
    },
    Fault {
        name: "duplicates",
        title: "loop: frames doubled and sent back",
        inflict: links::duplicates,
        what: "All that the Active sends comes to the Backup twice, and back to itself.",
        ..LINK
    },
    Fault {
        name: "interface-down",
        title: "interface down and up",
        inflict: links::down_and_up,
        what: "`ip link set down` on the Active, and up.",
        hurts: "silent for three adverts and the skew",
        why: "No release gets out, so the Backup has to wait.",
        ..LINK
    },
    Fault {
        name: "wrong-adverts",
        title: "flood of wrong adverts",
        what: "In turn: TTL 254, version 2, type 2, more addresses announced than there, wrong checksum, no address, \
               interval 0, another VRID, all of priority 200; and other addresses, of priority 50.",
        ..FLOOD
    },
    Fault {
        name: "lower-priority",
        title: "flood of good adverts, priority 50",
        inflict: floods::lower_priority,
        what: "Right in every field, from a third station.",
        ..FLOOD
    },
    Fault {
        name: "lower-address",
        title: "flood of good adverts, same priority, lower address",
        inflict: floods::lower_address,
        what: "Right in every field, from 192.0.1.66, which loses the tie.",
        ..FLOOD
    },
    Fault {
        name: "higher-priority",
        title: "flood of forged adverts, priority 200",
        inflict: floods::higher_priority,
        what: "Right in every field, from a third station that does not serve.",
        hurts: "nobody answers for as long as it lasts",
        why: "It is what a better router says, and VRRP has no authentication: the Active gives way to it, within its first \
              advert, and both nodes listen until it has been silent for three of them and a skew.",
        ..FLOOD
    },
    Fault {
        name: "arp-requests",
        title: "flood of ARP requests for the address",
        inflict: floods::arp_requests,
        what: "Broadcast, from a third station.",
        ..FLOOD
    },
    Fault {
        name: "arp-claims",
        title: "flood of ARP claims of the address",
        inflict: floods::arp_claims,
        what: "Gratuitous requests and replies, broadcast: a third station says that the address is its own.",
        hurts: "clients are led astray for most of it",
        why: "A neighbour believes the last one who spoke. The Active announces the address again, every 100 ms at most; \
              that is also how soon it is over when the claims end.",
        ..FLOOD
    },
    Fault {
        name: "hogs",
        title: "16 CPU hogs, 10 ms adverts",
        what: "Normal priority, as the nodes.",
        hurts: "late adverts: the Backup may take over",
        why: "A controller that waits for a CPU for 30 ms loses its lease.",
        ..HOGS
    },
    Fault {
        name: "hogs-rt70",
        title: "16 CPU hogs, 10 ms adverts, nodes at real-time priority 70",
        setting: Setting { realtime: [70; 2], ..QUICK },
        what: "`realtime_priority = 70`, `vrrp_rt_priority 70`.",
        ..HOGS
    },
    Fault {
        name: "fifo-active",
        title: "16 CPU hogs and SCHED_FIFO 60, 10 ms adverts, only the Active starved",
        setting: Setting { realtime: [0, 70], ..QUICK },
        what: "A real-time hog on each core besides. The Active at normal priority, the Backup at real-time priority 70, as \
               if it were another machine.",
        hurts: "silent for the Backup's skew, and whenever the Active gets a moment",
        why: "The kernel leaves 50 ms of each second to the others: then the Active speaks again, takes the address back, and \
              is starved anew.",
        ..REALTIME_HOGS
    },
    Fault {
        name: "fifo",
        title: "16 CPU hogs and SCHED_FIFO 60, 10 ms adverts, both nodes starved",
        what: "The same; both nodes at normal priority.",
        hurts: "nobody answers while both are starved",
        why: "A lease that nobody renews ends. keepalived's address stays on the interface, and the kernel answers for it: \
              right here, where the other node is starved as well, and wrong in the row above.",
        ..REALTIME_HOGS
    },
    Fault {
        name: "fifo-rt50",
        title: "16 CPU hogs and SCHED_FIFO 60, 10 ms adverts, nodes at 50",
        setting: Setting { realtime: [50; 2], ..QUICK },
        what: "The same; both nodes at real-time priority, but below the hogs.",
        hurts: "nobody answers while both are starved",
        why: "As above, and what the kernel leaves to others is not for real-time threads: a `realtime_priority` below \
              that of a hog is worse than none.",
        ..REALTIME_HOGS
    },
    Fault {
        name: "fifo-rt70",
        title: "16 CPU hogs and SCHED_FIFO 60, 10 ms adverts, nodes at 70",
        setting: Setting { realtime: [70; 2], ..QUICK },
        what: "The same; both nodes above the hogs.",
        hurts: "once a second, 50 ms that no real-time thread gets",
        why: "The kernel holds all real-time threads of a core back for 50 ms of each second in which they used it up \
              (`kernel.sched_rt_runtime_us`), which is longer than a lease of 30 ms.",
        ..REALTIME_HOGS
    },
];
