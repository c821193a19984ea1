//! Which events are applied at once and which wait for more.
//!
//! Endpoints have a fast lane: a Pod that fails must leave every load balancer now. Everything else settles first, so that
//! a handful of objects applied one after the other is one change for the proxies, and not as many half ones.
//!
//! Invariant: two events about one object keep their order. An endpoint event therefore waits when one like it does.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::Event;

/// Changes are published when none came for so long.
const SETTLE: Duration = Duration::from_millis(10);

/// Changes that do not end are published after so long.
const SETTLE_AT_MOST: Duration = Duration::from_millis(100);

/// The events that wait. A pure state machine: the caller has the clock.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    waiting: Vec<Event>,
    /// When the first and the last of them came.
    since: Option<(Instant, Instant)>,
}

impl Lanes {
    /// Takes a batch in and gives back what is to be applied now.
    pub(super) fn add(&mut self, batch: Vec<Event>, now: Instant) -> Vec<Event> {
        if batch.iter().all(is_endpoint) && !self.waiting.iter().any(is_endpoint) {
            return batch;
        }
        self.waiting.extend(batch);
        let first = self.since.map_or(now, |(first, _)| first);
        self.since = Some((first, now));
        Vec::new()
    }

    /// When [`Lanes::take`] is due; `None` while nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|(first, last)| (last + SETTLE).min(first + SETTLE_AT_MOST))
    }

    /// All that waits, in its order.
    pub(super) fn take(&mut self) -> Vec<Event> {
        self.since = None;
        std::mem::take(&mut self.waiting)
    }
}

/// Whether an event is about where traffic can go: EndpointSlices, the Pods that tell how to reach them, and WorkloadEntries.
fn is_endpoint(event: &Event) -> bool {
    let key = match event {
        Event::Upsert(object) => object.key(),
        Event::Delete(key) => key,
        _ => return false,
    };
    matches!(
        (key.group.as_str(), key.kind.as_str()),
        ("discovery.k8s.io", "EndpointSlice") | ("", "Pod") | ("networking.istio.io", "WorkloadEntry")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::ObjectKey;

    fn event(group: &str, kind: &str) -> Event {
        let (namespace, name) = ("a".to_owned(), "b".to_owned());
        Event::Delete(ObjectKey { group: group.to_owned(), kind: kind.to_owned(), namespace, name })
    }

    fn slice() -> Event {
        event("discovery.k8s.io", "EndpointSlice")
    }

    #[test]
    fn endpoints_do_not_wait_and_the_rest_settles() {
        let (mut lanes, start) = (Lanes::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(lanes.due(), None);
        assert_eq!(lanes.add(vec![slice(), event("", "Pod")], at(0)).len(), 2);
        assert_eq!(lanes.due(), None);

        assert!(lanes.add(vec![event("", "Service")], at(0)).is_empty());
        assert_eq!(lanes.due(), Some(at(10)));
        assert!(lanes.add(vec![event("gateway.networking.k8s.io", "HTTPRoute")], at(4)).is_empty());
        assert_eq!(lanes.due(), Some(at(14)), "each one starts the wait again");
        assert_eq!(lanes.add(vec![slice()], at(5)).len(), 1, "endpoints overtake");
        assert_eq!(lanes.due(), Some(at(14)));
        assert!(lanes.add(vec![event("", "Service")], at(97)).is_empty());
        assert_eq!(lanes.due(), Some(at(100)), "but not for ever");
        assert_eq!(lanes.take().len(), 3);
        assert_eq!((lanes.due(), lanes.take().len()), (None, 0));
    }

    #[test]
    fn endpoints_keep_their_order_behind_endpoints_that_wait() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        assert!(lanes.add(vec![event("", "Service"), slice()], now).is_empty(), "one batch is one change");
        assert!(lanes.add(vec![slice()], now).is_empty());
        assert_eq!(lanes.take().len(), 3);
        assert_eq!(lanes.add(vec![slice()], now).len(), 1);
    }
}
