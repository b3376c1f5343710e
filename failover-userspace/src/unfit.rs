//! Why an interface cannot serve a virtual address, and what to use instead.
//!
//! Deliberately absent: the judgement (`interfaces::fitness`).

use std::fmt;

/// Why an interface cannot serve. Displays as what follows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The loopback.
    Loopback,
    /// Its frames are not Ethernet's: a tunnel, for example. The kernel's ARPHRD_ number.
    NotEthernet(u16),
    /// No wire behind it.
    Dummy,
    /// A table of routes.
    Vrf,
    /// A second interface on that one, whose kernel is this one.
    Macvlan(String),
    /// Its frames go to another interface, its master.
    Port {
        /// Bridge, bond, team or the like.
        kind: String,
        /// The master's name.
        master: String,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str(
                "is the loopback: no other router and no client hears it; use the interface that they are behind",
            ),
            Self::NotEthernet(layer) => write!(
                f,
                "is not Ethernet (link type {layer}), but a tunnel or the like: it carries no ARP; use an Ethernet interface"
            ),
            Self::Dummy => f.write_str(
                "is a dummy, which has no wire: no other router and no client hears it; use the interface that they are \
                 behind",
            ),
            Self::Vrf => f.write_str("is a VRF, which has no wire: use an interface in it"),
            Self::Macvlan(parent) => write!(
                f,
                "is a macvlan on \"{parent}\": the kernel answers ARP for its addresses on \"{parent}\" as well, with the \
                 other MAC and without a lease; use \"{parent}\""
            ),
            Self::Port { kind, master } if kind == "bridge" => write!(
                f,
                "is a port of the bridge \"{master}\", which takes its frames: broadcast ARP would get past a Backup; use \
                 \"{master}\""
            ),
            Self::Port { kind, master } => {
                write!(f, "is a port of the {kind} \"{master}\", which takes and sends its frames; use \"{master}\"")
            }
        }
    }
}
