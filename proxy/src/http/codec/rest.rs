//! A connection at rest: idle for a while, without its buffers, until its client says something.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::Io;
use crate::worker::ConnectionHandle;

/// The first bytes that wake a connection; what there is beyond waits in the socket.
const FIRST_READ: usize = 512;

/// Waits for the client's next bytes, which are found again. `None`: the connection has ended, or `handle` ends it.
pub(super) async fn rest(mut io: Io, handle: &ConnectionHandle) -> Option<Io> {
    let mut is_flushed = false;
    let woken = std::future::poll_fn(|cx| {
        // TLS may still hold the end of the last answer.
        is_flushed = is_flushed || Pin::new(&mut io).poll_flush(cx).is_ready();
        poll_first_bytes(cx, &mut io, handle)
    });
    let woken = woken.await?;
    io.put_back(woken);
    Some(io)
}

fn poll_first_bytes(cx: &mut Context<'_>, io: &mut Io, handle: &ConnectionHandle) -> Poll<Option<Bytes>> {
    handle.watch(cx);
    if handle.is_killed() {
        return Poll::Ready(None);
    }
    if !handle.is_closing() {
        // On the stack: at rest a connection holds no buffer.
        let mut first = [0; FIRST_READ];
        let mut first = ReadBuf::new(&mut first);
        match ready!(Pin::new(&mut *io).poll_read(cx, &mut first)) {
            Ok(()) if !first.filled().is_empty() => {
                return Poll::Ready(Some(Bytes::copy_from_slice(first.filled())));
            }
            // The client has ended it, or it broke with nothing in flight.
            Ok(()) => {}
            Err(_) => return Poll::Ready(None),
        }
    }
    Pin::new(io).poll_shutdown(cx).map(|_| None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::http::codec::io::{Follow, Side};
    use crate::net::Stream;
    use crate::stats::Stats;
    use crate::worker::Connections;

    struct Idle {
        connections: Connections,
        handle: Rc<ConnectionHandle>,
        client: UnixStream,
        io: Io,
        stats: std::sync::Arc<crate::stats::HttpStats>,
    }

    fn idle() -> Idle {
        let (connections, stats) = (Connections::default(), Stats::new().http("test"));
        let handle = connections.register(1);
        let (client, server) = UnixStream::pair().unwrap();
        let side = Side::Downstream(stats.clone(), handle.clone(), Follow::Nothing);
        Idle { connections, handle, client, io: Io::new(Stream::Unix(server), Bytes::new(), side), stats }
    }

    #[tokio::test]
    async fn what_woke_it_is_read_again_and_counted_once() {
        let Idle { handle, mut client, io, stats, connections: _connections } = idle();
        let sent = "x".repeat(FIRST_READ + 100);
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut woken = rest(io, &handle).await.unwrap();
        let mut read = vec![0; sent.len()];
        woken.read_exact(&mut read).await.unwrap();
        assert_eq!(read, sent.as_bytes());
        assert_eq!(stats.downstream_cx_rx_bytes_total.get(), sent.len() as u64);
    }

    #[tokio::test]
    async fn it_ends_with_its_client() {
        let Idle { handle, client, io, .. } = idle();
        drop(client);
        assert!(rest(io, &handle).await.is_none());
        assert!(handle.is_client_ended());
    }

    #[tokio::test]
    async fn it_ends_when_it_is_drained() {
        let Idle { connections, handle, mut client, io, .. } = idle();
        handle.drain();
        let drained = async {
            tokio::task::yield_now().await;
            connections.sweep(Instant::now() + Duration::from_secs(1), &Default::default());
        };
        let (rested, ()) = tokio::join!(rest(io, &handle), drained);
        assert!(rested.is_none() && !handle.is_client_ended());
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "it is told");
    }
}
