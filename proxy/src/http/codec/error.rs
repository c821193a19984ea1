//! What an error of a codec means for a stream.

use std::error::Error;
use std::{fmt, io};

use crate::http::error::Failure;

/// The body of a peer's message cannot be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It is not framed as it says.
    Malformed,
    /// Its connection has ended before.
    Ended,
    Http2(h2::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the body is not framed as its head says"),
            Self::Ended => f.write_str("the connection ended in the middle of the body"),
            Self::Http2(error) => error.fmt(f),
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Http2(error) => Some(error),
            Self::Malformed | Self::Ended => None,
        }
    }
}

/// What it means that the request's body could not be read.
pub(crate) fn request_failure(error: &(dyn Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(ReadError::Malformed) = error.downcast_ref() {
            return Failure::DownstreamProtocol;
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Failure::DownstreamProtocol,
                _ => Failure::Downstream,
            };
        }
        cause = error.source();
    }
    Failure::Downstream
}

/// What it means that the body of an upstream's response could not be read.
pub(crate) fn failure(error: &ReadError) -> Failure {
    match error {
        ReadError::Malformed => Failure::Protocol,
        ReadError::Ended => Failure::ConnectionTermination,
        ReadError::Http2(error) => http2_failure(error),
    }
}

/// What an error of an HTTP/2 connection to an upstream means.
pub(super) fn http2_failure(error: &h2::Error) -> Failure {
    match error.reason() {
        _ if error.is_io() => Failure::ConnectionTermination,
        Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => Failure::RemoteRefused,
        // The connection ends before this stream.
        Some(_) if error.is_remote() && error.is_go_away() => Failure::RemoteRefused,
        Some(_) if error.is_remote() => Failure::RemoteReset,
        Some(_) => Failure::Protocol,
        None => Failure::ConnectionTermination,
    }
}

/// Why a peer has reset its HTTP/2 stream, where that is what an error comes from.
pub(super) fn http2_reason(error: &(dyn Error + 'static)) -> Option<h2::Reason> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.reason();
        }
        cause = error.source();
    }
    None
}
