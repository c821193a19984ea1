//! Load by clients whose connections must not end.

use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Http2Client, RawClient};
use crate::wait;

/// Keep-alive clients that send one request after the other until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    bodies: Arc<Mutex<BTreeMap<String, usize>>>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Starts clients that ask `addr` for `host`. Each goes on by the same connection; whatever is no 200, and whatever ends the
    /// connection, ends the client.
    pub fn start(addr: SocketAddr, host: &str, clients: usize) -> Self {
        Self::of(clients, Duration::ZERO, &|| http1(addr, host.to_owned()))
    }

    /// The same, of clients that pause between their requests, as long as the pause is not over.
    pub fn paced(addr: SocketAddr, host: &str, clients: u32, pause: Duration) -> Self {
        Self::of(clients as usize, pause, &|| http1(addr, host.to_owned()))
    }

    /// The same over HTTP/2.
    pub fn paced_http2(addr: SocketAddr, host: &str, clients: u32, pause: Duration) -> Self {
        Self::of(clients as usize, pause, &|| http2(addr, host.to_owned()))
    }

    fn of(clients: usize, pause: Duration, exchange: &dyn Fn() -> Exchange) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let bodies = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let clients = (0..clients).map(|_| {
            let (stop, answered, bodies) = (stop.clone(), answered.clone(), bodies.clone());
            let mut exchange = exchange();
            thread::spawn(move || {
                let mut next = Instant::now();
                while !stop.load(Ordering::Acquire) {
                    let number = answered.fetch_add(1, Ordering::AcqRel);
                    let body = exchange().map_err(|error| format!("request {number}: {error}"))?;
                    *bodies.lock().unwrap().entry(body).or_default() += 1;
                    next += pause;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                Ok(())
            })
        });
        Load { clients: clients.collect(), stop, answered, bodies }
    }

    /// Waits until so many more requests were sent.
    pub fn more(&self, requests: usize) {
        let goal = self.answered.load(Ordering::Acquire) + requests;
        wait::until("the load goes on", || {
            self.answered.load(Ordering::Acquire) >= goal || self.clients.iter().any(JoinHandle::is_finished)
        });
    }

    /// How often each body was answered since this was asked last.
    pub fn take_bodies(&self) -> BTreeMap<String, usize> {
        mem::take(&mut *self.bodies.lock().unwrap())
    }

    /// Stops the clients and fails with what they met.
    ///
    /// # Panics
    /// When a client has ended before.
    #[track_caller]
    pub fn finish(self) -> usize {
        self.stop.store(true, Ordering::Release);
        let results = self.clients.into_iter().map(|client| client.join().unwrap());
        let failures: Vec<String> = results.filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{failures:#?}");
        self.answered.load(Ordering::Acquire)
    }
}

/// One request and its answer's body, on a connection that is opened first.
type Exchange = Box<dyn FnMut() -> Result<String, String> + Send>;

fn http1(addr: SocketAddr, host: String) -> Exchange {
    let mut connected = None;
    Box::new(move || {
        if connected.is_none() {
            connected = Some(RawClient::connect(addr).map_err(|error| format!("connect: {error}"))?);
        }
        let client = connected.as_mut().expect("it was connected");
        let response = client.get(&host, "/").map_err(|error| format!("connection: {error}"))?;
        match response.status == 200 && !response.headers.lists("connection", "close") {
            true => Ok(response.text()),
            false => Err(format!("{response:?}, {}", response.text())),
        }
    })
}

fn http2(addr: SocketAddr, host: String) -> Exchange {
    let mut connected = None;
    Box::new(move || {
        if connected.is_none() {
            connected = Some(Http2Client::connect(addr).map_err(|error| format!("connect: {error}"))?);
        }
        let client = connected.as_ref().expect("it was connected");
        let response = client.get(&host, "/").map_err(|error| format!("connection: {error:#}"))?;
        match response.status == 200 {
            true => Ok(response.text()),
            false => Err(format!("{response:?}, {}", response.text())),
        }
    })
}
