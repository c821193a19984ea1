//! An HTTP/1 upstream: one thread accepts, one thread serves each connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Record, Reply, lock, recorded};
use crate::addr::pod_ip;
use crate::message::{Request, Response, parse_head};
use crate::wire::{Framing, WireReader};

/// A listening HTTP/1.1 upstream. It answers `200 ok` until it is told otherwise.
pub struct Upstream {
    addr: SocketAddr,
    record: Arc<Record>,
    shared: Arc<Shared>,
}

struct Shared {
    stop: AtomicBool,
    /// Requests after which a connection is closed; 0 is never.
    close_after: AtomicUsize,
    /// The open connections, so that they can be closed from outside.
    open: Mutex<HashMap<usize, Arc<TcpStream>>>,
}

recorded!(Upstream);

impl Default for Upstream {
    fn default() -> Self {
        Self::start()
    }
}

impl Upstream {
    /// Starts one on an address of its own.
    pub fn start() -> Self {
        Self::start_at((IpAddr::from(pod_ip()), 0).into())
    }

    /// Starts one at `addr`; port 0 lets the kernel choose.
    pub fn start_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("bind a loopback address");
        let addr = listener.local_addr().expect("address of a bound socket");
        let record = Record::new();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            close_after: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let upstream = Upstream { addr, record: record.clone(), shared: shared.clone() };
        thread::spawn(move || accept(&listener, &record, &shared));
        upstream
    }

    /// Closes each connection after `requests` answers; 0 keeps it open.
    pub fn close_after(&self, requests: usize) {
        self.shared.close_after.store(requests, Ordering::Release);
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Closes all open connections, as a restarting process does.
    pub fn close_connections(&self) {
        for stream in lock(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
        self.close_connections();
    }
}

fn accept(listener: &TcpListener, record: &Arc<Record>, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = record.connection();
        let stream = Arc::new(stream);
        lock(&shared.open).insert(number, stream.clone());
        let (record, shared) = (record.clone(), shared.clone());
        thread::spawn(move || {
            let end = serve(number, &stream, &record, &shared);
            lock(&shared.open).remove(&number);
            if matches!(end, Ok(End::Reset)) {
                // Closing with a linger time of zero sends RST instead of FIN.
                let _ = rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO));
            }
        });
    }
}

enum End {
    Close,
    Reset,
}

fn serve(number: usize, stream: &TcpStream, record: &Record, shared: &Shared) -> io::Result<End> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let mut reader = WireReader::new();
    let mut answered = 0;
    while let Some(head) = reader.head(&mut &*stream)? {
        let parsed = parse_head(&head).map_err(io::Error::other)?;
        let framing = Framing::of(&parsed.headers, Framing::Length(0));
        let (body, trailers) = reader.body(&mut &*stream, framing)?;
        let [method, target, version] = parsed.line;
        let close_asked = parsed.headers.lists("connection", "close");
        let head_only = method == "HEAD";
        let request = Request {
            connection: number,
            peer,
            head,
            method,
            target,
            version,
            headers: parsed.headers,
            body,
            trailers,
        };
        let reply = record.request(request);
        if let Some(end) = perform(reply, stream, head_only)? {
            return Ok(end);
        }
        answered += 1;
        if close_asked || answered == shared.close_after.load(Ordering::Acquire) {
            return Ok(End::Close);
        }
    }
    Ok(End::Close)
}

/// Carries out one reply; tells how the connection ends when it does.
fn perform(reply: Reply, mut stream: &TcpStream, head_only: bool) -> io::Result<Option<End>> {
    match reply {
        Reply::Respond(response) => {
            stream.write_all(&encode(&response, head_only))?;
            Ok(None)
        }
        Reply::Chunks(response, parts) => {
            stream.write_all(&encode_head(&response, Some("transfer-encoding: chunked\r\n")))?;
            for part in parts {
                stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
                stream.write_all(&part)?;
                stream.write_all(b"\r\n")?;
            }
            let trailers = response.trailers.0.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
            stream.write_all(format!("0\r\n{}\r\n", trailers.collect::<String>()).as_bytes())?;
            Ok(None)
        }
        Reply::Raw(bytes) => {
            stream.write_all(&bytes)?;
            Ok(None)
        }
        Reply::RespondThenClose(response) => {
            stream.write_all(&encode(&response, head_only))?;
            Ok(Some(End::Close))
        }
        Reply::Close => Ok(Some(End::Close)),
        Reply::Reset => Ok(Some(End::Reset)),
        Reply::ResetAfterHead(response) => {
            let whole = encode(&response, false);
            stream.write_all(&whole[..whole.len() - response.body.len() / 2])?;
            // A reset discards what the peer's kernel has not handed over yet, so the peer must have read it: it
            // then closes or is stuck, and the wait for an acknowledged send queue is all that can be known here.
            drain_send_queue(stream);
            Ok(Some(End::Reset))
        }
        Reply::Stall => {
            let mut sink = [0; 4096];
            while stream.read(&mut sink)? > 0 {}
            Ok(Some(End::Close))
        }
        Reply::Hold(gate, then) => {
            gate.wait();
            perform(*then, stream, head_only)
        }
    }
}

/// Gives the peer the time to read what was sent before a reset throws it away.
fn drain_send_queue(stream: &TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let _ = (&mut &*stream).read(&mut [0; 1]);
}

fn encode(response: &Response, head_only: bool) -> Vec<u8> {
    let framed = response.headers.get("content-length").is_some()
        || response.status == 204
        || response.status == 304
        || response.status < 200;
    let length = format!("content-length: {}\r\n", response.body.len());
    let mut bytes = encode_head(response, (!framed).then_some(length.as_str()));
    if !head_only {
        bytes.extend(&response.body);
    }
    bytes
}

fn encode_head(response: &Response, framing: Option<&str>) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(response.status).ok().and_then(|code| code.canonical_reason());
    let mut head = format!("{} {} {}\r\n", response.version, response.status, reason.unwrap_or("Unknown"));
    for (name, value) in &response.headers.0 {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(framing.unwrap_or_default());
    head.push_str("\r\n");
    head.into_bytes()
}
