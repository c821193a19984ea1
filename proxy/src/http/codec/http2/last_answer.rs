//! The answer to a head that does not end, in frames of our own: `h2` knows no stream before its head is whole.
//!
//! It is the last that the connection carries, for nothing behind that head could be read. So its fields need no compression: each is
//! written literally, behind a word that empties the peer's table (RFC 7541 sections 6.2.2 and 6.3).

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderMap, Response, StatusCode};

/// Types of frames, and END_STREAM, END_HEADERS (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A peer takes frames of this size (RFC 9113 section 4.2).
const FRAME: usize = 16 << 10;

/// The frames of an answer on this stream, and of the connection's end.
pub(super) fn frames(stream: u32, response: Response<Bytes>) -> BytesMut {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    let mut out = BytesMut::new();
    let block = block(parts.status, &parts.headers);
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    frame(&mut out, HEADERS, END_HEADERS | ends, stream, &block);
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(FRAME));
        let ends = if after.is_empty() { END_STREAM } else { 0 };
        frame(&mut out, DATA, ends, stream, piece);
        rest = after;
    }
    let mut end = [0; 8];
    end[..4].copy_from_slice(&stream.to_be_bytes());
    frame(&mut out, GOAWAY, 0, 0, &end);
    out
}

fn frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_slice(&[kind, flags]);
    out.put_u32(stream);
    out.put_slice(payload);
}

fn block(status: StatusCode, headers: &HeaderMap) -> BytesMut {
    let mut block = BytesMut::new();
    // The size of the table becomes zero.
    block.put_u8(0x20);
    field(&mut block, b":status", status.as_str().as_bytes());
    for (name, value) in headers {
        field(&mut block, name.as_str().as_bytes(), value.as_bytes());
    }
    block
}

fn field(block: &mut BytesMut, name: &[u8], value: &[u8]) {
    block.put_u8(0);
    for text in [name, value] {
        length(block, text.len());
        block.put_slice(text);
    }
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(block: &mut BytesMut, length: usize) {
    if length < 0x7f {
        return block.put_u8(length as u8);
    }
    block.put_u8(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        block.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn answer(body: &str) -> Response<Bytes> {
        let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        for (name, length) in [("x-short", 3), ("x-edge", 127), ("x-long", 300)] {
            headers.insert(name, HeaderValue::try_from("v".repeat(length)).unwrap());
        }
        response
    }

    /// Reads until the head of a request has come.
    async fn has_asked(client: &mut tokio::io::DuplexStream) {
        client.read_exact(&mut [0; 24]).await.unwrap();
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            client.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == HEADERS {
                return;
            }
        }
    }

    /// A client of the crate `h2` reads it.
    #[tokio::test]
    async fn a_client_reads_it() {
        for body in ["", "too slow", &"x".repeat(FRAME + 1)] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            // Settings, the acknowledgement of the client's, and the answer.
            let mut said = BytesMut::new();
            frame(&mut said, 4, 0, 0, &[]);
            frame(&mut said, 4, 1, 0, &[]);
            let (mut requests, connection) = h2::client::handshake(near).await.unwrap();
            let driven = tokio::spawn(connection);
            let request = http::Request::get("http://h/").body(()).unwrap();
            let (response, _) = requests.send_request(request, true).unwrap();
            has_asked(&mut far).await;
            said.extend_from_slice(&frames(1, answer(body)));
            far.write_all(&said).await.unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 408);
            assert_eq!(response.headers()["x-long"].len(), 300);
            assert_eq!(response.headers()["x-edge"].len(), 127);
            assert!(!response.headers().contains_key("connection"));
            let mut read = response.into_body();
            let mut told = Vec::new();
            while let Some(data) = read.data().await {
                told.extend_from_slice(&data.unwrap());
            }
            assert_eq!(told, body.as_bytes());
            drop((requests, read, far));
            let _ = driven.await.unwrap();
        }
    }
}
