//! Looking at the first bytes of a connection until they tell what they are. The bytes stay in the socket.

use std::io;

use crate::net::{Buffer, BufferSize, RawStream};

/// Why a connection could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The peer closed before it had sent anything.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer ended its side before it had sent enough.
    #[error("the peer ended its side too early")]
    Ended,
    /// The limit was reached and nothing is known yet.
    #[error("more bytes than are looked at")]
    TooLong,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Waits until `parse` knows what the first bytes are; it is given all that have arrived, at most `limit` bytes (no more than
/// [`BufferSize::Medium`]), and again whenever there are more. Has no timeout of its own; given up, the socket must be rearmed
/// ([`RawStream::rearm`]) before it is read.
///
/// # Errors
/// See [`InspectError`].
pub(super) async fn inspect<T>(
    raw: &RawStream,
    limit: usize,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, InspectError> {
    // A silent client holds no buffer.
    raw.readable().await?;
    let mut buffer = Buffer::take(BufferSize::Small);
    let mut seen = 0;
    loop {
        let room = buffer.len().min(limit);
        let n = raw.peek(&mut buffer[..room], seen).await?;
        if let Some(known) = parse(&buffer[..n]) {
            return Ok(known);
        }
        if n == limit {
            return Err(InspectError::TooLong);
        }
        if n == room {
            buffer = Buffer::take(BufferSize::Medium);
        } else if n == 0 {
            return Err(InspectError::Closed);
        } else if n <= seen {
            return Err(InspectError::Ended);
        }
        seen = n;
    }
}
