//! What comes over an HTTP/1 connection: where its messages begin, and which heads are refused, beside the engine's own opinion.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;

use http::header::{CONNECTION, UPGRADE};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use outrigger_proxy::fuzzing::http1_framing;

use crate::input::cuts;

/// However the bytes are cut they mean the same, and the engine counts the same messages: it never serves one that was not looked at.
pub(crate) fn fuzz(bytes: &[u8]) {
    let [whole, parts, single] = cuts(bytes).map(|pieces| http1_framing(&pieces));
    assert_eq!((whole, whole), (parts, single));
    let engine = engine(bytes);
    match whole.refused {
        // Nothing after it is served: it is answered by its number, and the connection ends.
        Some((refused, _)) => assert_eq!(refused, whole.heads),
        None => {
            assert!(engine.requests <= whole.heads, "{whole:?} {engine:?}");
            if engine.read_to_its_end {
                assert_eq!(engine.requests, whole.heads, "{engine:?}");
            }
        }
    }
}

#[derive(Debug)]
struct Engine {
    requests: u64,
    /// Each message was whole, and none asked for the connection's end.
    read_to_its_end: bool,
}

/// What the engine serves of these bytes, each request read to its end and answered.
fn engine(bytes: &[u8]) -> Engine {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    let requests = Cell::new(0);
    let stays = Cell::new(true);
    let bodies_are_whole = RefCell::new(true);
    let service = service_fn(|request: Request<Incoming>| {
        requests.set(requests.get() + 1);
        if ends_the_connection(&request) {
            stays.set(false);
        }
        let bodies_are_whole = &bodies_are_whole;
        async move {
            if request.into_body().collect().await.is_err() {
                *bodies_are_whole.borrow_mut() = false;
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
    let connection = http1::Builder::new().serve_connection(io, service);
    let outcome = RUNTIME.with(|runtime| runtime.block_on(connection));
    let read_to_its_end = outcome.is_ok() && stays.get() && *bodies_are_whole.borrow();
    Engine { requests: requests.get(), read_to_its_end }
}

fn ends_the_connection<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() != Version::HTTP_11
        || request.method() == Method::CONNECT
        || headers.contains_key(CONNECTION)
        || headers.contains_key(UPGRADE)
}
