//! A TCP upstream below HTTP.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::addr::pod_ip;

/// What the upstream does with each connection.
#[derive(Clone, Debug)]
pub enum TcpBehaviour {
    /// Sends back what it gets, half-close included.
    Echo,
    /// Speaks first, then echoes.
    Greet(Vec<u8>),
    /// Resets the connection once bytes have arrived.
    Reset,
    /// Accepts and never sends a byte.
    Stall,
}

/// A listening TCP upstream.
#[derive(Debug)]
pub struct TcpUpstream {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl TcpUpstream {
    /// Starts one on an address of its own.
    pub fn start(behaviour: TcpBehaviour) -> Self {
        Self::start_at((IpAddr::from(pod_ip()), 0).into(), behaviour)
    }

    /// Starts one at `addr`; port 0 lets the kernel choose.
    pub fn start_at(addr: SocketAddr, behaviour: TcpBehaviour) -> Self {
        let listener = TcpListener::bind(addr).expect("bind a loopback address");
        let addr = listener.local_addr().expect("address of a bound socket");
        let (connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (connections.clone(), stop.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::AcqRel);
                let behaviour = behaviour.clone();
                thread::spawn(move || serve(stream, behaviour));
            }
        });
        TcpUpstream { addr, connections, stop }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

impl Drop for TcpUpstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut stream: TcpStream, behaviour: TcpBehaviour) {
    match &behaviour {
        TcpBehaviour::Reset => {
            let _ = stream.read(&mut [0; 1024]);
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            return;
        }
        TcpBehaviour::Greet(greeting) => {
            if stream.write_all(greeting).is_err() {
                return;
            }
        }
        TcpBehaviour::Echo | TcpBehaviour::Stall => {}
    }
    let mute = matches!(behaviour, TcpBehaviour::Stall);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            let _ = stream.shutdown(Shutdown::Write);
            return;
        }
        if !mute && stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
