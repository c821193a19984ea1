//! How our side ends a connection whose client may still be sending: the client is to read the last answer first.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::io::Io;
use crate::http::downstream::DownstreamConnection;

/// Tells the client that nothing more comes. With `lingers` its request was not read to its end, and to close the connection now would
/// take the answer away from it: what it still sends is read for a while (`delayed_close_timeout`) and forgotten.
pub(super) async fn end(mut io: Io, lingers: bool, downstream: &DownstreamConnection) {
    let handle = &downstream.handle;
    let limit = downstream.live.connection.delayed_close;
    let lingers = lingers && limit.is_some();
    let ended = async {
        let is_told = io.shutdown().await.is_ok();
        let mut forgotten = [0; 1024];
        if lingers && is_told {
            while matches!(io.read(&mut forgotten).await, Ok(1..)) {}
        }
    };
    let ended_in_time = async {
        match limit {
            Some(limit) => timeout(limit, ended).await.is_ok(),
            None => {
                ended.await;
                true
            }
        }
    };
    tokio::select! {
        in_time = ended_in_time => {
            if !in_time {
                downstream.stats.downstream_cx_delayed_close_timeout.inc();
                handle.record.closes_late();
            }
        }
        () = handle.killed() => {}
    }
}

/// Writes the last bytes of a connection.
pub(super) async fn write_last(mut io: Io, bytes: &[u8], downstream: &DownstreamConnection) {
    // A client that has gone need not be told.
    if io.write_all(bytes).await.is_ok() {
        end(io, true, downstream).await;
    }
}
