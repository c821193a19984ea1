//! The parsers of filters, for `crate::fuzzing`.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;

use super::header_mutation::{self, QueryMutation};
use super::{grpc_stats, grpc_web};

pub(crate) fn change_query<B>(mutations: &[QueryMutation], request: &mut Request<B>) {
    header_mutation::change_query(mutations, request);
}

/// The number of messages that begin in these pieces.
pub fn grpc_messages(pieces: &[&[u8]], of_response: bool) -> u64 {
    let mut messages = grpc_stats::Messages::in_body(of_response);
    pieces.iter().map(|piece| messages.begin_in(&Bytes::copy_from_slice(piece))).sum()
}

/// A request's body decoded; `None`: it is refused.
pub fn grpc_web_request(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut decode = grpc_web::Decode::default();
    let mut decoded = Vec::new();
    for piece in pieces {
        decoded.extend_from_slice(&decode.push(piece, false)?);
    }
    decoded.extend_from_slice(&decode.push(&[], true)?);
    Some(decoded)
}

/// A response's body and trailers as text.
pub fn grpc_web_response(pieces: &[&[u8]], trailers: &HeaderMap) -> Vec<u8> {
    let mut encode = grpc_web::Encode::new(true, None);
    let data = pieces.iter().map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    let frames = data.chain([Frame::trailers(trailers.clone())]);
    let encoded = frames.filter_map(|frame| encode.push(frame)?.into_data().ok());
    encoded.flatten().collect()
}
