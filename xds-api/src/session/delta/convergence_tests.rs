//! Property test: whatever happens on the way, client and server come to agree.
//!
//! A random walk of both ends over a link that delivers in order, may deliver twice, and may break. The client applies
//! what it is sent to a store of its own and rejects versions marked bad.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, VecDeque};

use super::{Client, Server};
use crate::ResourceType;
use crate::session::{ClientFeatures, Part, Resource, View, WILDCARD};
use crate::wire::core::v3::Node;
use crate::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::wire::protobuf::Any;

const TYPE: ResourceType = ResourceType::Cluster;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The server's resources: name to version and content, which is the version again.
#[derive(Default)]
struct Store(BTreeMap<String, (String, Any)>);

impl View for Store {
    fn get(&self, name: &str) -> Option<Resource<'_>> {
        self.0.get(name).map(|(version, content)| Resource { version, content, ttl: None })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

struct World {
    random: fastrand::Rng,
    store: Store,
    next_version: u32,
    client: Client,
    /// What the client runs with: name to content.
    applied: BTreeMap<String, Vec<u8>>,
    server: Server,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
}

fn is_bad(version: &[u8]) -> bool {
    version.starts_with(b"bad")
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: fastrand::Rng::with_seed(seed),
            store: Store::default(),
            next_version: 0,
            client: Client::new(TYPE),
            applied: BTreeMap::new(),
            server: Server::new(TYPE, ClientFeatures::default()),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
        }
    }

    fn step(&mut self) {
        let name = NAMES[self.random.usize(..NAMES.len())];
        match self.random.u8(..20) {
            0..=3 => self.change(name),
            4 => {
                self.store.0.remove(name);
            }
            5..=6 => {
                self.client.subscribe(name);
            }
            7 => self.unsubscribe(name),
            8 => {
                self.client.subscribe(WILDCARD);
            }
            9 => self.unsubscribe(WILDCARD),
            10 => self.reconnect(),
            11..=12 => self.to_server.extend(self.client.next_request(&Node::default())),
            13..=14 => self.deliver_to_server(),
            15..=16 => self.deliver_to_client(),
            _ => self.push(),
        }
    }

    fn change(&mut self, name: &str) {
        self.next_version += 1;
        let kind = if self.random.u8(..4) == 0 { "bad" } else { "good" };
        let version = format!("{kind}{}", self.next_version);
        let content = Any { type_url: TYPE.type_url().to_owned(), value: version.clone().into_bytes() };
        self.store.0.insert(name.to_owned(), (version, content));
    }

    fn unsubscribe(&mut self, name: &str) {
        for dropped in self.client.unsubscribe(name) {
            self.applied.remove(&dropped);
        }
    }

    fn reconnect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.client.on_stream_closed();
        self.server = Server::new(TYPE, ClientFeatures::default());
    }

    fn push(&mut self) {
        let part = [Part::All, Part::Updates, Part::Removals][self.random.usize(..3)];
        self.to_client.extend(self.server.next_response(&self.store, part));
    }

    fn deliver_to_server(&mut self) {
        let Some(request) = self.to_server.pop_front() else { return };
        self.server.on_request(&request).unwrap();
        if self.random.u8(..8) == 0 {
            self.server.on_request(&request).unwrap();
        }
    }

    fn deliver_to_client(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        self.receive(&response);
        if self.random.u8(..8) == 0 {
            self.receive(&response);
        }
    }

    fn receive(&mut self, response: &DeltaDiscoveryResponse) {
        let received = self.client.on_response(response.clone()).unwrap();
        let mut rejected = Vec::new();
        for resource in received.updated {
            let content = resource.content.value;
            if is_bad(&content) {
                rejected.push(resource.name);
            } else {
                self.applied.insert(resource.name, content);
            }
        }
        for name in received.removed {
            self.applied.remove(&name);
        }
        let answer = if rejected.is_empty() {
            self.client.ack(&received.nonce)
        } else {
            self.client.nack(&received.nonce, &rejected, "bad")
        };
        self.to_server.push_back(answer.unwrap());
    }

    /// Lets everything that is under way arrive. Returns the number of responses that it took.
    fn settle(&mut self) -> usize {
        let mut responses = 0;
        loop {
            while let Some(request) = self.client.next_request(&Node::default()) {
                self.to_server.push_back(request);
            }
            while let Some(request) = self.to_server.pop_front() {
                self.server.on_request(&request).unwrap();
            }
            self.to_client.extend(self.server.next_response(&self.store, Part::All));
            if self.to_client.is_empty() && self.to_server.is_empty() {
                return responses;
            }
            while let Some(response) = self.to_client.pop_front() {
                responses += 1;
                assert!(responses < 100, "the two ends never come to rest");
                self.receive(&response);
            }
        }
    }

    fn check(&mut self, seed: u64) {
        self.settle();
        for name in NAMES {
            let applied = self.applied.get(name).map(Vec::as_slice);
            let wanted = self.store.0.get(name).filter(|_| self.client.wants(name));
            match wanted {
                None => assert_eq!(applied, None, "seed {seed}: {name} should be gone"),
                Some((version, _)) if is_bad(version.as_bytes()) => {
                    assert!(!applied.is_some_and(is_bad), "seed {seed}: {name} was applied though bad");
                }
                Some((version, _)) => {
                    assert_eq!(applied, Some(version.as_bytes()), "seed {seed}: {name} is not up to date");
                }
            }
            let held = self.client.held_version(name).map(str::as_bytes);
            assert_eq!(held, applied, "seed {seed}: the version held of {name} is not what is applied");
        }
        assert_eq!(self.settle(), 0, "seed {seed}: something is sent though nothing changed");
    }
}

#[test]
fn both_ends_converge() {
    for seed in 0..2_000 {
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..60 {
                world.step();
            }
            world.check(seed);
        }
    }
}

#[test]
fn a_reconnect_at_rest_resends_nothing() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.client.subscribe(WILDCARD);
        for name in NAMES {
            world.change(name);
        }
        world.settle();
        world.reconnect();
        world.to_server.extend(world.client.next_request(&Node::default()));
        let request = world.to_server.pop_front().unwrap();
        world.server.on_request(&request).unwrap();
        let response = world.server.next_response(&world.store, Part::All).unwrap();
        for resource in response.resources {
            assert!(is_bad(resource.version.as_bytes()), "seed {seed}: {} was resent", resource.name);
        }
        assert!(response.removed_resources.is_empty());
    }
}
