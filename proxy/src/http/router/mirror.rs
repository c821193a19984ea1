//! `request_mirror_policies`: a copy of the request for another cluster, whose answer nobody reads.
//!
//! The copy's body follows the original's as it is read. A mirror that is too slow for it is cut off: it never holds the request up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use super::attempt::outgoing;
use crate::cluster::{Cluster, Resource, lb};
use crate::http::active_stream::ActiveStream;
use crate::http::body::{BodyError, RequestBody};
use crate::http::codec::Version;
use crate::http::connection_manager::view;
use crate::http::pool::Reuse;
use crate::route::{ClusterSource, Mirror, RouteAction};
use crate::worker::Worker;

/// How far a mirror may stay behind: Envoy's `per_connection_buffer_limit_bytes`.
const BUFFER_BYTES: usize = 1 << 20;

/// A body that is read by the upstream and copied for mirrors.
#[derive(Debug)]
pub(crate) struct Copied {
    source: RequestBody,
    copies: Vec<Rc<RefCell<Queue>>>,
}

/// The copy of a body.
#[derive(Debug)]
pub(crate) struct CopiedBody {
    queue: Rc<RefCell<Queue>>,
    length: Option<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    ended: bool,
    /// The mirror was too slow, or the original has failed.
    broken: bool,
    waker: Option<Waker>,
}

/// Sends the copies on their way, and lets the request's body be copied for them.
pub(super) fn start(stream: &ActiveStream, action: &RouteAction, request: &mut Request<RequestBody>) {
    let source = std::mem::replace(request.body_mut(), RequestBody::Empty);
    let mut copies = Vec::new();
    for mirror in &action.mirrors {
        if mirror.fraction_ppm.is_some_and(|ppm| fastrand::u32(..1_000_000) >= ppm) {
            continue;
        }
        let Some(cluster) = cluster_of(mirror, stream, request) else { continue };
        let body = match &source {
            RequestBody::Empty => RequestBody::Empty,
            _ => {
                let queue = Rc::new(RefCell::new(Queue::default()));
                copies.push(queue.clone());
                RequestBody::Copy(CopiedBody { queue, length: source.size_hint().exact() })
            }
        };
        let (mut head, ()) = Request::new(()).into_parts();
        head.method.clone_from(request.method());
        head.uri.clone_from(request.uri());
        head.version = request.version();
        head.headers.clone_from(request.headers());
        let mut copy = Request::from_parts(head, body);
        let Some(authority) = set_host(&mut copy, mirror) else { continue };
        let worker = stream.connection.worker.clone();
        let (version, scheme) = (stream.connection.version, stream.connection.scheme);
        let timeout = action.timeout;
        tokio::task::spawn_local(send(worker, cluster, copy, authority, version, scheme, timeout));
    }
    *request.body_mut() = match copies.is_empty() {
        true => source,
        false => RequestBody::Copied(Box::new(Copied { source, copies })),
    };
}

/// The mirror's cluster, which the request may name as it goes upstream; `None`: there is none.
fn cluster_of(
    mirror: &Mirror,
    stream: &ActiveStream,
    request: &Request<RequestBody>,
) -> Option<Arc<Cluster>> {
    match &mirror.cluster {
        ClusterSource::Named(cluster) => cluster.get(),
        ClusterSource::Header(header) => {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            header.named(&view(request, host, stream.connection.scheme))?.cell?.get()
        }
    }
}

/// The mirror's host: what the policy says, else the request's own with `-shadow` before its port.
fn set_host(request: &mut Request<RequestBody>, mirror: &Mirror) -> Option<Authority> {
    let old = request.headers().get(HOST)?;
    let host = match &mirror.host {
        Some(host) => host.clone(),
        None if mirror.host_suffix => {
            let old = old.to_str().ok()?;
            HeaderValue::from_str(&match old.split_once(':') {
                Some((name, port)) if !port.contains(':') => format!("{name}-shadow:{port}"),
                _ => format!("{old}-shadow"),
            })
            .ok()?
        }
        None => old.clone(),
    };
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    request.headers_mut().insert(HOST, host);
    Some(authority)
}

async fn send(
    worker: Rc<Worker>,
    cluster: Arc<Cluster>,
    request: Request<RequestBody>,
    authority: Authority,
    downstream: Version,
    scheme: &'static str,
    timeout: Option<Duration>,
) {
    let stats = &cluster.stats;
    let Some(host) = lb::pick(&cluster, lb::Context::default()) else { return };
    let Some(_permit) = cluster.circuit_breakers.acquire(Resource::Request, false) else {
        stats.upstream_rq_pending_overflow.inc();
        return;
    };
    let exchange = async {
        let mut lease =
            worker.pools.checkout(&cluster, &host, downstream, false, Reuse::Proven).await.ok()?;
        let _sent = Sent::new(&cluster);
        let request = outgoing(request, lease.version(), &authority, scheme);
        let response = lease.send(request, None).await.ok()?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        lease.finish();
        Some(status)
    };
    let status = match timeout {
        Some(limit) => tokio::time::timeout(limit, exchange).await.ok().flatten(),
        None => exchange.await,
    };
    if let Some(status) = status {
        stats.response(status.as_u16());
    }
}

/// A copy in flight.
struct Sent<'c>(&'c Cluster);

impl<'c> Sent<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        cluster.stats.upstream_rq_total.inc();
        cluster.stats.upstream_rq_active.inc();
        Self(cluster)
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.0.stats.upstream_rq_active.dec();
    }
}

impl Copied {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.source).poll_frame(cx));
        for copy in &self.copies {
            copy.borrow_mut().push(frame.as_ref(), self.source.is_end_stream());
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        for copy in &self.copies {
            let mut queue = copy.borrow_mut();
            queue.broken |= !queue.ended;
            queue.wake();
        }
    }
}

impl Queue {
    fn push(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>, last: bool) {
        if self.broken {
            return;
        }
        match frame {
            None => self.ended = true,
            Some(Err(_)) => self.broken = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len();
                    self.frames.push_back(Frame::data(data.clone()));
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.frames.push_back(Frame::trailers(trailers.clone()));
                }
                self.ended |= last;
            }
        }
        if self.bytes > BUFFER_BYTES {
            self.broken = true;
        }
        if self.broken {
            self.frames.clear();
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Nobody reads it any more: nothing is to be kept for it.
impl Drop for CopiedBody {
    fn drop(&mut self) {
        let mut queue = self.queue.borrow_mut();
        queue.broken = true;
        queue.frames.clear();
    }
}

impl CopiedBody {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = self.queue.borrow_mut();
        if queue.broken {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        match queue.frames.pop_front() {
            Some(frame) => {
                queue.bytes -= frame.data_ref().map_or(0, Bytes::len);
                Poll::Ready(Some(Ok(frame)))
            }
            None if queue.ended => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let queue = self.queue.borrow();
        queue.ended && queue.frames.is_empty() && !queue.broken
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        // It is asked for once, before the first frame.
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
