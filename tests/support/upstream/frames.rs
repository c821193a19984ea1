//! An HTTP/2 upstream that answers each request with the frames that a test wants, right or wrong.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::lock;
use crate::addr::pod_ip;
use crate::client::frames::{Frame, PREFACE, flag, kind};

/// A listening h2c upstream. It answers `200` without a body until it is told otherwise.
pub struct FrameUpstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What goes out for one request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// In one write.
    pub frames: Vec<Frame>,
    /// The connection is closed after them.
    pub closes: bool,
}

impl From<Vec<Frame>> for Answer {
    fn from(frames: Vec<Frame>) -> Self {
        Answer { frames, closes: false }
    }
}

/// Decides the answer by the request's number since the last look, from 1, and by its stream.
type Script = Arc<dyn Fn(usize, u32) -> Answer + Send + Sync>;

struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    script: Mutex<Script>,
    /// The connection of each request.
    requests: Mutex<Vec<usize>>,
}

impl fmt::Debug for FrameUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameUpstream").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Default for FrameUpstream {
    fn default() -> Self {
        Self::start()
    }
}

impl FrameUpstream {
    /// Starts one on an address of its own.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start() -> Self {
        let listener = TcpListener::bind((IpAddr::from(pod_ip()), 0)).expect("bind a loopback address");
        let addr = listener.local_addr().expect("address of a bound socket");
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            script: Mutex::new(Arc::new(|_, stream| vec![Frame::head(stream, 200, &[], true)].into())),
            requests: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = accepting.connections.fetch_add(1, Ordering::AcqRel);
                let shared = accepting.clone();
                // It ends with its connection.
                thread::spawn(move || serve(number, stream, &shared));
            }
        });
        FrameUpstream { addr, shared }
    }

    /// Answers each request from now on by `script`.
    pub fn answer_with<A: Into<Answer>>(&self, script: impl Fn(usize, u32) -> A + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(move |number, stream| script(number, stream).into());
    }

    /// The connection of each request that arrived since the last call; the first one's is 0.
    pub fn take_requests(&self) -> Vec<usize> {
        let connections = std::mem::take(&mut *lock(&self.shared.requests));
        let first = connections.first().copied().unwrap_or_default();
        connections.into_iter().map(|connection| connection - first).collect()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for FrameUpstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(number: usize, mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    stream.write_all(&Frame::new(kind::SETTINGS, 0, 0, []).encode())?;
    let mut newest = 0;
    loop {
        let frame = Frame::read(&mut stream)?;
        if matches!(frame.kind, kind::SETTINGS | kind::PING) && frame.flags & flag::ACK == 0 {
            let payload = if frame.kind == kind::PING { frame.payload } else { Vec::new() };
            stream.write_all(&Frame::new(frame.kind, flag::ACK, 0, payload).encode())?;
        } else if frame.kind == kind::HEADERS && frame.stream > newest {
            newest = frame.stream;
            let script = lock(&shared.script).clone();
            let count = {
                let mut requests = lock(&shared.requests);
                requests.push(number);
                requests.len()
            };
            let answer = script(count, frame.stream);
            stream.write_all(&answer.frames.iter().flat_map(Frame::encode).collect::<Vec<u8>>())?;
            if answer.closes {
                return Ok(());
            }
        }
    }
}
