//! What the kernel answers over netlink when packet filter rules are made.

/// No more bytes of attributes than there are, and an end.
pub(crate) fn fuzz(bytes: &[u8]) {
    assert!(outrigger_proxy::fuzzing::netlink(bytes) <= bytes.len());
}
