//! A fake DNS server over UDP: answers what the test says, and can go silent. Written against RFC 1035 by hand, so that it
//! shares no mistake with the resolver under test.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::addr::pod_ip;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const NO_SUCH_NAME: u8 = 3;
/// A question about the root: a header, an empty name, a type and a class.
const SHORTEST_QUERY: usize = 17;

/// A running fake DNS server.
#[derive(Debug)]
pub struct FakeDns {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Absolute names in lower case, without the final dot.
    names: BTreeMap<String, Vec<IpAddr>>,
    asked: Vec<String>,
    is_silent: bool,
    is_over: bool,
}

impl Default for FakeDns {
    fn default() -> Self {
        Self::start()
    }
}

impl FakeDns {
    /// Starts one on an address of its own; it knows no names.
    pub fn start() -> Self {
        Self::start_at((pod_ip(), 0).into())
    }

    /// The same on a given address.
    pub fn start_at(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).expect("bind an address");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let addr = socket.local_addr().expect("address of a bound socket");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let thread = thread::spawn(move || serve(&socket, &shared));
        FakeDns { addr, state, thread: Some(thread) }
    }

    /// Where it answers.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a name, written in full without the final dot, stands for from now on.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        lock(&self.state).names.insert(name.to_ascii_lowercase(), addresses.to_vec());
    }

    /// Every name that it knows from now on.
    pub fn replace(&self, names: BTreeMap<String, Vec<IpAddr>>) {
        lock(&self.state).names = names;
    }

    /// Whether it takes questions without answering them.
    pub fn silent(&self, is_silent: bool) {
        lock(&self.state).is_silent = is_silent;
    }

    /// The names that were asked for so far, in their order, without repetitions.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        lock(&self.state).is_over = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(socket: &UdpSocket, state: &Mutex<State>) {
    let mut buffer = [0; 1500];
    loop {
        let received = socket.recv_from(&mut buffer);
        let mut state = lock(state);
        if state.is_over {
            return;
        }
        if let Ok((length, peer)) = received
            && let Some(answer) = state.answer(&buffer[..length])
        {
            // Whoever asked may have gone.
            let _ = socket.send_to(&answer, peer);
        }
    }
}

impl State {
    fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = question_name(query)?;
        if self.asked.last() != Some(&name) {
            self.asked.push(name.clone());
        }
        if self.is_silent {
            return None;
        }
        let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        let known = self.names.get(&name);
        let records: Vec<Vec<u8>> = known
            .into_iter()
            .flatten()
            .filter_map(|ip| match (ip, kind) {
                (IpAddr::V4(ip), TYPE_A) => Some(ip.octets().to_vec()),
                (IpAddr::V6(ip), TYPE_AAAA) => Some(ip.octets().to_vec()),
                _ => None,
            })
            .collect();
        let mut answer = query[..2].to_vec();
        // A response to a standard query, recursion desired and available.
        answer.extend([0x81, 0x80 | if known.is_some() { 0 } else { NO_SUCH_NAME }]);
        answer.extend([0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        answer.extend(&query[12..end + 4]);
        for data in records {
            // The name of the question, its type and class, a TTL of an hour.
            answer.extend([0xc0, 12]);
            answer.extend(&query[end..end + 4]);
            answer.extend(3600_u32.to_be_bytes());
            answer.extend((data.len() as u16).to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

/// The name of the first question and where it ends.
fn question_name(query: &[u8]) -> Option<(String, usize)> {
    if query.len() < SHORTEST_QUERY {
        return None;
    }
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at)).filter(|_| at + 4 <= query.len());
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
