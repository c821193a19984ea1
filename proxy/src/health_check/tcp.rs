//! `TcpHealthCheck`: a connection, and what comes over it when something is expected.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::TcpCheck;
use super::connection::open;
use super::probe::{Context, Outcome};
use crate::net::Stream;

/// A host that sends more than this without what is expected does not answer.
const MAX_UNREAD_BYTES: usize = 1 << 20;

/// The connection of the check before, while it lasts.
#[derive(Debug, Default)]
pub(super) struct TcpProbe(Option<Open>);

#[derive(Debug)]
struct Open {
    stream: Stream,
    /// Received, and not what was expected yet.
    unread: BytesMut,
}

impl TcpProbe {
    pub(super) fn close(&mut self) {
        self.0 = None;
    }

    pub(super) async fn check(&mut self, context: &Context, check: &TcpCheck) -> Outcome {
        if check.receive.is_empty() {
            // A connection test; nothing is sent.
            return if open(context).await.is_some() { Outcome::WELL } else { Outcome::NO_ANSWER };
        }
        if self.0.is_none() {
            self.0 = open(context).await.map(|stream| Open { stream, unread: BytesMut::new() });
        }
        let Some(connection) = &mut self.0 else { return Outcome::NO_ANSWER };
        let has_answered = connection.ask(check).await;
        if !has_answered || !context.check().reuses_connection {
            self.close();
        }
        if has_answered { Outcome::WELL } else { Outcome::NO_ANSWER }
    }

    /// Waits until the host closes the connection.
    pub(super) async fn breaks(&mut self) {
        match &mut self.0 {
            Some(connection) => while connection.read().await {},
            None => return std::future::pending().await,
        }
        self.close();
    }
}

impl Open {
    /// Whether the host sends what is expected.
    async fn ask(&mut self, check: &TcpCheck) -> bool {
        if self.stream.write_all(&check.send.bytes()).await.is_err() || self.stream.flush().await.is_err() {
            return false;
        }
        while !check.receive.is_in(&self.unread) {
            if !self.read().await {
                return false;
            }
        }
        self.unread.clear();
        true
    }

    /// Whether there is more to come.
    async fn read(&mut self) -> bool {
        let received = self.stream.read_buf(&mut self.unread).await;
        received.is_ok_and(|bytes| bytes > 0) && self.unread.len() <= MAX_UNREAD_BYTES
    }
}
