//! Responses of the state of the world, one after the other (each behind its length), to a client session.

use std::collections::BTreeSet;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{WILDCARD, sotw::Client};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::DiscoveryResponse;

use crate::input::messages;

/// After each response that is accepted, the session holds what that response has, and nothing else.
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut client = Client::new(ResourceType::Cluster);
    client.subscribe(WILDCARD);
    client.next_request(&Node::default());
    let mut answered = String::new();
    for response in messages::<DiscoveryResponse>(bytes) {
        let (nonce, version) = (response.nonce.clone(), response.version_info.clone());
        let is_repeated = nonce == std::mem::replace(&mut answered, nonce.clone());
        let Ok(received) = client.on_response(response) else {
            client.nack_all(&nonce, "malformed").unwrap();
            continue;
        };
        // A stand-in for a response of which everything is wrong.
        if version.starts_with('!') {
            client.nack_all(&nonce, "bad").unwrap();
            continue;
        }
        let updated = received.updated.iter().map(|update| update.name.as_str());
        let beats = received.heartbeats.iter().map(|beat| beat.name.as_str());
        let said: BTreeSet<&str> = updated.chain(beats).collect();
        let answer = client.ack(&nonce).unwrap();
        if received.updated.is_empty() && !received.heartbeats.is_empty() {
            continue;
        }
        assert_eq!(client.held().collect::<BTreeSet<_>>(), said);
        // What is delivered twice says nothing new of versions.
        if !is_repeated {
            assert_eq!((answer.version_info.as_str(), client.version()), (version.as_str(), version.as_str()));
        }
    }
    client.on_stream_closed();
    client.next_request(&Node::default()).unwrap();
}
