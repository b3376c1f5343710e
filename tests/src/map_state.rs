//! [`MapState`]s in the loaded program's maps.

use failover_sim::map_state::{MapState, router_key, vip_keys};

use crate::testrun::TestRun;

impl TestRun {
    /// Makes the maps hold this.
    pub fn set_state(&mut self, state: &MapState) {
        for (index, router) in (0..).zip(&state.routers) {
            self.edit(index, |entry| *entry = *router);
            self.point(&router_key(&router.settings), index);
        }
        for (key, vip) in vip_keys().iter().zip(&state.vips) {
            self.set_vip(key, vip);
        }
        self.flows.set_flows(&state.flows);
        self.flows.set_handshakes(&state.handshakes);
        self.flows.set_count(state.count);
        self.flows.set_budgets(state.budget);
    }

    /// What the maps hold after one frame that found `before`.
    pub fn state(&self, before: &MapState) -> MapState {
        let budgets = self.flows.budgets();
        MapState {
            routers: [self.router(0), self.router(1)],
            vips: vip_keys().map(|key| self.vip_of(&key)),
            flows: self.flows.all_flows(),
            handshakes: self.flows.all_handshakes(),
            count: self.flows.count(),
            // One CPU's, if any.
            budget: budgets.into_iter().find(|budget| *budget != before.budget).unwrap_or(before.budget),
            is_socket_buffer: before.is_socket_buffer,
        }
    }
}
