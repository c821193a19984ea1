//! What comes over an HTTP/1 connection: its requests and their bodies, beside another reader's opinion.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;

use http::header::{CONNECTION, UPGRADE};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use outrigger_proxy::fuzzing::{Stop, http1_messages};

use crate::input::cuts;

/// However the bytes are cut they mean the same; and a reader that takes more than ours reads the same messages as long as ours reads any.
pub(crate) fn fuzz(bytes: &[u8]) {
    let [whole, parts, single] = cuts(bytes).map(|pieces| http1_messages(&pieces));
    assert_eq!((&whole, &whole), (&parts, &single));
    let other = other(bytes);
    let both = other.requests.len().min(whole.whole.len());
    for (ours, theirs) in whole.whole.iter().zip(&other.requests) {
        assert_eq!((&ours.0, &ours.1), (&theirs.0, &theirs.1), "{whole:?} {other:?}");
        if let Some(bytes) = theirs.2 {
            assert_eq!(ours.2, bytes, "{whole:?} {other:?}");
        }
    }
    // Ours ends sooner where it refuses; never because it has lost its place.
    if other.read_to_its_end && whole.stop == Stop::Bytes {
        assert_eq!(other.requests.len(), both, "{whole:?} {other:?}");
        assert_eq!(whole.whole.len(), both, "{whole:?} {other:?}");
    }
}

#[derive(Debug)]
struct Other {
    /// Method, target, and the bytes of the body, if it could be read.
    requests: Vec<(String, String, Option<usize>)>,
    /// Each message was whole, and none asked for the connection's end.
    read_to_its_end: bool,
}

/// What hyper reads, each request to its end and answered.
fn other(bytes: &[u8]) -> Other {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    let requests = RefCell::new(Vec::new());
    let stays = Cell::new(true);
    let service = service_fn(|request: Request<Incoming>| {
        if ends_the_connection(&request) {
            stays.set(false);
        }
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        let (requests, stays) = (&requests, &stays);
        async move {
            let body = request.into_body().collect().await.ok().map(|body| body.to_bytes().len());
            stays.set(stays.get() && body.is_some());
            requests.borrow_mut().push((method, target, body));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
    let connection = http1::Builder::new().serve_connection(io, service);
    let outcome = RUNTIME.with(|runtime| runtime.block_on(connection));
    let read_to_its_end = outcome.is_ok() && stays.get();
    Other { requests: requests.into_inner(), read_to_its_end }
}

fn ends_the_connection<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() != Version::HTTP_11
        || request.method() == Method::CONNECT
        || headers.contains_key(CONNECTION)
        || headers.contains_key(UPGRADE)
}
