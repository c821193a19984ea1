//! Netlink's wire format (RFC 3549 section 2.3; `linux/netlink.h`): messages with a header, attributes as length, type, value.
//!
//! Lengths, types and sequence numbers have the machine's byte order; so have numbers of rtnetlink. Those of nf_tables are big
//! endian. Everything starts at a multiple of four bytes.

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`: the kernel answers also when all is well.
const ACK: u16 = 4;
/// `NLM_F_REPLACE` of a request that makes something.
pub(super) const REPLACE: u16 = 0x100;
/// `NLM_F_ROOT | NLM_F_MATCH`: all that there are.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE` of a request that makes something.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND` of a request that makes something.
pub(super) const APPEND: u16 = 0x800;
/// `NLM_F_DUMP_INTR` of an answer: what is dumped has changed meanwhile.
const INTERRUPTED: u16 = 0x10;

/// `NLMSG_ERROR`: an error, or with 0 the acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;

/// `NLA_F_NESTED`: the value is attributes.
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that are no flags (`NLA_TYPE_MASK`).
const TYPE: u16 = 0x3fff;

const HEADER: usize = 16;

/// The attributes of one message or of one attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// One more, of these bytes.
    pub(super) fn bytes(self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value)
    }

    /// One more, as nf_tables has numbers.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.push(kind, &value.to_be_bytes())
    }

    /// One more, as C has text.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.push(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// One more, of attributes.
    pub(super) fn nested(self, kind: u16, value: Attributes) -> Self {
        self.push(kind | NESTED, &value.0)
    }

    /// All of these.
    pub(super) fn and(mut self, others: Attributes) -> Self {
        self.0.extend(others.0);
        self
    }

    fn push(mut self, kind: u16, value: &[u8]) -> Self {
        // The kernel refuses a message whose lengths contradict each other, so cutting off is no danger; and nothing here is
        // longer than a rule.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        pad(&mut self.0);
        self
    }
}

/// One request. Its sequence number is its place in what is sent, set when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of a subsystem's type, with the subsystem's own header.
    pub(super) fn new(kind: u16, flags: u16, header: &[u8], attributes: Attributes) -> Self {
        let mut body = header.to_vec();
        pad(&mut body);
        body.extend(attributes.0);
        Message { kind, flags: flags | REQUEST, body }
    }

    /// The same with an answer also when all is well.
    #[must_use]
    pub(super) fn acknowledged(self) -> Self {
        Message { flags: self.flags | ACK, ..self }
    }

    /// Appends it as the kernel takes it.
    pub(super) fn write(&self, sequence: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        out.extend(length.to_ne_bytes());
        out.extend(self.kind.to_ne_bytes());
        out.extend(self.flags.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        // The sender: the kernel knows.
        out.extend(0u32.to_ne_bytes());
        out.extend(&self.body);
        pad(out);
    }
}

/// One message from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// The request with this sequence number was refused with this number of an error, or acknowledged with 0.
    Verdict {
        /// Of the request.
        sequence: u32,
        /// As in `errno.h`.
        error: i32,
    },
    /// The end of a dump.
    Done,
    /// What was asked for, or one of it: the subsystem's header and attributes.
    Object {
        /// Header and attributes.
        body: &'a [u8],
        /// It belongs to a dump of something that changed meanwhile.
        interrupted: bool,
    },
}

/// The messages in what was received; ends before one that is cut off.
pub(crate) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let (kind, flags, sequence) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?, u32_at(bytes, 8)?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match kind {
            // The kernel has the numbers of `errno.h` negative.
            ERROR => Answer::Verdict { sequence, error: u32_at(body, 0)?.cast_signed().wrapping_neg() },
            DONE => Answer::Done,
            _ => Answer::Object { body, interrupted: flags & INTERRUPTED != 0 },
        })
    })
}

/// The attributes in an object after its header, or in an attribute; ends before one that is cut off.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_ne_bytes(*two))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::default().number(1, 0x0102_0304);
        let outer = Attributes::default().text(3, "abcd").bytes(4, &[7]).nested(5, inner);
        let message = Message::new(0x0a06, CREATE, &[1, 0, 0, 0], outer).acknowledged();
        let mut bytes = Vec::new();
        message.write(9, &mut bytes);
        message.write(10, &mut bytes);
        assert_eq!(bytes.len(), 2 * (16 + 4 + 12 + 8 + 12));
        assert_eq!(u16_at(&bytes, 6), Some(CREATE | REQUEST | ACK));
        let objects: Vec<&[u8]> = answers(&bytes)
            .map(|answer| match answer {
                Answer::Object { body, interrupted: false } => body,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((objects.len(), objects[0]), (2, objects[1]));
        let found: Vec<(u16, &[u8])> = attributes(&objects[0][4..]).collect();
        assert_eq!(found[..2], [(3, &b"abcd\0"[..]), (4, &[7][..])]);
        assert_eq!(found[2].0, 5);
        assert_eq!(attributes(found[2].1).collect::<Vec<_>>(), [(1, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn an_error_has_its_number_and_its_request() {
        let mut bytes = Vec::new();
        Message { kind: ERROR, flags: 0, body: (-2i32).to_ne_bytes().to_vec() }.write(7, &mut bytes);
        Message { kind: DONE, flags: 0, body: vec![0; 4] }.write(0, &mut bytes);
        assert_eq!(
            answers(&bytes).collect::<Vec<_>>(),
            [Answer::Verdict { sequence: 7, error: 2 }, Answer::Done]
        );
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let mut bytes = Vec::new();
        Message::new(0, 0, &[], Attributes::default().number(1, 1).number(2, 2)).write(0, &mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(answers(&bytes[..end]).count(), 0, "{end}");
            assert!(attributes(&bytes[16..][..end.saturating_sub(16)]).count() < 2, "{end}");
        }
        // Lengths that are shorter than the headers that have them.
        assert_eq!(answers(&[0; 32]).count(), 0);
        assert_eq!(attributes(&[0; 32]).count(), 0);
    }
}
