//! How our side ends a connection whose client may still be sending: the client is to read the last answer first.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::io::Io;
use crate::worker::ConnectionHandle;

/// How long a client whose request was not read to its end may take to read the answer: until then its connection is not closed, for that
/// would take the answer away from it. Envoy's default of `delayed_close_timeout`.
const LINGER: Duration = Duration::from_secs(1);

/// Tells the client that nothing more comes; with `lingers` what it still sends is read for a while and forgotten.
pub(super) async fn end(mut io: Io, lingers: bool, handle: &ConnectionHandle) {
    let ended = async {
        let is_told = io.shutdown().await.is_ok();
        let mut forgotten = [0; 1024];
        if lingers && is_told {
            while matches!(io.read(&mut forgotten).await, Ok(1..)) {}
        }
    };
    tokio::select! {
        _ = timeout(LINGER, ended) => {}
        () = handle.killed() => {}
    }
}

/// Writes the last bytes of a connection.
pub(super) async fn write_last(mut io: Io, bytes: &[u8], handle: &ConnectionHandle) {
    // A client that has gone need not be told.
    if io.write_all(bytes).await.is_ok() {
        end(io, true, handle).await;
    }
}
