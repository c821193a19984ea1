//! `connection_keepalive`: PINGs that show whether the peer is still there. A connection whose peer says nothing for too long is ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::cluster::Http2KeepAlive;

#[derive(Debug)]
pub(super) struct KeepAlive {
    settings: Http2KeepAlive,
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    /// An answer is waited for. How much had been heard of the peer when the wait began.
    awaits: Option<u64>,
}

impl KeepAlive {
    /// `None`, unless it is configured.
    pub(super) fn new(settings: Option<Http2KeepAlive>, pings: Option<PingPong>) -> Option<Self> {
        let (settings, pings) = settings.zip(pings)?;
        Some(Self { settings, pings, timer: Box::pin(sleep(pause(settings))), awaits: None })
    }

    /// Ready when the peer has said nothing for too long. `heard` is how much has been heard of it so far: as in Envoy it may say anything,
    /// for an answer can stand behind much else.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, heard: u64) -> Poll<()> {
        loop {
            if self.awaits.is_some() && self.pings.poll_pong(cx).is_ready() {
                self.awaits = None;
                self.timer.as_mut().reset(Instant::now() + pause(self.settings));
            }
            ready!(self.timer.as_mut().poll(cx));
            match self.awaits {
                Some(before) if before == heard => return Poll::Ready(()),
                Some(_) => {}
                // It fails when the connection has ended, which shows elsewhere.
                None => _ = self.pings.send_ping(Ping::opaque()),
            }
            self.awaits = Some(heard);
            self.timer.as_mut().reset(Instant::now() + self.settings.timeout);
        }
    }
}

/// The interval with its jitter.
fn pause(settings: Http2KeepAlive) -> Duration {
    let jitter = f64::from(settings.jitter_percent) / 100.0;
    settings.interval.mul_f64(1.0 + jitter * fastrand::f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::{Future, poll_fn};
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SETTINGS: Http2KeepAlive = Http2KeepAlive {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        jitter_percent: 50,
    };
    const PING: u8 = 6;

    /// Runs the connection of a client to a peer that answers so many PINGs: after how long it is given up, when something is heard every
    /// second for `talks`.
    async fn given_up_after(answers: usize, talks: Duration) -> Duration {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let (requests, mut connection) = h2::client::handshake::<_>(near).await.unwrap();
        let peer = async move {
            far.read_exact(&mut [0; 24]).await.unwrap();
            // Settings, and that ours were taken.
            far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut answered = 0;
            loop {
                let mut head = [0; 9];
                far.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; usize::from(head[2])];
                far.read_exact(&mut payload).await.unwrap();
                if head[3] == PING && answered < answers {
                    answered += 1;
                    head[4] = 1;
                    far.write_all(&[&head[..], &payload].concat()).await.unwrap();
                }
            }
        };
        let begin = Instant::now();
        let mut keep_alive = KeepAlive::new(Some(SETTINGS), connection.ping_pong()).unwrap();
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut heard = 0;
        let kept = poll_fn(|cx| {
            while seconds.poll_tick(cx).is_ready() {
                heard += u64::from(begin.elapsed() < talks);
            }
            if keep_alive.poll(cx, heard).is_ready() {
                return Poll::Ready(());
            }
            assert!(pin!(&mut connection).poll(cx).is_pending(), "it lasts");
            Poll::Pending
        });
        tokio::select! {
            () = kept => {}
            () = peer => {}
        }
        drop(requests);
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up() {
        let seconds = |from: u64, to: u64| Duration::from_secs(from)..=Duration::from_secs(to);
        for (answers, talks, expected) in [
            (0, 0, seconds(12, 17)),
            (1, 0, seconds(22, 32)),
            (3, 0, seconds(42, 62)),
            // It says something else, at 19 s for the last time: heard at the end of a wait that began within 2 s before, and then one more.
            (0, 20, seconds(21, 23)),
        ] {
            let after = given_up_after(answers, Duration::from_secs(talks)).await;
            assert!(expected.contains(&after), "{answers} answers, talks for {talks} s: {after:?}");
        }
    }
}
