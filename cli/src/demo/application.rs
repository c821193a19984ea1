//! A workload's application: answers with its name, or with 500 while it is told to be broken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::objects::{APP_PORT, Pod};

/// A running application.
#[derive(Debug)]
pub(super) struct Application {
    broken: Arc<AtomicBool>,
}

impl Application {
    /// Listens on the pod's address.
    pub(super) async fn start(pod: Pod) -> anyhow::Result<Self> {
        let address = SocketAddr::from((pod.address, APP_PORT));
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let broken = Arc::new(AtomicBool::new(false));
        let state = broken.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = state.clone();
                let _ = socket.set_nodelay(true);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                    TokioIo::new(socket),
                    service_fn(move |_: Request<hyper::body::Incoming>| {
                        std::future::ready(Ok::<_, Infallible>(answer(pod, state.load(Ordering::Relaxed))))
                    }),
                ));
            }
        });
        Ok(Self { broken })
    }

    /// From now on it answers 500, or 200 again.
    pub(super) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }
}

fn answer(pod: Pod, broken: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{} {}\n", pod.name, pod.version))));
    if broken {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}
