//! A netlink socket: one request or one transaction at a time, each with its answer.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Answer, Message, answers};

/// The kernel answers while it takes the request; this is for a kernel that doesn't.
const PATIENCE: Duration = Duration::from_secs(10);
/// At least what the kernel puts into one datagram of a dump (`NLMSG_GOODSIZE` and its successors).
const LARGEST_DATAGRAM: usize = 64 << 10;
/// How often a dump may be spoilt by others' changes.
const TRIES: usize = 10;

/// Whom a socket speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subsystem {
    /// `NETLINK_NETFILTER`
    Netfilter,
    /// `NETLINK_ROUTE`
    Route,
}

/// A request that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its place in the transaction; `None`: none of them came to be judged.
    pub(super) request: Option<usize>,
    /// Why.
    pub(super) error: io::Error,
}

/// Sends these requests in one piece and waits for the verdict. The last one that can have one is marked as
/// [acknowledged](Message::acknowledged); of the others the kernel tells refusals alone, and tells them first.
///
/// # Errors
/// The first refusal.
pub(super) fn transact(subsystem: Subsystem, requests: &[Message]) -> Result<(), Refusal> {
    let fails = |error: Errno| Refusal { request: None, error: error.into() };
    let socket = open(subsystem).map_err(fails)?;
    send(&socket, requests).map_err(fails)?;
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let length = receive(&socket, &mut buffer).map_err(fails)?;
        for answer in answers(&buffer[..length]) {
            match answer {
                Answer::Verdict { error: 0, .. } => return Ok(()),
                Answer::Verdict { sequence, error } => {
                    let error = io::Error::from_raw_os_error(error);
                    return Err(Refusal { request: usize::try_from(sequence).ok(), error });
                }
                Answer::Done | Answer::Object { .. } => {}
            }
        }
    }
}

/// All that the kernel answers to this question: each object with its header. A question that is no dump is marked as
/// [acknowledged](Message::acknowledged).
///
/// # Errors
/// The question is refused (`ENOENT`: there is no such thing), or others don't stop changing what is asked for.
pub(super) fn ask(subsystem: Subsystem, question: &Message) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..TRIES {
        if let Some(objects) = ask_once(subsystem, question)? {
            return Ok(objects);
        }
    }
    Err(Errno::INTR.into())
}

/// `None`: somebody changed it meanwhile.
fn ask_once(subsystem: Subsystem, question: &Message) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = open(subsystem)?;
    send(&socket, std::slice::from_ref(question))?;
    let (mut objects, mut whole) = (Vec::new(), true);
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let length = receive(&socket, &mut buffer)?;
        for answer in answers(&buffer[..length]) {
            match answer {
                Answer::Object { body, interrupted } => {
                    whole &= !interrupted;
                    objects.push(body.to_vec());
                }
                Answer::Done | Answer::Verdict { error: 0, .. } => return Ok(whole.then_some(objects)),
                Answer::Verdict { error, .. } => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

fn open(subsystem: Subsystem) -> Result<OwnedFd, Errno> {
    let protocol = match subsystem {
        Subsystem::Netfilter => Some(netlink::NETFILTER),
        // 0, which is no number of a protocol elsewhere.
        Subsystem::Route => None,
    };
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::RAW, flags, protocol)?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, requests: &[Message]) -> Result<(), Errno> {
    let mut bytes = Vec::new();
    for (sequence, request) in (0..).zip(requests) {
        request.write(sequence, &mut bytes);
    }
    // A set of rules with many ports is larger than what a socket may send by default. Where it may not be more, sending says it.
    let _ = sockopt::set_socket_send_buffer_size_force(socket, 2 * bytes.len() + LARGEST_DATAGRAM);
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(socket, &bytes, SendFlags::empty(), &kernel).map(drop)
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // With TRUNC the length is that of the datagram, also of one that was cut off.
    let (_, length) = rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC)?;
    if length > buffer.len() { Err(Errno::MSGSIZE) } else { Ok(length) }
}
