//! A response's body that goes no faster than a rate: Envoy's stream rate limiter, which the fault filter uses.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::http::active_stream::ActiveStream;
use crate::http::body::Source;
use crate::http::error::Failure;
use crate::worker::{Timer, Worker};

/// What goes out in one step has come in so much time.
const STEP: Duration = Duration::from_millis(50);

/// So much is read ahead of the client, as with Envoy's default `per_connection_buffer_limit_bytes`: a response that fits does not keep
/// its upstream waiting.
const BUFFER_BYTES: usize = 1 << 20;

/// Lets through what the rate allows.
#[derive(Debug)]
pub(crate) struct Pace {
    worker: Rc<Worker>,
    tokens: Tokens,
    queue: VecDeque<Bytes>,
    queued: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Until the next step.
    timer: Option<Timer>,
}

/// Bytes that may go; as many as a second's at the most.
#[derive(Debug)]
struct Tokens {
    per_second: f64,
    left: f64,
    filled: Instant,
}

impl Tokens {
    fn new(per_second: f64, now: Instant) -> Self {
        Self { per_second, left: per_second * STEP.as_secs_f64(), filled: now }
    }

    /// Takes up to so many.
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let filled = now.saturating_duration_since(self.filled).as_secs_f64() * self.per_second;
        self.left = (self.left + filled).min(self.per_second);
        self.filled = now;
        let taken = wanted.min(self.left as usize);
        self.left -= taken as f64;
        taken
    }
}

impl Pace {
    /// At most `kbps` KiB a second.
    pub(super) fn new(kbps: u64, worker: &Rc<Worker>) -> Self {
        Self {
            worker: worker.clone(),
            tokens: Tokens::new(kbps as f64 * 1024.0, Instant::now()),
            queue: VecDeque::new(),
            queued: 0,
            trailers: None,
            ended: false,
            timer: None,
        }
    }

    pub(super) fn poll(
        &mut self,
        source: &mut Source,
        stream: &mut ActiveStream,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        while !self.ended && self.queued < BUFFER_BYTES {
            let Poll::Ready(frame) = source.poll(stream, cx) else { break };
            match frame {
                None => self.ended = true,
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.queued += data.len();
                        self.queue.push_back(data);
                        self.ended = source.is_end_stream();
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.ended = true;
                    }
                },
            }
            if self.ended {
                // From here on the time is ours and not the upstream's.
                stream.end_of_response();
            }
        }
        if self.queued == 0 {
            return match self.ended {
                true => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
                false => Poll::Pending,
            };
        }
        loop {
            if let Some(timer) = &mut self.timer {
                if !timer.poll(cx) {
                    return Poll::Pending;
                }
                self.timer = None;
            }
            let allowed = self.tokens.take(self.queued, Instant::now());
            // What may go now is one part here, so that its size is the step's.
            let part = self.next(allowed);
            if self.queued > 0 {
                self.timer = Some(self.worker.timers.start(Instant::now() + STEP));
            }
            if !part.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
        }
    }

    /// Takes so many bytes off the queue.
    fn next(&mut self, bytes: usize) -> Bytes {
        self.queued -= bytes;
        match self.queue.front_mut() {
            Some(front) if front.len() > bytes => front.split_to(bytes),
            _ => {
                let mut part = Vec::with_capacity(bytes);
                while part.len() < bytes
                    && let Some(mut front) = self.queue.pop_front()
                {
                    let rest = front.split_off(front.len().min(bytes - part.len()));
                    part.extend_from_slice(&front);
                    if !rest.is_empty() {
                        self.queue.push_front(rest);
                    }
                }
                part.into()
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended && self.queued == 0 && self.trailers.is_none()
    }

    /// Bytes that are here and did not go yet.
    pub(super) fn queued(&self) -> u64 {
        self.queued as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_with_time_and_do_not_pile_up() {
        let start = Instant::now();
        let mut tokens = Tokens::new(1000.0, start);
        let mut take = |wanted, ms| tokens.take(wanted, start + Duration::from_millis(ms));
        assert_eq!([take(100, 0), take(100, 0), take(20, 10), take(100, 20)], [50, 0, 10, 10]);
        assert_eq!([take(5000, 60_000), take(1, 60_000)], [1000, 0]);
    }
}
