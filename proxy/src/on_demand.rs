//! Names that a request needs and nobody has yet: its worker asks main, main asks the source, and the request waits for the answer.
//!
//! [`Asker`]s are part of compiled configuration; workers use them. The other end is `config::on_demand`, on main.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::config::sources::SourceId;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A cluster (ODCDS).
    Cluster,
    /// A virtual host (VHDS), by `route configuration/authority`.
    VirtualHost,
}

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is published, with all that it needs.
    Ready,
    /// The source does not have it, or it is no good.
    Missing,
    /// It was not asked for: there are too many names.
    TooMany,
}

/// A name that a request waits for.
#[derive(Debug)]
pub struct Ask {
    /// What it names.
    pub kind: Kind,
    /// Who is to have it.
    pub source: SourceId,
    /// The resource's name.
    pub name: String,
    /// Where the answer goes. Closed: the request has given up.
    pub answer: oneshot::Sender<Answer>,
}

/// The workers' end of the channel.
#[derive(Debug, Clone)]
pub struct Asks(UnboundedSender<Ask>);

/// The channel from the workers to main.
pub fn channel() -> (Asks, UnboundedReceiver<Ask>) {
    let (sender, receiver) = unbounded_channel();
    (Asks(sender), receiver)
}

/// Asks a source for one kind of names.
#[derive(Debug, Clone)]
pub struct Asker {
    asks: Asks,
    kind: Kind,
    source: SourceId,
}

impl Asks {
    /// An asker of this source.
    pub fn of(&self, kind: Kind, source: SourceId) -> Asker {
        Asker { asks: self.clone(), kind, source }
    }
}

impl Asker {
    /// The source.
    pub fn source(&self) -> SourceId {
        self.source
    }

    /// Asks for a name and waits for the answer. Whoever gives up drops this.
    pub async fn ask(&self, name: String) -> Answer {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { kind: self.kind, source: self.source, name, answer };
        // While the process drains nothing new is found.
        match self.asks.0.send(ask) {
            Ok(()) => answered.await.unwrap_or(Answer::Missing),
            Err(_) => Answer::Missing,
        }
    }
}
