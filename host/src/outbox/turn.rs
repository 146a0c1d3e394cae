//! Whose turn it is: which of the deliveries that are due are begun, where not all can be.
//!
//! Each channel makes so many attempts at one time. A free place goes to the tenant that has the fewest under way, and there
//! to what has waited longest; so a tenant with a thousand messages and one with a single one take turns.

use std::collections::{BTreeMap, VecDeque};

use toolkeep_core::id::{ChannelName, TenantName};

use crate::ledger::Due;

/// Attempts under way, by channel and tenant.
#[derive(Debug, Default)]
pub(super) struct Busy(BTreeMap<ChannelName, BTreeMap<TenantName, usize>>);

impl Busy {
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Choose from what is due and count it as under way. `at_once` is how many attempts a channel makes at one time.
    pub(super) fn choose(&mut self, due: Vec<Due>, at_once: impl Fn(&ChannelName, &TenantName) -> usize) -> Vec<Due> {
        let mut waiting: BTreeMap<ChannelName, BTreeMap<TenantName, VecDeque<Due>>> = BTreeMap::new();
        for due in due {
            let tenants = waiting.entry(due.channel.clone()).or_default();
            tenants.entry(due.tenant.clone()).or_default().push_back(due);
        }
        let mut chosen = Vec::new();
        for (channel, mut tenants) in waiting {
            while let Some(due) = self.next(&channel, &mut tenants, &at_once) {
                self.begin(&due);
                chosen.push(due);
            }
        }
        chosen
    }

    /// The next of a channel, if it has a free place.
    fn next(
        &self,
        channel: &ChannelName,
        tenants: &mut BTreeMap<TenantName, VecDeque<Due>>,
        at_once: impl Fn(&ChannelName, &TenantName) -> usize,
    ) -> Option<Due> {
        let busy = self.0.get(channel);
        let all: usize = busy.into_iter().flat_map(BTreeMap::values).sum();
        let of = |tenant: &TenantName| busy.and_then(|busy| busy.get(tenant)).copied().unwrap_or(0);
        let with_something =
            tenants.iter_mut().filter(|(tenant, due)| !due.is_empty() && all < at_once(channel, tenant));
        let (_, first) = with_something.min_by_key(|(tenant, _)| of(tenant))?;
        first.pop_front()
    }

    fn begin(&mut self, due: &Due) {
        *self.0.entry(due.channel.clone()).or_default().entry(due.tenant.clone()).or_default() += 1;
    }

    /// An attempt ended, or did not begin after all.
    pub(super) fn end(&mut self, channel: &ChannelName, tenant: &TenantName) {
        let Some(tenants) = self.0.get_mut(channel) else { return };
        if let Some(count) = tenants.get_mut(tenant) {
            *count = count.saturating_sub(1);
        }
        tenants.retain(|_, count| *count > 0);
        if tenants.is_empty() {
            self.0.remove(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::delivery::DeliveryKind;
    use toolkeep_core::id::DeliveryId;
    use uuid::Uuid;

    fn due(number: u128, tenant: &str, channel: &str) -> Due {
        Due {
            id: DeliveryId::new(Uuid::from_u128(number)),
            tenant: tenant.parse().expect("name"),
            channel: channel.parse().expect("name"),
            kind: DeliveryKind::Message,
            sender: None,
        }
    }

    fn of(chosen: &[Due], tenant: &str) -> usize {
        chosen.iter().filter(|due| due.tenant.as_str() == tenant).count()
    }

    #[test]
    fn a_tenant_with_much_and_one_with_little_take_turns() {
        let mut busy = Busy::default();
        let mut all: Vec<Due> = (0..10).map(|n| due(n, "big", "ops")).collect();
        all.push(due(99, "small", "ops"));
        let chosen = busy.choose(all.clone(), |_, _| 4);
        assert_eq!((of(&chosen, "big"), of(&chosen, "small")), (3, 1));
        assert!(busy.choose(all, |_, _| 4).is_empty(), "no place is free");
        busy.end(&"ops".parse().expect("name"), &"big".parse().expect("name"));
        let more = busy.choose(vec![due(5, "big", "ops"), due(98, "small", "ops")], |_, _| 4);
        assert_eq!((of(&more, "big"), of(&more, "small")), (0, 1), "the place goes to who has fewest");
    }

    #[test]
    fn channels_do_not_take_each_others_places_and_what_waited_longest_is_first() {
        let mut busy = Busy::default();
        let all = vec![due(1, "t", "one"), due(2, "t", "one"), due(3, "t", "two")];
        let chosen = busy.choose(all, |_, _| 1);
        assert_eq!(chosen, [due(1, "t", "one"), due(3, "t", "two")]);
        for due in chosen {
            assert!(!busy.is_idle());
            busy.end(&due.channel, &due.tenant);
        }
        assert!(busy.is_idle());
    }
}
