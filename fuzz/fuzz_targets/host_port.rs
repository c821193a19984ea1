//! `HOST:PORT`, as flags and annotations have it.

use outrigger_proxy::net::HostPort;

use crate::input::text;

/// What is read prints as what means the same.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(host_port) = text.parse::<HostPort>() else { return };
    assert_eq!(host_port.to_string().parse::<HostPort>(), Ok(host_port));
}
