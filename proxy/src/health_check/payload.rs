//! `HealthCheck.Payload`: bytes that a check sends, or looks for in the answer.

use bytes::Bytes;

/// Blocks of bytes; none of them is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload(Vec<Bytes>);

impl Payload {
    /// Of these blocks; empty ones say nothing.
    pub fn new(blocks: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(blocks.into_iter().filter(|block| !block.is_empty()).map(Bytes::from).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all blocks.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// All blocks as one.
    pub(super) fn bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [only] => only.clone(),
            several => several.concat().into(),
        }
    }

    /// Whether all blocks are in `data`, in their order; anything may be between them.
    pub(super) fn is_in(&self, data: &[u8]) -> bool {
        let mut rest = data;
        self.0.iter().all(|block| match rest.windows(block.len()).position(|window| window == block) {
            Some(at) => {
                rest = &rest[at + block.len()..];
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_their_order_only() {
        let payload = Payload::new([b"ab".to_vec(), Vec::new(), b"c".to_vec()]);
        for (data, expected) in
            [("abc", true), ("xab--c", true), ("cab", false), ("abd", false), ("ab", false), ("", false)]
        {
            assert_eq!(payload.is_in(data.as_bytes()), expected, "{data}");
        }
        assert_eq!((payload.len(), &*payload.bytes()), (3, &b"abc"[..]));
        assert!(Payload::default().is_in(b"") && Payload::default().is_empty());
    }
}
