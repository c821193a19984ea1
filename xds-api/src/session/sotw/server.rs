//! The server's end of a state-of-the-world session: what the client subscribed to, what it has, and what it needs.
//!
//! One [`Server`] lives as long as its stream. At most one response is outstanding: changes that come in between merge
//! into the next one. A version that the client rejected leads to no other response until it changes.

use super::holdings::Holdings;
use super::subscription::Subscription;
use crate::ResourceType;
use crate::session::{ClientFeatures, InvalidRequest, Outcome, Part, Verdict, View};
use crate::wire::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// One stream's state for one resource type.
#[derive(Debug)]
pub struct Server {
    resource_type: ResourceType,
    subscription: Subscription,
    holdings: Holdings,
}

impl Server {
    /// The state of a stream, of a client with `features`, on which nothing of this type was requested yet.
    pub fn new(resource_type: ResourceType, features: ClientFeatures) -> Server {
        Server {
            resource_type,
            subscription: Subscription::new(resource_type),
            holdings: Holdings::new(resource_type, features),
        }
    }

    /// The resource type of this session.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// Whether the client is subscribed to `name`, by name or by wildcard.
    pub fn is_subscribed(&self, name: &str) -> bool {
        self.subscription.covers(name)
    }

    /// Whether the client is subscribed to everything.
    pub fn is_wildcard(&self) -> bool {
        self.subscription.is_wildcard()
    }

    /// The names that the client subscribed to one by one.
    pub fn subscribed_names(&self) -> impl Iterator<Item = &str> {
        self.subscription.named()
    }

    /// Name and version of what the client accepted.
    pub fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.holdings.accepted()
    }

    /// Name and version of what the client rejected and has not been replaced since.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.holdings.rejected()
    }

    /// Whether a response waits for its ACK or NACK; until then nothing else is sent.
    pub fn is_waiting(&self) -> bool {
        self.holdings.is_waiting()
    }

    /// Whether the client may hold something that it should no longer, and can be told so.
    pub fn has_removals(&self, view: &impl View) -> bool {
        self.holdings.has_more_than(&self.subscription.target(view))
    }

    /// Takes in a request. Ask for [`Server::next_response`] afterwards.
    ///
    /// The subscription in it counts also when the nonce is stale: no later request of the client can be older.
    pub fn on_request(&mut self, request: &DiscoveryRequest) -> Result<Outcome, InvalidRequest> {
        let expected = self.resource_type.type_url();
        if request.type_url != expected {
            return Err(InvalidRequest::Type { expected, actual: request.type_url.clone() });
        }
        if !request.resource_locators.is_empty() {
            return Err(InvalidRequest::Locator { field: "resource_locators" });
        }
        let verdict = self.holdings.settle(request);
        let is_answer = matches!(verdict, Verdict::Ack | Verdict::Nack { .. });
        let change = self.subscription.replace(&request.resource_names);
        let subscription_changed = self.holdings.follow(&change, &self.subscription, request, is_answer);
        Ok(Outcome { verdict, subscription_changed })
    }

    /// What the client needs of the view, or `None` when there is nothing to send now: it has everything, or a response
    /// is outstanding.
    pub fn next_response(&mut self, view: &impl View, part: Part) -> Option<DiscoveryResponse> {
        let Server { resource_type, subscription, holdings } = self;
        if holdings.is_waiting() || !subscription.is_requested() {
            return None;
        }
        let mut target = subscription.target(view);
        if part == Part::Updates && resource_type.has_complete_responses() {
            let leaving = view.leaving();
            let leaving = leaving.filter(|(name, _)| subscription.covers(name) && holdings.may_hold(name));
            leaving.for_each(|(name, resource)| {
                target.entry(name).or_insert(resource);
            });
        }
        holdings.resume(&target);
        let is_due = match part {
            Part::All => holdings.needs(&target) || holdings.has_more_than(&target),
            Part::Updates => holdings.needs(&target),
            Part::Removals => holdings.has_more_than(&target),
        };
        is_due.then(|| holdings.respond(&target))
    }

    /// A sign of life for everything that the client holds with a TTL, or `None` when there is nothing like it, the
    /// client does not keep TTLs, or a response is outstanding or due. The owner has the clock, and sends one well
    /// before the shortest TTL of its view is over.
    ///
    /// For listeners and clusters that is the whole state again: an Envoy removes what comes without content.
    pub fn heartbeat(&mut self, view: &impl View) -> Option<DiscoveryResponse> {
        let Server { resource_type, subscription, holdings } = self;
        if holdings.is_waiting() || !subscription.is_requested() || !holdings.keeps_ttl() {
            return None;
        }
        let target = subscription.target(view);
        holdings.resume(&target);
        if holdings.needs(&target) || holdings.has_more_than(&target) {
            return None;
        }
        if resource_type.has_complete_responses() {
            let has_ttl = target.values().any(|resource| resource.ttl.is_some());
            return has_ttl.then(|| holdings.respond(&target));
        }
        holdings.heartbeat(&target)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
