//! Property tests: whatever happens on the way, client and server come to agree, and nothing is sent twice without need.
//!
//! A random walk of both ends over a link that delivers in order and may break, of a type whose responses are complete
//! and of one whose are not. The client applies what it is sent to a store of its own and rejects versions marked bad.
//! Half of the servers ignore a request with a stale nonce, as the protocol allows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Client, Server};
use crate::ResourceType;
use crate::resource::pack;
use crate::session::{ClientFeatures, Part, Resource, View, WILDCARD};
use crate::wire::core::v3::Node;
use crate::wire::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use crate::wire::endpoint::v3::ClusterLoadAssignment;
use crate::wire::protobuf::Any;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TYPES: [ResourceType; 2] = [ResourceType::Cluster, ResourceType::ClusterLoadAssignment];

/// The server's resources, name to version and content, and those that have left and were not taken from the client.
#[derive(Default)]
struct Store {
    present: BTreeMap<String, (String, Any)>,
    leaving: BTreeMap<String, (String, Any)>,
}

fn resource((version, content): &(String, Any)) -> Resource<'_> {
    Resource { version, content, ttl: None }
}

impl View for Store {
    fn get(&self, name: &str) -> Option<Resource<'_>> {
        self.present.get(name).map(resource)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.present.keys().map(String::as_str)
    }

    fn leaving(&self) -> impl Iterator<Item = (&str, Resource<'_>)> {
        self.leaving.iter().map(|(name, of)| (name.as_str(), resource(of)))
    }
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    of: ResourceType,
    /// Whether the server ignores requests with a stale nonce.
    is_strict: bool,
    /// Whether messages may be delivered twice.
    duplicates: bool,
    store: Store,
    next_version: u32,
    client: Client,
    /// What the client runs with: name to version.
    applied: BTreeMap<String, String>,
    server: Server,
    /// Whether a response was sent on this stream, and the nonce of the last.
    nonce: Option<String>,
    /// The names in the last request that counted, and those that came or went in one and were not sent since.
    heard: Vec<String>,
    asked: BTreeSet<String>,
    /// What the last response had, name to version.
    last_sent: BTreeMap<String, String>,
    to_server: VecDeque<DiscoveryRequest>,
    to_client: VecDeque<DiscoveryResponse>,
}

fn is_bad(version: &str) -> bool {
    version.starts_with("bad")
}

impl World {
    fn new(seed: u64, of: ResourceType) -> World {
        World {
            seed,
            random: fastrand::Rng::with_seed(seed),
            of,
            is_strict: seed.is_multiple_of(2),
            duplicates: seed.is_multiple_of(3),
            store: Store::default(),
            next_version: 0,
            client: Client::new(of),
            applied: BTreeMap::new(),
            server: Server::new(of, ClientFeatures::default()),
            nonce: None,
            heard: Vec::new(),
            asked: BTreeSet::new(),
            last_sent: BTreeMap::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
        }
    }

    fn step(&mut self) {
        let name = NAMES[self.random.usize(..NAMES.len())];
        match self.random.u8(..21) {
            0..=3 => self.change(name),
            4 => self.remove(name),
            5..=6 => {
                self.client.subscribe(name);
            }
            7 => self.unsubscribe(name),
            8 => {
                self.client.subscribe(WILDCARD);
            }
            9 => self.unsubscribe(WILDCARD),
            10 => self.reconnect(),
            11 => self.expire(name),
            12..=13 => self.to_server.extend(self.client.next_request(&Node::default())),
            14..=15 => self.deliver_to_server(),
            16..=17 => self.deliver_to_client(),
            _ => {
                let part = [Part::All, Part::Updates, Part::Removals][self.random.usize(..3)];
                self.push(part);
            }
        }
    }

    fn change(&mut self, name: &str) {
        self.next_version += 1;
        let kind = if self.random.u8(..4) == 0 { "bad" } else { "good" };
        let version = format!("{kind}{}", self.next_version);
        // The name is the first field of every resource type; the version follows as one that nobody knows.
        let mut content =
            pack(&ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() });
        content.type_url = self.of.type_url().to_owned();
        content.value.extend([0xfa, 0x3f, u8::try_from(version.len()).unwrap()]);
        content.value.extend(version.as_bytes());
        self.store.leaving.remove(name);
        self.store.present.insert(name.to_owned(), (version, content));
    }

    fn remove(&mut self, name: &str) {
        if let Some(of) = self.store.present.remove(name) {
            self.store.leaving.insert(name.to_owned(), of);
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        for dropped in self.client.unsubscribe(name) {
            self.applied.remove(&dropped);
        }
    }

    /// A TTL runs out; only before a reconnect, for on the same stream the server does not hear of it.
    fn expire(&mut self, name: &str) {
        if self.client.expire(name) {
            self.applied.remove(name);
        }
        self.reconnect();
    }

    fn reconnect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.client.on_stream_closed();
        self.server = Server::new(self.of, ClientFeatures::default());
        self.nonce = None;
        self.heard.clear();
        self.asked.clear();
    }

    fn push(&mut self, part: Part) {
        let Some(response) = self.server.next_response(&self.store, part) else { return };
        if part != Part::Updates {
            self.store.leaving.clear();
        }
        self.check_need(&response);
        self.nonce = Some(response.nonce.clone());
        self.to_client.push_back(response);
    }

    /// A complete state is only sent when it is another one than the last, anything else only to a client that does not
    /// have it; or to one that has just named it, or no longer does. On a new stream the server may not know, and who delivers an answer
    /// twice asks for everything again.
    fn check_need(&mut self, response: &DiscoveryResponse) {
        let (seed, sent) = (self.seed, response.resources.iter().map(read).collect::<BTreeMap<_, _>>());
        let is_known = self.nonce.is_some() && !self.duplicates;
        if self.of.has_complete_responses() {
            let is_asked = !std::mem::take(&mut self.asked).is_empty();
            let is_same = sent == self.last_sent;
            assert!(is_asked || !(is_known && is_same), "seed {seed}: {sent:?} was sent again");
        } else {
            for (name, version) in &sent {
                let is_held = self.applied.get(name) == Some(version) && !self.asked.remove(name);
                assert!(!(is_known && is_held), "seed {seed}: {name} {version} was sent again");
            }
        }
        self.last_sent = sent;
    }

    fn deliver_to_server(&mut self) {
        let Some(request) = self.to_server.pop_front() else { return };
        self.hear(&request);
        if self.duplicates && self.random.u8(..8) == 0 {
            self.hear(&request);
        }
    }

    fn hear(&mut self, request: &DiscoveryRequest) {
        let is_stale = self.nonce.as_ref().is_some_and(|nonce| *nonce != request.response_nonce);
        if self.is_strict && is_stale {
            return;
        }
        self.server.on_request(request).unwrap();
        let before = std::mem::replace(&mut self.heard, request.resource_names.clone());
        // Whoever no longer names what the wildcard covers may have dropped it.
        let named = self.heard.iter().filter(|name| !before.contains(name));
        for name in named.chain(before.iter().filter(|name| !self.heard.contains(name))) {
            match name.as_str() {
                WILDCARD => self.asked.extend(NAMES.map(str::to_owned)),
                name => self.asked.extend([name.to_owned()]),
            }
        }
    }

    fn deliver_to_client(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        self.receive(&response);
        if self.duplicates && self.random.u8(..8) == 0 {
            self.receive(&response);
        }
    }

    fn receive(&mut self, response: &DiscoveryResponse) {
        let received = self.client.on_response(response.clone()).unwrap();
        let mut rejected = Vec::new();
        for update in received.updated {
            let (name, version) = read(&update.content);
            assert_eq!((&name, &response.version_info), (&update.name, &update.version));
            if is_bad(&version) {
                rejected.push(name);
            } else {
                self.applied.insert(name, version);
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
                self.hear(&request);
            }
            self.push(Part::All);
            if self.to_client.is_empty() && self.to_server.is_empty() {
                return responses;
            }
            while let Some(response) = self.to_client.pop_front() {
                responses += 1;
                assert!(responses < 100, "seed {}: the two ends never come to rest", self.seed);
                self.receive(&response);
            }
        }
    }

    fn check(&mut self) {
        let seed = self.seed;
        self.settle();
        for name in NAMES {
            let applied = self.applied.get(name).map(String::as_str);
            assert!(!applied.is_some_and(is_bad), "seed {seed}: {name} was applied though bad");
            let is_wanted = self.client.wants(name);
            match self.store.present.get(name).filter(|_| is_wanted) {
                Some((version, _)) if is_bad(version) => {}
                Some((version, _)) => {
                    assert_eq!(applied, Some(version.as_str()), "seed {seed}: {name} is not up to date");
                }
                // Other types have no way to say that a resource is gone.
                None if is_wanted && !self.of.has_complete_responses() => {}
                None => assert_eq!(applied, None, "seed {seed}: {name} should be gone"),
            }
        }
        assert!(
            self.client.held().eq(self.applied.keys().map(String::as_str)),
            "seed {seed}: what is held is not what is applied"
        );
        assert_eq!(self.settle(), 0, "seed {seed}: something is sent though nothing changed");
    }
}

/// Name and version of a resource of the store.
fn read(any: &Any) -> (String, String) {
    let name = crate::resource::name_of(any).unwrap();
    let version = any.value[2 + name.len() + 3..].to_vec();
    (name, String::from_utf8(version).unwrap())
}

#[test]
fn both_ends_converge() {
    for seed in 0..4_000 {
        let mut world = World::new(seed, TYPES[seed as usize / 6 % 2]);
        for _ in 0..4 {
            for _ in 0..60 {
                world.step();
            }
            world.check();
        }
    }
}

/// A server that starts again, or another replica, has the same versions of the same resources.
#[test]
fn a_reconnect_at_rest_costs_nothing() {
    for seed in 0..400 {
        let mut world = World::new(seed, TYPES[seed as usize / 6 % 2]);
        world.duplicates = false;
        let wanted = if seed.is_multiple_of(5) { NAMES[0] } else { WILDCARD };
        world.client.subscribe(wanted);
        for name in NAMES {
            world.change(name);
        }
        world.settle();
        let has_bad = world.client.wants("b")
            && world.store.present.values().any(|(version, _)| is_bad(version))
            || world.store.present["a"].0.starts_with("bad");
        world.reconnect();
        let responses = world.settle();
        assert_eq!(responses, usize::from(has_bad), "seed {seed}: who rejected something hears of it again");
    }
}
