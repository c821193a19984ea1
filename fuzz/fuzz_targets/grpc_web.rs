//! Bodies of gRPC-Web: base64 from the client, and to it. The first byte says whether it is a response.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use outrigger_proxy::fuzzing::{grpc_web_request, grpc_web_response};

use crate::input::{choose, cuts};

/// However the bytes are cut they mean the same; plain base64 is what it stands for, and a client can read what it gets.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((of_response, body)) = choose(&[false, true], bytes) else { return };
    if !of_response {
        let [whole, parts, single] = cuts(body).map(|pieces| grpc_web_request(&pieces));
        assert_eq!(whole, parts);
        assert_eq!(whole, single);
        if let Ok(plain) = STANDARD.decode(body) {
            assert_eq!(whole, Some(plain));
        }
        return;
    }
    let trailers = HeaderMap::new();
    let decoded = cuts(body).map(|pieces| grpc_web_request(&[&grpc_web_response(&pieces, &trailers)]));
    let [Some(whole), Some(parts), Some(single)] = decoded else { panic!("the client cannot read it") };
    assert_eq!(whole, parts);
    assert_eq!(whole, single);
}
