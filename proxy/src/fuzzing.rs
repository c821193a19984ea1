//! Doors for the targets in `fuzz/`: parsers that nobody outside this crate calls otherwise, and a configuration without a machine
//! around it. Exists with the feature `fuzzing` only.

use std::fs::File;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Request};
use outrigger_xds_api::wire::endpoint::v3::ClusterLoadAssignment;
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::r#type::matcher::v3::RegexMatchAndSubstitute;
use outrigger_xds_api::{ResourceType, resource};
use prost::Message;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::time::Instant;

use crate::access_log::LogFiles;
use crate::bootstrap::{Document, NodeFlags, compile_bootstrap};
use crate::config::apply::{Update, validate};
use crate::config::compile::{
    Assignment, ChangedEndpoints, CompileCx, Invalid, compile_endpoints, compile_regex_rewrite,
};
use crate::config::configuration::Configuration;
use crate::config::sources::SourceId;
use crate::config::watch::Watch;
use crate::config::{dump, testing};
use crate::formatter::{Clock, Format, Values};
use crate::http::filters::QueryMutation;
use crate::http::path::Normalised;
use crate::http::{FrameLimits, PathRules, codec, local_reply, origin, repeated, router};
use crate::route::RegexSubstitution;
use crate::state::{Record, Saved, journal};
use crate::stats::Stats;
use crate::transport_socket::Certificates;
use crate::{admin, capture, route};

pub use crate::http::filters::fuzzing::{grpc_messages, grpc_web_request, grpc_web_response};

/// Compiles a `regex_rewrite`.
///
/// # Errors
/// What is wrong with it.
pub fn regex_rewrite(value: &RegexMatchAndSubstitute) -> Result<RegexSubstitution, Invalid> {
    let mut inputs = testing::inputs();
    let mut cx = CompileCx::new(&mut inputs, false);
    let compiled = compile_regex_rewrite(&mut cx, value);
    cx.finish("regex_rewrite", "", compiled).map(|(regex, _)| regex)
}

pub use crate::http::codec::fuzzing::{Messages, Stop};

/// What comes over an HTTP/1 connection in these pieces.
pub fn http1_messages(pieces: &[&[u8]]) -> Messages {
    codec::fuzzing::messages(pieces)
}

/// What an HTTP/2 client sends in these pieces.
///
/// # Errors
/// What it must not do: its connection is to be closed.
pub fn http2_frames(pieces: &[&[u8]]) -> Result<(), String> {
    let mut watch = codec::FrameWatch::new(FrameLimits::default(), Stats::new());
    pieces.iter().try_for_each(|piece| watch.received(piece)).map_err(|error| error.to_string())
}

/// Brings a request's path to its form; whether it may go on.
pub fn normalise(rules: PathRules, request: &mut Request<()>) -> bool {
    rules.apply(request) != Normalised::Reject
}

/// Changes the query of a request.
pub fn change_query(mutations: &[QueryMutation], request: &mut Request<()>) {
    crate::http::filters::fuzzing::change_query(mutations, request);
}

/// The decoded value of a query's first parameter of this name, as rate limits read it.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    route::query_match::first_value(query, name).map(std::borrow::Cow::into_owned)
}

/// The parameters of a query to the admin interface, decoded.
pub fn admin_query(query: &str) -> Vec<(String, String)> {
    admin::query::Query::parse(Some(query)).pairs().to_vec()
}

/// The client's address in `x-forwarded-for`, in one line or several, behind so many trusted proxies.
pub fn forwarded_for(headers: &HeaderMap, hops: usize) -> Option<IpAddr> {
    let mut headers = headers.clone();
    repeated::join_in_request(&mut headers);
    origin::last_address(&headers, hops).map(|(ip, _)| ip)
}

/// `grpc-timeout`.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    router::grpc_timeout(headers)
}

/// `grpc-message` of a local reply with this body.
pub fn grpc_message(body: &[u8]) -> Option<http::HeaderValue> {
    local_reply::grpc_message(body)
}

/// What a format prints.
pub fn print(format: &Format, values: Values<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    format.append(values, &mut Clock::default(), &mut line);
    line
}

/// What is printed of a chain of certificates, by the names of [`crate::transport_socket::PrintedCertificates`]: `subject`, `issuer`.
pub fn certificate_names(der: &[u8]) -> Option<(String, String)> {
    let certificates = Certificates::new(&[CertificateDer::from(der)])?;
    let printed = certificates.printed();
    Some((printed.subject.clone(), printed.issuer.clone()))
}

/// The kernel's answers in a message of netlink, each as its attributes; numbers of errors as negative.
pub fn netlink(bytes: &[u8]) -> usize {
    use capture::netlink::message::{Answer, answers, attributes};
    let objects = answers(bytes).filter_map(|answer| match answer {
        Answer::Object { body, .. } => Some(attributes(body).map(|(_, value)| value.len()).sum::<usize>()),
        Answer::Verdict { .. } | Answer::Done => None,
    });
    objects.sum()
}

/// The state of `owner` that a journal of these bytes keeps, and how many bytes at its end do not count.
///
/// # Errors
/// It is no journal of `owner`.
pub fn read_journal(bytes: &[u8], owner: &str) -> Result<(Saved, usize), String> {
    journal::read(bytes, owner)
}

/// A journal of `owner` with the contents of these records, whatever they are.
pub fn write_journal(owner: &str, contents: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    journal::frame(format!("{}{owner}", journal::MAGIC).as_bytes(), &mut bytes);
    for content in contents {
        journal::frame(content, &mut bytes);
    }
    bytes
}

/// Appends a record to a journal.
pub fn append_to_journal(record: &Record, bytes: &mut Vec<u8>) {
    journal::encode(record, bytes);
}

/// A load assignment by way of the version before it, and as a whole; `None` where there is no such way, or it ends.
pub fn updated_endpoints(before: &[u8], now: &[u8]) -> Option<(Assignment, Option<Assignment>)> {
    let old = assignment(before)?;
    let changes = ChangedEndpoints::find(before, now, old.hosts.len())?;
    let changed = assignment(&changes.changed.encode_to_vec())?;
    Some((changes.complete(&old, changed), assignment(now)))
}

fn assignment(encoded: &[u8]) -> Option<Assignment> {
    let message = ClusterLoadAssignment::decode(encoded).ok()?;
    let mut inputs = testing::inputs();
    let mut cx = CompileCx::new(&mut inputs, false);
    validate(&mut cx, &resource::pack(&message));
    let compiled = compile_endpoints(&message, &mut cx);
    cx.finish("load assignment", &message.cluster_name, compiled).ok().map(|(assignment, _)| assignment)
}

/// A configuration that binds nothing, reads no file and writes none.
#[derive(Debug)]
pub struct Sandbox {
    configuration: Configuration,
    /// What is wanted though nothing names it.
    wanted: Vec<Watch>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let mut inputs = testing::inputs();
        inputs.log_files =
            LogFiles::opened_by(inputs.stats.clone(), |_| File::options().append(true).open("/dev/null"));
        Self { configuration: Configuration::new(inputs, 0), wanted: Vec::new() }
    }
}

impl Sandbox {
    /// Wants a resource, as if another one named it: what nobody wants is not looked at.
    pub fn want(&mut self, of: ResourceType, name: &str) {
        let watch = self.configuration.inputs_mut().watches.watch(SourceId::ADS, of, name);
        self.wanted.push(watch);
    }

    /// Takes in one resource as ADS brings it.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn apply(&mut self, of: ResourceType, name: &str, resource: &Any) -> Result<(), String> {
        let update = Update { name, version: "1", resource, aliases: &[] };
        let refused = self.configuration.apply(SourceId::ADS, of, &[update], &[], Instant::now());
        refused.first().map_or(Ok(()), |invalid| Err(invalid.to_string()))
    }

    /// Removes one resource as ADS does.
    pub fn remove(&mut self, of: ResourceType, name: &str) {
        self.configuration.apply(SourceId::ADS, of, &[], &[name], Instant::now());
    }

    /// Takes in a bootstrap, as a start does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn bootstrap(&mut self, document: Document) -> Result<(), Vec<Invalid>> {
        let cx = CompileCx::new(self.configuration.inputs_mut(), true);
        let bootstrap =
            compile_bootstrap(document.into_message(), &NodeFlags::default(), cx).map_err(|e| vec![e])?;
        let now = Instant::now();
        let applied = bootstrap
            .resources
            .iter()
            .map(|one| self.configuration.apply_static(one.resource_type, &one.resource, now));
        let invalid: Vec<Invalid> = applied.filter_map(Result::err).collect();
        self.configuration.settle(now);
        if invalid.is_empty() { Ok(()) } else { Err(invalid) }
    }

    /// `/config_dump?include_eds`, before it is redacted.
    pub fn dump(&self) -> Value {
        dump::config_dump(&self.configuration, true)
    }
}
