//! VRRP election for one virtual router, and the life of its lease. Owns no clock, file, task or
//! log line: time comes in as an argument, actions come out as values.
//!
//! Drive it so: one input, then [`Election::poll_action`] until `None`, applying each action in
//! order, then sleep until [`Election::next_deadline`] and call [`Election::handle_timeout`].
//! Early and repeated calls change nothing. [`Action::SendAdvert`] is answered by
//! [`Input::AdvertSent`] or [`Input::AdvertFailed`] before the next action is taken.
//!
//! All times are CLOCK_BOOTTIME nanoseconds, the kernel program's clock, so that an advert is
//! judged by when it arrived and not by when somebody got round to it.
//!
//! Sources: RFC 9568 section 6 with its verified errata; RFC 3768 for version 2. What this adds to
//! them (the lease, the hold before a live Active is preempted, the lapse) is said at the line.

mod machine;
pub mod timing;

pub use machine::Election;

use failover_common::abi::State;
use failover_common::address::Address;

/// What the election needs to know of one virtual router. Validated by `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// This node's primary address: the tie-break.
    pub own_address: Address,
    /// 1 to 254, or 255 for the owner.
    pub priority: u8,
    /// 2 or 3.
    pub version: u8,
    /// Centiseconds, for either version.
    pub advert_interval_cs: u16,
    /// Where in each interval of the clock it advertises, nanoseconds; `None`: wherever it became Active.
    pub turn_ns: Option<u64>,
    /// RFC 9568 6.1, Preempt_Mode.
    pub preempt: bool,
    /// How long a lower-priority Active is left alone once it was heard.
    pub preempt_delay_ns: u64,
}

/// A valid advert of this virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardAdvert {
    /// When the kernel saw it.
    pub received_at_ns: u64,
    /// The sender's primary address.
    pub source: Address,
    /// 0: it gives up.
    pub priority: u8,
    /// Centiseconds.
    pub interval_cs: u16,
}

/// What can happen to a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// RFC 9568 6.4.1, Startup.
    Startup,
    /// Start as the Active that a controller before us left behind, its lease still live.
    Resume {
        /// When that lease ends.
        lease_until_ns: u64,
    },
    /// RFC 9568 6.4.2 and 6.4.3, Shutdown.
    Shutdown,
    /// A valid advert, whoever sent it.
    Advert(HeardAdvert),
    /// The advert of the last [`Action::SendAdvert`] was accepted by the kernel.
    AdvertSent {
        /// The clock as read before the attempt; `now_ns` is the clock after it.
        before_send_ns: u64,
    },
    /// It was not.
    AdvertFailed,
    /// Somebody else's ARP claims one of our addresses.
    Conflict,
    /// The interface is up and has carrier.
    LinkUp,
    /// It is not, or it is gone.
    LinkDown,
    /// The kernel program was seen on the interface again: it hears, and it fences.
    FenceBack,
    /// It was found missing. No advert of this node goes out until it is back (the driver sees to that).
    FenceLost,
}

/// What the driver must do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send one advert, and answer with `AdvertSent` or `AdvertFailed`.
    SendAdvert {
        /// Own priority, or 0 to give up.
        priority: u8,
    },
    /// Store the end of the lease; 0 ends it now.
    SetLease {
        /// CLOCK_BOOTTIME nanoseconds.
        until_ns: u64,
    },
    /// Put the addresses on the interface, then announce them.
    TakeAddresses,
    /// Take the addresses off the interface and stop announcing.
    DropAddresses,
    /// Announce the addresses once more.
    Announce,
    /// Tell people. Always the last.
    Report(Transition),
}

/// A change of state, or a lapse of the lease within Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After; equal to `from` for a lapse.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// When the last sign of an Active was seen, ours or another: its addresses were unanswered for
    /// at most the time since then. `None`: never.
    pub last_sign_ns: Option<u64>,
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The controller started.
    Startup,
    /// The controller started and this node owns the addresses (priority 255).
    Owner,
    /// The controller started and found a live lease.
    Resumed,
    /// No advert within the active-down interval.
    Silence,
    /// The Active gave up with priority 0.
    Released,
    /// A lower-priority Active is being preempted.
    Preempting,
    /// A better router's advert.
    Superior {
        /// Its address.
        source: Address,
        /// Its priority.
        priority: u8,
    },
    /// The lease ran out unnoticed, and another router serves by now.
    LapsedToOther {
        /// Its address.
        source: Address,
    },
    /// The lease ran out unnoticed, and nobody else was heard.
    Lapsed,
    /// Carrier, own address or interface lost.
    LinkDown,
    /// Carrier is back.
    LinkUp,
    /// The kernel program is not on the interface.
    FenceLost,
    /// It is again.
    FenceBack,
    /// The controller stops.
    Shutdown,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Startup => f.write_str("startup"),
            Self::Owner => f.write_str("startup as the owner of the addresses"),
            Self::Resumed => f.write_str("startup, found the lease live"),
            Self::Silence => f.write_str("no advert within the active-down interval"),
            Self::Released => f.write_str("the active router gave up (priority 0)"),
            Self::Preempting => f.write_str("preempting a router of lower priority"),
            Self::Superior { source, priority } => {
                write!(f, "{} is better (priority {priority})", source.to_ip())
            }
            Self::LapsedToOther { source } => {
                write!(f, "this node was stalled until its lease ran out, and {} serves now", source.to_ip())
            }
            Self::Lapsed => f.write_str("this node was stalled until its lease ran out, nobody else was heard"),
            Self::LinkDown => f.write_str("the interface lost its carrier or its address, or is gone"),
            Self::LinkUp => f.write_str("the interface is up"),
            Self::FenceLost => f.write_str("the XDP program is not in its place: nothing would be heard, or fenced"),
            Self::FenceBack => f.write_str("the XDP program is in its place again"),
            Self::Shutdown => f.write_str("shutdown"),
        }
    }
}

#[cfg(test)]
mod tests;
