//! What a client is subscribed to, at the server's end.

use std::collections::{BTreeMap, BTreeSet};

use crate::ResourceType;
use crate::session::{Resource, View, WILDCARD};

/// The subscription of one stream to one type.
#[derive(Debug)]
pub(super) struct Subscription {
    resource_type: ResourceType,
    requested: bool,
    /// Names subscribed to one by one.
    named: BTreeSet<String>,
    wildcard: bool,
    /// A name was subscribed to on this stream, so that an empty list means nothing and no longer everything.
    has_named: bool,
}

/// What a request changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// It was the stream's first of this type.
    pub(super) is_first: bool,
    /// Names that are new, and those that are no longer there.
    pub(super) added: BTreeSet<String>,
    pub(super) removed: BTreeSet<String>,
    /// The wildcard is new, or is no longer there.
    pub(super) wildcard_added: bool,
    pub(super) wildcard_removed: bool,
}

impl Change {
    /// Whether the request asked for the same as the one before.
    pub(super) fn is_none(&self) -> bool {
        let is_same_wildcard = !self.wildcard_added && !self.wildcard_removed;
        !self.is_first && is_same_wildcard && self.added.is_empty() && self.removed.is_empty()
    }
}

/// What a client should have, by name.
pub(super) type Target<'v> = BTreeMap<&'v str, Resource<'v>>;

impl Subscription {
    pub(super) fn new(resource_type: ResourceType) -> Subscription {
        Subscription {
            resource_type,
            requested: false,
            named: BTreeSet::new(),
            wildcard: false,
            has_named: false,
        }
    }

    /// Takes in the `resource_names` of a request, which are the whole subscription.
    pub(super) fn replace(&mut self, names: &[String]) -> Change {
        let is_first = !std::mem::replace(&mut self.requested, true);
        self.has_named |= !names.is_empty();
        let implicit_wildcard = !self.has_named && self.resource_type.has_implicit_wildcard();
        let wildcard = implicit_wildcard || names.iter().any(|name| name == WILDCARD);
        let named: BTreeSet<String> = names.iter().filter(|name| *name != WILDCARD).cloned().collect();
        let change = Change {
            is_first,
            added: named.difference(&self.named).cloned().collect(),
            removed: self.named.difference(&named).cloned().collect(),
            wildcard_added: wildcard && !self.wildcard,
            wildcard_removed: self.wildcard && !wildcard,
        };
        self.named = named;
        self.wildcard = wildcard;
        change
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.wildcard && self.named.is_empty()
    }

    /// Whether there was a request, whatever it asked for.
    pub(super) fn is_requested(&self) -> bool {
        self.requested
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(String::as_str)
    }

    /// Whether `name` is subscribed to, by name or by wildcard.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.named.contains(name)
    }

    /// What of the view is subscribed to.
    pub(super) fn target<'v>(&'v self, view: &'v impl View) -> Target<'v> {
        let by_wildcard = view.names().filter(|_| self.wildcard);
        by_wildcard.chain(self.named()).filter_map(|name| Some((name, view.get(name)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The example of the protocol, "How the client specifies what resources to return".
    #[test]
    fn an_empty_list_is_everything_until_a_name_was_subscribed_to() {
        let mut subscription = Subscription::new(ResourceType::Cluster);
        let change = subscription.replace(&[]);
        assert!(change.is_first && change.wildcard_added && subscription.covers("anything"));
        assert!(subscription.replace(&[]).is_none());
        let change = subscription.replace(&names(&["*", "A"]));
        assert!(!change.wildcard_added && !change.wildcard_removed);
        assert_eq!(change.added, ["A".to_owned()].into());
        assert!(subscription.replace(&names(&["A"])).wildcard_removed);
        assert!(subscription.covers("A") && !subscription.covers("B"));
        assert_eq!(subscription.replace(&[]).removed, ["A".to_owned()].into());
        assert!(!subscription.is_wildcard() && !subscription.covers("A"));
    }

    #[test]
    fn an_empty_list_is_nothing_for_types_without_implicit_wildcard() {
        let mut subscription = Subscription::new(ResourceType::ClusterLoadAssignment);
        let change = subscription.replace(&[]);
        assert!(change.is_first && !change.wildcard_added && !subscription.is_wildcard());
        assert!(subscription.replace(&names(&["*"])).wildcard_added);
    }
}
