//! Names of subjects and issuers as text: RFC 2253, with what OpenSSL leaves to choose.

use x509_parser::oid_registry::asn1_rs::{Any, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// `CN=root ca,O=Root\, Inc`: the last attribute first, as BoringSSL prints it with `XN_FLAG_RFC2253`.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let sets: Vec<_> = name.iter_rdn().collect();
    for set in sets.into_iter().rev() {
        let attributes: Vec<_> = set.iter().collect();
        for (at, attribute) in attributes.into_iter().rev().enumerate() {
            if !text.is_empty() {
                text.push(if at == 0 { ',' } else { '+' });
            }
            push_attribute(attribute, &mut text);
        }
    }
    text
}

fn push_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let oid = attribute.attr_type().to_id_string();
    match (short_name(&oid), string(attribute.attr_value())) {
        (Some(name), Some(value)) => {
            text.push_str(name);
            text.push('=');
            push_escaped(&value, text);
        }
        // What is not known is dumped.
        (name, _) => {
            text.push_str(name.unwrap_or(&oid));
            text.push_str("=#");
            let value = attribute.attr_value();
            let header = [value.tag().0 as u8, value.data.len() as u8];
            header.iter().chain(value.data).for_each(|byte| text.push_str(&format!("{byte:02X}")));
        }
    }
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.17" => "postalCode",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.44" => "generationQualifier",
        "2.5.4.46" => "dnQualifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// A string of any of the kinds that names have.
pub(super) fn string(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            Some(String::from_utf8_lossy(value.data).into_owned())
        }
        Tag::T61String => Some(value.data.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units: Vec<u16> =
                value.data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            Some(String::from_utf16_lossy(&units))
        }
        _ => None,
    }
}

/// Special characters with a backslash; what is not printable ASCII as the hexadecimal of its bytes.
fn push_escaped(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(byte)]),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Envoy 1.40 printed.
    #[test]
    fn special_characters_are_escaped() {
        for (value, expected) in [
            ("Acme \"Q\", Inc", "Acme \\\"Q\\\"\\, Inc"),
            ("team ", "team\\ "),
            ("#1", "\\#1"),
            ("caf\u{e9}", "caf\\C3\\A9"),
            ("a\tb", "a\\09b"),
        ] {
            let mut text = String::new();
            push_escaped(value, &mut text);
            assert_eq!(text, expected);
        }
    }
}
