//! For whom what a Service comes to is made.

use crate::model::{Client, Place};

/// The callers that clusters or load assignments of a Service are for. What is for fewer stands in the place of what is for more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// All.
    All,
    /// Those at a place, where it counts ([`LocalityBalancing`](crate::model::LocalityBalancing)).
    At(Place),
    /// Those of one client at one place, where the client follows policies that not all follow.
    Of(Client, Place),
}

impl Audience {
    /// Where they are; `None` where that does not count.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::All => None,
            Self::At(place) | Self::Of(_, place) => Some(place),
        }
    }

    /// Who they are; `None` where that does not count.
    pub fn client(&self) -> Option<&Client> {
        match self {
            Self::All | Self::At(_) => None,
            Self::Of(client, _) => Some(client),
        }
    }
}
