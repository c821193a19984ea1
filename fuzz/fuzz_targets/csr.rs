//! Certificate requests of workloads: PEM, or DER that is put into PEM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_control_plane::ca::csr::Csr;

use crate::input::text;

/// Only a whole request with a key and a signature is taken, so a changed one is refused.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        drop(Csr::parse(text));
    }
    let pem = |der: &[u8]| {
        let body = STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    };
    if Csr::parse(&pem(bytes)).is_ok() {
        Csr::parse(&pem(&[bytes, &[0]].concat())).unwrap_err();
        Csr::parse(&pem(&bytes[..bytes.len() - 1])).unwrap_err();
    }
}
