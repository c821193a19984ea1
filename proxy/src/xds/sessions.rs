//! All sessions of a source, in the order in which their types are asked for, and how long what they hold may live.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{Received, WILDCARD};
use tokio::time::Instant;

use super::session::Session;
use crate::config::restore::Versions;
use crate::config::sources::Variant;
use crate::config::watch::{WatchChange, WatchKey};

/// A resource of a source.
type Key = (ResourceType, String);

/// The sessions of a source.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// Versions that the configuration has from before the start. A session hears of them with the subscription.
    restored: Versions,
    /// `Resource.ttl`: when something has to be dropped, unless it comes again.
    expiry: BTreeMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
}

impl Sessions {
    pub(super) fn new(
        variant: Variant,
        types: impl IntoIterator<Item = ResourceType>,
        restored: Versions,
    ) -> Self {
        let sessions = types.into_iter().map(|resource_type| Session::new(variant, resource_type)).collect();
        Self { sessions, restored, expiry: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    pub(super) fn want_something(&self) -> bool {
        self.sessions.iter().any(Session::wants_something)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.sessions.iter_mut()
    }

    pub(super) fn of(&mut self, resource_type: ResourceType) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.resource_type() == resource_type)
    }

    /// Wants a name, or no longer; what the configuration does not want it has forgotten already.
    pub(super) fn take(&mut self, change: &WatchChange) {
        let WatchKey { resource_type, name, .. } = &change.key;
        let of_type = |session: &&mut Session| session.resource_type() == *resource_type;
        let Some(session) = self.sessions.iter_mut().find(of_type) else { return };
        if !change.is_wanted {
            session.unsubscribe(name);
            self.set_expiry((*resource_type, name.to_string()), None);
            return;
        }
        session.subscribe(name);
        let is_covered = |key: &Key| key.0 == *resource_type && (key.1 == **name || **name == *WILDCARD);
        for (key, version) in self.restored.extract_if(.., |key, _| is_covered(key)) {
            session.restore(key.1, version);
        }
    }

    /// Notes how long what came may live.
    pub(super) fn note_lifetimes(&mut self, resource_type: ResourceType, received: &Received, now: Instant) {
        let updated = received.updated.iter().map(|update| (&update.name, update.ttl));
        let heartbeats = received.heartbeats.iter().map(|heartbeat| (&heartbeat.name, heartbeat.ttl));
        for (name, ttl) in updated.chain(heartbeats) {
            let at = ttl.and_then(|ttl| now.checked_add(ttl));
            self.set_expiry((resource_type, name.clone()), at);
        }
        for name in &received.removed {
            self.set_expiry((resource_type, name.clone()), None);
        }
    }

    /// When something has to be dropped next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// What has to be dropped now: by its sessions it is dropped already.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Key> {
        let mut expired = Vec::new();
        while let Some((at, key)) = self.by_time.first().cloned().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, key.clone()));
            self.expiry.remove(&key);
            if self.of(key.0).is_some_and(|session| session.expire(&key.1)) {
                expired.push(key);
            }
        }
        expired
    }

    fn set_expiry(&mut self, key: Key, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.expiry.insert(key.clone(), at),
            None => self.expiry.remove(&key),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::time::Duration;

    use outrigger_xds_api::session::{Heartbeat, Update};
    use outrigger_xds_api::wire::core::v3::Node;
    use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryResponse, Resource};
    use outrigger_xds_api::wire::protobuf::Any;

    use super::*;
    use crate::config::sources::SourceId;
    use crate::xds::session::Response;

    const TYPE: ResourceType = ResourceType::Cluster;

    fn change(name: &str, is_wanted: bool) -> WatchChange {
        let key = WatchKey { source: SourceId::ADS, resource_type: TYPE, name: name.into() };
        WatchChange { key, is_wanted }
    }

    /// Sessions that hold these clusters.
    fn holding(names: &[&str]) -> Sessions {
        let mut sessions = Sessions::new(Variant::Delta, [TYPE], Versions::new());
        sessions.take(&change(WILDCARD, true));
        let session = sessions.of(TYPE).unwrap();
        session.next_request(&Node::default()).unwrap();
        let content = Any { type_url: TYPE.type_url().to_owned(), value: Vec::new() };
        let resource = |name: &&str| Resource {
            name: (*name).to_owned(),
            resource: Some(content.clone()),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: TYPE.type_url().to_owned(),
            resources: names.iter().map(resource).collect(),
            nonce: "1".to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        session.on_response(Response::Delta(response)).unwrap();
        session.ack("1").unwrap();
        sessions
    }

    fn update(name: &str, seconds: Option<u64>) -> Update {
        let ttl = seconds.map(Duration::from_secs);
        Update {
            name: name.to_owned(),
            version: String::new(),
            content: Any::default(),
            aliases: Vec::new(),
            ttl,
        }
    }

    #[test]
    fn what_has_a_time_to_live_is_dropped_unless_it_comes_again() {
        let (mut sessions, now) = (holding(&["a", "b", "c", "d"]), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let updated =
            vec![update("a", Some(5)), update("b", Some(5)), update("c", Some(5)), update("d", Some(9))];
        let received = Received { updated, ..Received::default() };
        sessions.note_lifetimes(TYPE, &received, now);
        assert_eq!(sessions.next_expiry(), Some(at(5)));
        // A sign of life, and one that is without a TTL from now on.
        let heartbeats = vec![Heartbeat { name: "a".to_owned(), ttl: Some(Duration::from_secs(10)) }];
        let received = Received { heartbeats, updated: vec![update("c", None)], ..Received::default() };
        sessions.note_lifetimes(TYPE, &received, now);
        assert_eq!(sessions.expire(at(5)), [(TYPE, "b".to_owned())]);
        assert_eq!(sessions.next_expiry(), Some(at(9)));
        let received = Received { removed: vec!["d".to_owned()], ..Received::default() };
        sessions.note_lifetimes(TYPE, &received, now);
        assert_eq!(sessions.expire(at(10)), [(TYPE, "a".to_owned())]);
        assert_eq!(sessions.next_expiry(), None);
    }

    #[test]
    fn a_session_hears_of_what_is_there_from_before_the_start() {
        let versions = [("a", "1"), ("b", "2")];
        let restored = versions.map(|(name, version)| ((TYPE, name.to_owned()), version.to_owned())).into();
        let mut sessions = Sessions::new(Variant::Delta, [TYPE], restored);
        assert!(!sessions.want_something());
        sessions.take(&change("b", true));
        let request = sessions.of(TYPE).unwrap().next_request(&Node::default()).unwrap();
        let crate::xds::session::Request::Delta(request) = request else { panic!("{request:?}") };
        assert_eq!(request.initial_resource_versions, [("b".to_owned(), "2".to_owned())].into());
    }
}
