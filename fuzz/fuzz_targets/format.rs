//! Substitution format strings (`%REQ(X)%`): of access logs in text and JSON, and of headers. The first byte chooses which.

use std::sync::Arc;
use std::time::Instant;

use http::Version;
use outrigger_proxy::formatter::{CapturePlan, Format, Values};
use outrigger_proxy::fuzzing::print;
use outrigger_proxy::net::Address;
use outrigger_proxy::stream_info::{ConnectionInfo, StreamInfo};
use serde_json::Value;

use crate::input::{choose, text};

/// What is accepted can be printed, of a request of which nothing is known too; JSON is a line of JSON.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((kind, rest)) = choose(&[Kind::Text, Kind::Json, Kind::Header], bytes) else { return };
    let Some(text) = text(rest) else { return };
    let mut plan = match kind {
        Kind::Text | Kind::Json => CapturePlan::default(),
        Kind::Header => CapturePlan::live(),
    };
    let format = match kind {
        Kind::Text | Kind::Header => Format::compile(text, &mut plan),
        Kind::Json => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Format::compile_json(&object, false, &mut plan),
            _ => return,
        },
    };
    let Ok(format) = format else { return };
    let line = print(&format, Values::from(&stream()));
    if !text.contains('%') && kind != Kind::Json {
        assert_eq!(line, text.as_bytes());
    }
    if kind == Kind::Json {
        assert!(serde_json::from_slice::<Value>(&line).is_ok_and(|line| line.is_object()), "{line:?}");
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Json,
    Header,
}

fn stream() -> StreamInfo {
    let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
    let connection = ConnectionInfo {
        local_address: address(1),
        direct_local_address: address(1),
        original_destination: None,
        peer_address: address(2),
        requested_server_name: Some("outbound_.80_._.reviews".into()),
        tls: None,
        connection_id: 7,
        filter_chain: "chain".into(),
        fingerprints: None,
        opened: Instant::now(),
        secured: None,
    };
    StreamInfo::new(Arc::new(connection), Some(Version::HTTP_11))
}
