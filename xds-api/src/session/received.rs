//! What a client session gives of a response, and what is wrong with a response.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ttl;
use crate::wire::discovery::v3::Resource;
use crate::wire::protobuf::Any;

/// What a response brought. Answer it by its nonce once it is applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    /// New or changed resources; the state of the world repeats unchanged ones. One that was unsubscribed from in the
    /// meantime is left out.
    pub updated: Vec<Update>,
    /// Resources that stay as they are and whose time to live begins anew.
    pub heartbeats: Vec<Heartbeat>,
    /// Names that do not exist, or no longer.
    pub removed: Vec<String>,
    /// What the answer refers to.
    pub nonce: String,
}

/// One resource of a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Its name.
    pub name: String,
    /// Its version, as the server calls it; that of the whole response when it has none of its own.
    pub version: String,
    /// The encoded resource.
    pub content: Any,
    /// Other names of it (`Resource.aliases`).
    pub aliases: Vec<String>,
    /// It is to be dropped after this long, unless it or a [`Heartbeat`] comes again; `None` is never. The owner keeps
    /// the time, and tells the session when it has dropped it (`expire`).
    pub ttl: Option<Duration>,
}

/// A sign of life for a resource that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The resource's name.
    pub name: String,
    /// Its time to live from now on; `None` is for ever.
    pub ttl: Option<Duration>,
}

/// A response that breaks the protocol. It is to be rejected with `nack_all` and this as the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedResponse {
    /// The response is about another type than this session.
    #[error("response has type {actual:?}, expected {expected}")]
    Type {
        /// The type URL of this session.
        expected: &'static str,
        /// The type URL found.
        actual: String,
    },
    /// A resource cannot be read as far as its name.
    #[error("resource {index} of the response: {reason}")]
    Undecodable {
        /// Its position in `resources`.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A resource has no name.
    #[error("resource {index} of the response has no name")]
    Unnamed {
        /// Its position in `resources`.
        index: usize,
    },
    /// The same name occurs twice, among the resources or in both lists.
    #[error("duplicate name {name:?} in the response")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A resource's content has another type than the response.
    #[error("resource {name:?} has type {actual:?}, expected {expected}")]
    ResourceType {
        /// The resource's name.
        name: String,
        /// The type URL of this session.
        expected: &'static str,
        /// The type URL found, empty when there is no content.
        actual: String,
    },
    /// A resource's time to live is none.
    #[error("resource {name:?}: ttl: {reason}")]
    Ttl {
        /// The resource's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// A resource of a response whose form is right.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) version: String,
    /// `None` is a heartbeat.
    pub(super) content: Option<Any>,
    pub(super) ttl: Option<Duration>,
    pub(super) aliases: Vec<String>,
}

/// Checks the form of a response's resources: each has a name that no other has, and content of the type `expected`.
/// Only one with a TTL, or one that is `held` in the version given, may come without content: that is a heartbeat.
pub(super) fn check(
    resources: Vec<Resource>,
    expected: &'static str,
    held: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Checked>, MalformedResponse> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(resources.len());
    for (index, resource) in resources.into_iter().enumerate() {
        let Resource { name, version, resource: content, ttl, aliases, .. } = resource;
        if name.is_empty() {
            return Err(MalformedResponse::Unnamed { index });
        }
        if !names.insert(name.clone()) {
            return Err(MalformedResponse::Duplicate { name });
        }
        let actual = content.as_ref().map(|any| any.type_url.as_str());
        let is_fine = match actual {
            Some(actual) => actual == expected,
            None => ttl.is_some() || held(&name, &version),
        };
        if !is_fine {
            let actual = actual.unwrap_or_default().to_owned();
            return Err(MalformedResponse::ResourceType { name, expected, actual });
        }
        let ttl = match ttl.map(ttl::decode).transpose() {
            Ok(ttl) => ttl,
            Err(reason) => return Err(MalformedResponse::Ttl { name, reason }),
        };
        checked.push(Checked { name, version, content, ttl, aliases });
    }
    Ok(checked)
}

impl Received {
    /// Sorts what `wants` a name into updates and heartbeats. A heartbeat counts for what is `held` in its version: of
    /// anything else there is nothing whose time could begin anew.
    pub(super) fn sort(
        resources: Vec<Checked>,
        nonce: String,
        wants: impl Fn(&str) -> bool,
        held: impl Fn(&str, &str) -> bool,
    ) -> Received {
        let mut received = Received { nonce, ..Received::default() };
        for Checked { name, version, content, ttl, aliases } in resources {
            match content {
                Some(content) if wants(&name) => {
                    received.updated.push(Update { name, version, content, ttl, aliases });
                }
                None if held(&name, &version) => received.heartbeats.push(Heartbeat { name, ttl }),
                _ => {}
            }
        }
        received
    }
}
