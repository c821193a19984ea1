//! What a server session serves.

use std::time::Duration;

use crate::wire::protobuf::Any;

/// What a client may see of one resource type, at one moment. Both variants of the protocol serve the same view.
pub trait View {
    /// The resource `name`, also when only a subscription by name may see it.
    fn get(&self, name: &str) -> Option<Resource<'_>>;
    /// The names that a wildcard subscription gets.
    fn names(&self) -> impl Iterator<Item = &str>;
    /// Whether `name` is among them. To be overridden when [`View::get`] also knows resources that only a subscription
    /// by name may see.
    fn is_in_wildcard(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    /// Resources that have left the view and that the client is to keep until its removals are sent
    /// ([`Part::Removals`]). Only the state of the world needs them: an update there repeats everything that is to
    /// stay. What is in the view again is taken from there.
    fn leaving(&self) -> impl Iterator<Item = (&str, Resource<'_>)> {
        std::iter::empty()
    }
}

/// One resource of a [`View`].
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Changes whenever the content does, or whether there is a TTL; best a hash of the content, so that it survives a
    /// restart.
    pub version: &'a str,
    /// The encoded resource. Copied only when it is sent.
    pub content: &'a Any,
    /// How long the client may use it unless it hears of it again; `None` is for ever. A client that does not keep TTLs
    /// gets the resource without.
    pub ttl: Option<Duration>,
}

/// Which part of a difference to send: updates go out in the order of the types, removals in the reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Updates and removals in one response.
    All,
    /// New and changed resources, and the news that a subscribed name does not exist.
    Updates,
    /// Only what the client holds and should no longer. To be asked for when there are no updates left: in the state of
    /// the world the response that removes is the whole state.
    Removals,
}
