//! How targets read their bytes.

use prost::Message;

/// The bytes as text, where they are.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The first byte chooses one of these; the rest is the input.
pub(crate) fn choose<'b, T: Copy>(of: &[T], bytes: &'b [u8]) -> Option<(T, &'b [u8])> {
    let (first, rest) = bytes.split_first()?;
    Some((of[usize::from(*first) % of.len()], rest))
}

/// The first line, and what follows it.
pub(crate) fn line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// Messages behind their lengths, up to the first that is malformed.
pub(crate) fn messages<M: Message + Default>(mut bytes: &[u8]) -> impl Iterator<Item = M> {
    std::iter::from_fn(move || M::decode_length_delimited(&mut bytes).ok()).take(64)
}

/// The bytes cut in three ways, as a connection may bring them: whole, in small parts, and byte by byte.
pub(crate) fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let part = 2 + bytes.len() % 13;
    [vec![bytes], bytes.chunks(part).collect(), bytes.chunks(1).collect()]
}
