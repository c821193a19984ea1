//! A peer's certificate in DER: its names, and what logs and `x-forwarded-client-cert` print of it.

use http::HeaderValue;
use outrigger_proxy::fuzzing::certificate_names;
use outrigger_proxy::transport_socket::CertificateDetails;

/// Names of subjects and issuers are printable ASCII, whatever is in them.
pub(crate) fn fuzz(bytes: &[u8]) {
    let details = CertificateDetails::parse(bytes);
    let (subject, issuer) = certificate_names(bytes).unwrap();
    if let Ok(details) = details {
        assert!(details.serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    for name in [subject, issuer] {
        assert!(name.is_ascii() && HeaderValue::from_str(&name).is_ok(), "{name:?}");
    }
}
