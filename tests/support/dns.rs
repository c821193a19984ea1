//! A fake DNS server over UDP and TCP: answers what the test says, fails, and can go silent. Written against RFC 1035 by hand, so that it
//! shares no mistake with the resolver under test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::addr::pod_ip;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
/// Time to live of a record, seconds, unless the test says otherwise.
const TTL: u32 = 3600;
/// A question about the root: a header, an empty name, a type and a class.
const SHORTEST_QUERY: usize = 17;

/// A running fake DNS server.
#[derive(Debug)]
pub struct FakeDns {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    listener: Arc<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Absolute names in lower case, without the final dot.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Names whose records live another time than the usual one, in seconds.
    ttls: BTreeMap<String, u32>,
    /// Names of which the server cannot tell.
    failing: BTreeSet<String>,
    asked: Vec<String>,
    /// Questions so far, by name.
    questions: BTreeMap<String, usize>,
    over_tcp: usize,
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
        let listener = Arc::new(TcpListener::bind(addr).expect("bind the same address"));
        let state = Arc::new(Mutex::new(State::default()));
        let (udp, tcp, accepting) = (state.clone(), state.clone(), listener.clone());
        let threads = vec![
            thread::spawn(move || serve(&socket, &udp)),
            thread::spawn(move || serve_tcp(&accepting, &tcp)),
        ];
        FakeDns { addr, state, listener, threads }
    }

    /// Where it answers.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a name, written in full without the final dot, stands for from now on.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        let mut state = lock(&self.state);
        state.failing.remove(name);
        state.names.insert(name.to_ascii_lowercase(), addresses.to_vec());
    }

    /// A name that nobody has from now on.
    pub fn unset(&self, name: &str) {
        let mut state = lock(&self.state);
        state.failing.remove(name);
        state.names.remove(name);
    }

    /// A name of which the server cannot tell from now on (SERVFAIL).
    pub fn fail(&self, name: &str) {
        lock(&self.state).failing.insert(name.to_owned());
    }

    /// How long the records of a name live, in seconds.
    pub fn set_ttl(&self, name: &str, seconds: u32) {
        lock(&self.state).ttls.insert(name.to_owned(), seconds);
    }

    /// How many questions there were about a name.
    pub fn questions(&self, name: &str) -> usize {
        lock(&self.state).questions.get(name).copied().unwrap_or_default()
    }

    /// How many questions came over TCP.
    pub fn over_tcp(&self) -> usize {
        lock(&self.state).over_tcp
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
        // Wakes the one that accepts, also when this thread is in another network namespace.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
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

/// One question a connection, which is all that a resolver of few names asks.
fn serve_tcp(listener: &TcpListener, state: &Mutex<State>) {
    for stream in listener.incoming() {
        if lock(state).is_over {
            return;
        }
        // Whoever asked may have gone.
        let _ = stream.and_then(|stream| answer_over_tcp(stream, state));
    }
}

fn answer_over_tcp(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    lock(state).over_tcp += 1;
    let answer = lock(state).answer(&query);
    if let Some(answer) = answer {
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

impl State {
    fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = question_name(query)?;
        if self.asked.last() != Some(&name) {
            self.asked.push(name.clone());
        }
        *self.questions.entry(name.clone()).or_default() += 1;
        if self.is_silent {
            return None;
        }
        let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        let is_failing = self.failing.contains(&name);
        let known = self.names.get(&name).filter(|_| !is_failing);
        let code = match known {
            Some(_) => 0,
            None if is_failing => SERVER_FAILURE,
            None => NO_SUCH_NAME,
        };
        let ttl = self.ttls.get(&name).copied().unwrap_or(TTL);
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
        answer.extend([0x81, 0x80 | code]);
        answer.extend([0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        answer.extend(&query[12..end + 4]);
        for data in records {
            // The name of the question, its type and class.
            answer.extend([0xc0, 12]);
            answer.extend(&query[end..end + 4]);
            answer.extend(ttl.to_be_bytes());
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
