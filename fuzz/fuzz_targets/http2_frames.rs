//! What an HTTP/2 client sends: the heads of its frames, and floods.

use outrigger_proxy::fuzzing::http2_frames;

use crate::input::cuts;

/// However the bytes are cut they mean the same.
pub(crate) fn fuzz(bytes: &[u8]) {
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes].concat();
    let [whole, parts, single] = cuts(&bytes).map(|pieces| http2_frames(&pieces));
    assert_eq!(whole, parts);
    assert_eq!(whole, single);
}
