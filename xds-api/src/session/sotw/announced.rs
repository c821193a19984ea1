//! What a client has told the server on one stream, and the form in which it says its subscription.

use std::collections::BTreeSet;

use crate::ResourceType;
use crate::session::WILDCARD;

#[derive(Debug)]
pub(super) struct Announced {
    resource_type: ResourceType,
    /// The subscription, as the last request had it.
    pub(super) names: BTreeSet<String>,
    /// The nonce of the response that was answered last.
    pub(super) nonce: String,
    /// A name was sent, so that an empty list means nothing and no longer everything.
    has_named: bool,
}

impl Announced {
    pub(super) fn new(resource_type: ResourceType) -> Announced {
        Announced { resource_type, names: BTreeSet::new(), nonce: String::new(), has_named: false }
    }

    /// Whether one request can say it: an empty list would mean everything as long as no name was sent.
    pub(super) fn can_say(&self, names: &BTreeSet<String>) -> bool {
        !names.is_empty() || self.has_named || !self.resource_type.has_implicit_wildcard()
    }

    /// The `resource_names` that say `names`. A wildcard alone is an empty list where that is allowed, as an Envoy sends
    /// it: not every server knows its name.
    pub(super) fn say(&mut self, names: BTreeSet<String>) -> Vec<String> {
        self.names = names;
        let is_wildcard = self.names.len() == 1 && self.names.contains(WILDCARD);
        if is_wildcard && !self.has_named && self.resource_type.has_implicit_wildcard() {
            return Vec::new();
        }
        self.has_named |= !self.names.is_empty();
        self.names.iter().cloned().collect()
    }

    /// The same as an empty list, in a form after which an empty list means nothing.
    pub(super) fn say_wildcard(&mut self) -> Vec<String> {
        self.has_named = true;
        vec![WILDCARD.to_owned()]
    }
}
