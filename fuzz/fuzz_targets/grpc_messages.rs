//! Bodies of gRPC calls, whose messages `grpc_stats` counts. The first byte says whether it is a response.

use outrigger_proxy::fuzzing::grpc_messages;

use crate::input::{choose, cuts};

/// However the bytes are cut there are as many messages.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((of_response, body)) = choose(&[false, true], bytes) else { return };
    let [whole, parts, single] = cuts(body).map(|pieces| grpc_messages(&pieces, of_response));
    assert_eq!((whole, whole), (parts, single));
    if !of_response {
        assert_eq!(whole, count(body));
    }
}

/// The same, plainly.
fn count(mut body: &[u8]) -> u64 {
    let mut messages = 0;
    while !body.is_empty() {
        messages += 1;
        let Some(prefix) = body.get(1..5) else { break };
        let length = prefix.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        body = body.get(5 + length..).unwrap_or_default();
    }
    messages
}
