//! Requests that go on while something else happens.

use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::client::RawClient;
use crate::wait;

/// Keep-alive clients that send one request after the other until they are stopped. Anything but an answer 200 on a connection
/// that stays open ends the client that met it.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    bodies: Arc<Mutex<BTreeMap<String, usize>>>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Starts `clients` that ask `addr` for `/` of `host`.
    pub fn start(addr: SocketAddr, host: &str, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let bodies = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let clients = (0..clients).map(|_| {
            let (stop, answered, bodies) = (stop.clone(), answered.clone(), bodies.clone());
            let host = host.to_owned();
            thread::spawn(move || {
                let mut client = RawClient::connect(addr).map_err(|error| format!("connect: {error}"))?;
                while !stop.load(Ordering::Acquire) {
                    let number = answered.fetch_add(1, Ordering::AcqRel);
                    let response = client
                        .get(&host, "/")
                        .map_err(|error| format!("request {number}, connection: {error}"))?;
                    if response.status != 200 || response.headers.lists("connection", "close") {
                        return Err(format!("request {number}: {response:?}, {}", response.text()));
                    }
                    *bodies.lock().unwrap().entry(response.text()).or_default() += 1;
                }
                Ok(())
            })
        });
        Load { clients: clients.collect(), stop, answered, bodies }
    }

    /// Waits until so many more requests were sent.
    #[track_caller]
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
    /// When a request failed or a connection was closed.
    #[track_caller]
    pub fn finish(self) -> usize {
        self.stop.store(true, Ordering::Release);
        let results = self.clients.into_iter().map(|client| client.join().unwrap());
        let failures: Vec<String> = results.filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{failures:#?}");
        self.answered.load(Ordering::Acquire)
    }
}
