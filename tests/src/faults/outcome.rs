//! What a client saw of a fault, and whether it is what must hold.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::answers::{Doubles, HandOvers};
use crate::faults::Fault;

/// What came of one fault.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The longest time without an answer to UDP.
    pub outage: Duration,
    /// ARP questions that were asked, and of those the ones that nobody answered.
    pub asked: usize,
    /// See there.
    pub unanswered: usize,
    /// The longest time between two questions: what the observer itself missed.
    pub pause: Duration,
    /// Answers to ARP of edge-a and edge-b.
    pub arp: [usize; 2],
    /// Answers to UDP of edge-a and edge-b.
    pub udp: [usize; 2],
    /// ARP questions that both nodes answered while it lasted.
    pub during: Doubles,
    /// And after it healed.
    pub after: Doubles,
    /// How the address moved.
    pub hand_overs: HandOvers,
    /// How often a node became Active (MASTER), by the nodes' logs.
    pub became_active: usize,
    /// From where it healed until edge-a, the better one, answered alone for good; `None` when it did not.
    pub alone_after: Option<Duration>,
    /// How one can tell that it bit.
    pub witness: String,
}

impl Outcome {
    /// Never two, unless they cannot hear each other; and one when it is over.
    ///
    /// # Errors
    /// With what did not hold.
    pub fn check(&self, fault: &Fault) -> Result<()> {
        let name = fault.name;
        ensure!(self.alone_after.is_some(), "{name}: edge-a did not become the only one to answer: {self:?}");
        // Else nothing was seen at all.
        ensure!(self.arp[0] > 50 && self.udp[0] > 50, "{name}: the client saw too little: {self:?}");
        if !fault.apart {
            ensure!(self.during.count + self.after.count == 0, "{name}: two nodes answered one question: {self:?}");
            ensure!(self.hand_overs.late == 0, "{name}: a node answered after the next one had: {self:?}");
        }
        Ok(())
    }
}
