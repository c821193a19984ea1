//! Reading and writing the protobuf wire format by the schema table, for messages whose Rust type is not known.

use std::borrow::Cow;

use crate::schema::{Cardinality, Field, Kind, Message, Scalar};

/// How deep messages may be nested; the same limit as prost's.
pub(crate) const MAX_DEPTH: usize = 100;

/// Bytes that are no encoding of the message that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub(crate) struct Malformed(&'static str);

/// One value as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// The fields of one message, by number.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    /// Each field once, with its values in the order of the wire.
    pub(crate) known: Vec<(Field, Vec<Raw<'a>>)>,
    /// Numbers that the message does not have.
    pub(crate) unknown: Vec<u32>,
}

/// Reads the fields of one message. Packed lists are unpacked, the last field of a oneof wins, and a default value that is written out
/// where it means nothing is as if it was not.
pub(crate) fn read<'a>(message: Message, bytes: &'a [u8]) -> Result<Fields<'a>, Malformed> {
    let mut fields = Fields::default();
    let mut reader = Reader(bytes);
    while let Some((number, raw)) = reader.next()? {
        let Some(field) = message.field_by_number(number) else {
            if !fields.unknown.contains(&number) {
                fields.unknown.push(number);
            }
            continue;
        };
        if let Some(oneof) = field.oneof_index() {
            fields.known.retain(|(other, _)| *other == field || other.oneof_index() != Some(oneof));
        }
        let position = match fields.known.binary_search_by_key(&number, |(field, _)| field.number()) {
            Ok(position) => position,
            Err(position) => {
                fields.known.insert(position, (field, Vec::new()));
                position
            }
        };
        let values = &mut fields.known[position].1;
        match (expected(field.kind()), raw) {
            (Shape::Varint, Raw::Varint(_))
            | (Shape::Fixed32, Raw::Fixed32(_))
            | (Shape::Fixed64, Raw::Fixed64(_))
            | (Shape::Bytes, Raw::Bytes(_)) => values.push(raw),
            (shape, Raw::Bytes(packed)) if field.is_list() => unpack(shape, packed, values)?,
            _ => return Err(Malformed("a field has the wrong wire type")),
        }
    }
    fields.known.retain(|(field, values)| !is_unset(*field, values));
    Ok(fields)
}

fn is_unset(field: Field, values: &[Raw<'_>]) -> bool {
    let is_default = |raw: &Raw<'_>| match field.kind() {
        Kind::Scalar(Scalar::String | Scalar::Bytes) => raw.bytes().is_empty(),
        Kind::Scalar(Scalar::Float | Scalar::Double) => raw.float() == 0.0,
        Kind::Scalar(scalar) => raw.integer(scalar) == 0,
        Kind::Enum(_) => raw.integer(Scalar::Enum) == 0,
        Kind::Message(_) => false,
    };
    field.oneof_index().is_none()
        && !has_presence(field)
        && !field.is_list()
        && !field.is_map()
        && values.last().is_none_or(is_default)
}

impl<'a> Fields<'a> {
    /// The values of a field by its name.
    pub(crate) fn get(&self, name: &str) -> &[Raw<'a>] {
        self.known.iter().find(|(field, _)| field.name() == name).map_or(&[], |(_, values)| values)
    }
}

/// The last of several values of a field that occurs once; parts of a message are merged.
pub(crate) fn single<'a>(field: Field, values: &[Raw<'a>]) -> Option<Merged<'a>> {
    match (field.kind(), values) {
        (_, []) => None,
        (Kind::Message(_), [_, _, ..]) => Some(Merged::Message(Cow::Owned(
            values.iter().flat_map(|value| value.bytes()).copied().collect(),
        ))),
        (Kind::Message(_), [.., value]) => Some(Merged::Message(Cow::Borrowed(value.bytes()))),
        (_, [.., value]) => Some(Merged::Scalar(*value)),
    }
}

/// A value of a field that occurs once.
pub(crate) enum Merged<'a> {
    Message(Cow<'a, [u8]>),
    Scalar(Raw<'a>),
}

impl<'a> Raw<'a> {
    /// The bytes of a length-delimited value.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Raw::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The text of a string field.
    pub(crate) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()).map_err(|_| Malformed("a string is not UTF-8"))
    }

    /// The value of an integer, bool or enum field.
    pub(crate) fn integer(self, scalar: Scalar) -> i128 {
        let bits = match self {
            Raw::Varint(bits) | Raw::Fixed64(bits) => bits,
            Raw::Fixed32(bits) => u64::from(bits),
            Raw::Bytes(_) => 0,
        };
        // Narrowing is what the wire format asks for: a negative int32 is sign-extended to 64 bits.
        match scalar {
            Scalar::Int32 | Scalar::Sfixed32 | Scalar::Enum => i128::from(bits as i32),
            Scalar::Int64 | Scalar::Sfixed64 => i128::from(bits as i64),
            Scalar::Sint32 => i128::from(unzigzag(bits & u64::from(u32::MAX)) as i32),
            Scalar::Sint64 => i128::from(unzigzag(bits)),
            Scalar::Uint32 | Scalar::Fixed32 => i128::from(bits as u32),
            Scalar::Bool => i128::from(bits != 0),
            _ => i128::from(bits),
        }
    }

    /// The value of a float or double field.
    pub(crate) fn float(self) -> f64 {
        match self {
            Raw::Fixed32(bits) => f64::from(f32::from_bits(bits)),
            Raw::Fixed64(bits) => f64::from_bits(bits),
            _ => 0.0,
        }
    }
}

/// How a type is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
}

fn expected(kind: Kind) -> Shape {
    match kind {
        Kind::Message(_) => Shape::Bytes,
        Kind::Enum(_) => Shape::Varint,
        Kind::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Bytes | Scalar::Message => Shape::Bytes,
            Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32 => Shape::Fixed32,
            Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64 => Shape::Fixed64,
            _ => Shape::Varint,
        },
    }
}

fn unpack<'a>(shape: Shape, packed: &'a [u8], values: &mut Vec<Raw<'a>>) -> Result<(), Malformed> {
    let mut reader = Reader(packed);
    while !reader.0.is_empty() {
        values.push(match shape {
            Shape::Varint => Raw::Varint(reader.varint()?),
            Shape::Fixed32 => Raw::Fixed32(reader.fixed32()?),
            Shape::Fixed64 => Raw::Fixed64(reader.fixed64()?),
            Shape::Bytes => return Err(Malformed("a packed list of messages")),
        });
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed("a field number is out of range"))?;
        if number == 0 {
            return Err(Malformed("field number 0"));
        }
        let raw = match key & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(self.fixed64()?),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| Malformed("a length is out of range"))?;
                Raw::Bytes(self.take(length)?)
            }
            5 => Raw::Fixed32(self.fixed32()?),
            _ => return Err(Malformed("an unknown wire type")),
        };
        Ok(Some((number, raw)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                return Err(Malformed("a varint is too long"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint is too long"))
    }

    fn fixed32(&mut self) -> Result<u32, Malformed> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn fixed64(&mut self) -> Result<u64, Malformed> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }
}

fn unzigzag(bits: u64) -> i64 {
    ((bits >> 1) as i64) ^ -((bits & 1) as i64)
}

/// A scalar to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Written {
    /// Of an integer, bool or enum field; in the range of its type.
    Integer(i128),
    Float(f64),
    Bytes(Vec<u8>),
}

impl Written {
    /// Whether it is the value of an unset field.
    pub(crate) fn is_default(&self) -> bool {
        match self {
            Written::Integer(value) => *value == 0,
            Written::Float(value) => value.to_bits() == 0,
            Written::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// Writes a scalar field.
pub(crate) fn write_scalar(out: &mut Vec<u8>, number: u32, scalar: Scalar, value: &Written) {
    let shape = expected(Kind::Scalar(scalar));
    let wire_type = match shape {
        Shape::Varint => 0,
        Shape::Fixed64 => 1,
        Shape::Bytes => 2,
        Shape::Fixed32 => 5,
    };
    write_varint(out, u64::from(number) << 3 | wire_type);
    if let Written::Bytes(bytes) = value {
        write_varint(out, bytes.len() as u64);
    }
    write_value(out, scalar, value);
}

/// Writes a scalar without its key, as in a packed list.
pub(crate) fn write_value(out: &mut Vec<u8>, scalar: Scalar, value: &Written) {
    match value {
        Written::Bytes(bytes) => out.extend_from_slice(bytes),
        // A float field has been checked to fit.
        Written::Float(value) if scalar == Scalar::Float => {
            out.extend_from_slice(&(*value as f32).to_le_bytes());
        }
        Written::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
        Written::Integer(value) => {
            // Two's complement in 64 bits, which sign-extends the narrower types.
            let bits = *value as u64;
            match scalar {
                Scalar::Fixed32 | Scalar::Sfixed32 => out.extend_from_slice(&(bits as u32).to_le_bytes()),
                Scalar::Fixed64 | Scalar::Sfixed64 => out.extend_from_slice(&bits.to_le_bytes()),
                Scalar::Sint32 | Scalar::Sint64 => {
                    let value = bits as i64;
                    write_varint(out, ((value << 1) ^ (value >> 63)) as u64);
                }
                _ => write_varint(out, bits),
            }
        }
    }
}

/// Writes a field of length-delimited bytes: a message, a string, a packed list.
pub(crate) fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The scalar type behind a kind that is not a message.
pub(crate) fn scalar_of(kind: Kind) -> Scalar {
    match kind {
        Kind::Scalar(scalar) => scalar,
        Kind::Enum(_) => Scalar::Enum,
        Kind::Message(_) => Scalar::Message,
    }
}

/// Whether an unset field is told from one with the default value.
pub(crate) fn has_presence(field: Field) -> bool {
    field.cardinality() == Cardinality::Optional
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::wire::{cluster, core, protobuf};
    use prost::Message as _;

    fn message(name: &str) -> Message {
        Message::find(name).unwrap()
    }

    #[test]
    fn integers_of_every_type_survive() {
        let cases = [
            (Scalar::Int32, i128::from(i32::MIN)),
            (Scalar::Int64, i128::from(i64::MIN)),
            (Scalar::Uint32, i128::from(u32::MAX)),
            (Scalar::Uint64, i128::from(u64::MAX)),
            (Scalar::Sint32, i128::from(i32::MIN)),
            (Scalar::Sint64, i128::from(i64::MIN)),
            (Scalar::Fixed32, i128::from(u32::MAX)),
            (Scalar::Fixed64, i128::from(u64::MAX)),
            (Scalar::Sfixed32, -1),
            (Scalar::Sfixed64, i128::from(i64::MIN)),
            (Scalar::Bool, 1),
            (Scalar::Enum, -7),
        ];
        for (scalar, value) in cases {
            let mut out = Vec::new();
            write_scalar(&mut out, 1, scalar, &Written::Integer(value));
            let (number, raw) = Reader(&out).next().unwrap().unwrap();
            assert_eq!((number, raw.integer(scalar)), (1, value), "{scalar:?}");
        }
    }

    #[test]
    fn agrees_with_prost() {
        let mut out = Vec::new();
        write_scalar(&mut out, 1, Scalar::Int64, &Written::Integer(-5));
        write_scalar(&mut out, 2, Scalar::Int32, &Written::Integer(-7));
        assert_eq!(protobuf::Duration { seconds: -5, nanos: -7 }.encode_to_vec(), out);
    }

    #[test]
    fn packed_lists_are_unpacked_and_messages_merged() {
        let retriable = message("envoy.config.route.v3.RetryPolicy");
        let field = retriable.field_by_name("retriable_status_codes").unwrap();
        assert_eq!(field.cardinality(), Cardinality::Packed);
        let mut out = Vec::new();
        write_bytes(&mut out, field.number(), &[1, 0x80, 1]);
        write_scalar(&mut out, field.number(), Scalar::Uint32, &Written::Integer(3));
        let fields = read(retriable, &out).unwrap();
        assert_eq!(fields.known, [(field, vec![Raw::Varint(1), Raw::Varint(128), Raw::Varint(3)])]);

        let cluster = message("envoy.config.cluster.v3.Cluster");
        let timeout = cluster.field_by_name("connect_timeout").unwrap();
        let mut out = Vec::new();
        write_bytes(&mut out, timeout.number(), &protobuf::Duration { seconds: 1, nanos: 0 }.encode_to_vec());
        write_bytes(&mut out, timeout.number(), &protobuf::Duration { seconds: 0, nanos: 2 }.encode_to_vec());
        let fields = read(cluster, &out).unwrap();
        let Some(Merged::Message(merged)) = single(timeout, fields.get("connect_timeout")) else { panic!() };
        let merged = protobuf::Duration::decode(merged.as_ref()).unwrap();
        assert_eq!(merged, protobuf::Duration { seconds: 1, nanos: 2 });
    }

    #[test]
    fn the_last_of_a_oneof_wins() {
        let source = message("envoy.config.core.v3.DataSource");
        let mut out = Vec::new();
        write_bytes(&mut out, 1, b"file");
        write_bytes(&mut out, 3, b"inline");
        let fields = read(source, &out).unwrap();
        assert_eq!(fields.known.len(), 1);
        assert_eq!(fields.get("inline_string"), [Raw::Bytes(b"inline")]);
        let decoded = core::v3::DataSource::decode(out.as_slice()).unwrap();
        assert_eq!(
            decoded.specifier,
            Some(core::v3::data_source::Specifier::InlineString("inline".to_owned()))
        );
    }

    #[test]
    fn malformed_bytes_are_errors_and_never_panic() {
        let cluster = message("envoy.config.cluster.v3.Cluster");
        let cases: [&[u8]; 7] = [
            &[0x0a],
            &[0x0a, 5, 1],
            &[0x0b],
            &[0x00],
            &[0x08, 1],
            &[0xff; 11],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ];
        for bytes in cases {
            assert!(read(cluster, bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(read(cluster, &[0xf8, 0xff, 0x07, 1]).unwrap().unknown, [16_383]);
        let mut random = fastrand::Rng::with_seed(1);
        let valid = cluster::v3::Cluster { name: "a".repeat(20), ..Default::default() }.encode_to_vec();
        for _ in 0..20_000 {
            let mut bytes = valid.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = read(cluster, &bytes);
        }
    }
}
