//! What a handshake established: `%DOWNSTREAM_TLS_VERSION%`, `%UPSTREAM_PEER_SUBJECT%`, `%DOWNSTREAM_PEER_CERT_V_END(...)%` and their like.

use std::slice;
use std::time::SystemTime;

use super::Values;
use super::append::{Appended, joined, text};
use super::time::{Clock, TimeFormat};
use crate::transport_socket::{Certificates, PrintedCertificates, TlsInfo};

/// Of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Downstream,
    Upstream,
}

impl Side {
    /// The side that an operator names, and the rest of its name.
    pub(super) fn of(name: &str) -> Option<(Self, &str)> {
        let downstream = name.strip_prefix("DOWNSTREAM_").map(|rest| (Side::Downstream, rest));
        downstream.or_else(|| name.strip_prefix("UPSTREAM_").map(|rest| (Side::Upstream, rest)))
    }
}

/// One operator behind `DOWNSTREAM_` or `UPSTREAM_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    side: Side,
    field: Field,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Version,
    Cipher,
    Group,
    ServerName,
    Peer(CertificateField),
    Local(CertificateField),
    PeerNotBefore(TimeFormat),
    PeerNotAfter(TimeFormat),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertificateField {
    Subject,
    Issuer,
    Uris,
    Dns,
    Emails,
    Ips,
    OtherNames,
    Serial,
    Sha1,
    Sha256,
    ChainSerials,
    ChainSha1,
    ChainSha256,
    Pem,
}

impl Tls {
    /// Compiles the operator `name`; `None`: it is another one's.
    ///
    /// # Errors
    /// The time format is not known.
    pub(super) fn compile(name: &str, parameters: &str) -> Option<Result<Self, String>> {
        let (side, rest) = Side::of(name)?;
        let field = match rest {
            "PEER_CERT_V_START" => TimeFormat::compile_or_default(parameters).map(Field::PeerNotBefore),
            "PEER_CERT_V_END" => TimeFormat::compile_or_default(parameters).map(Field::PeerNotAfter),
            _ => Ok(Field::find(side, rest)?),
        };
        Some(field.map(|field| Self { side, field }))
    }

    /// Whether it takes what stands in brackets.
    pub(super) fn takes_parameters(&self) -> bool {
        matches!(self.field, Field::PeerNotBefore(_) | Field::PeerNotAfter(_))
    }

    pub(super) fn append(&self, values: Values<'_>, clock: &mut Clock, out: &mut Vec<u8>) -> Appended {
        let tls = match self.side {
            Side::Downstream => values.info.connection.tls.as_ref(),
            Side::Upstream => values.info.upstream_tls.as_deref(),
        };
        let Some(tls) = tls else { return Appended::Empty };
        match &self.field {
            Field::Version => text(Some(tls.version), out),
            Field::Cipher => text(Some(tls.cipher), out),
            Field::Group => text(Some(tls.group), out),
            Field::ServerName => text(tls.sni.as_deref(), out),
            Field::Peer(field) => certificate(tls.peer.as_deref(), *field, out),
            Field::Local(field) => certificate(tls.local.as_deref(), *field, out),
            Field::PeerNotBefore(format) => time(tls, |peer| peer.not_before, format, clock, out),
            Field::PeerNotAfter(format) => time(tls, |peer| peer.not_after, format, clock, out),
        }
    }
}

impl Field {
    /// Those that Envoy has for the side.
    fn find(side: Side, name: &str) -> Option<Self> {
        use CertificateField::*;
        let downstream = side == Side::Downstream;
        Some(match name {
            "TLS_VERSION" => Field::Version,
            "TLS_CIPHER" => Field::Cipher,
            "TLS_GROUP" => Field::Group,
            "SERVER_NAME" if !downstream => Field::ServerName,
            "PEER_SUBJECT" => Field::Peer(Subject),
            "PEER_ISSUER" => Field::Peer(Issuer),
            "PEER_URI_SAN" => Field::Peer(Uris),
            "PEER_DNS_SAN" => Field::Peer(Dns),
            "PEER_IP_SAN" => Field::Peer(Ips),
            "PEER_CERT" => Field::Peer(Pem),
            "PEER_EMAIL_SAN" if downstream => Field::Peer(Emails),
            "PEER_OTHERNAME_SAN" if downstream => Field::Peer(OtherNames),
            "PEER_SERIAL" if downstream => Field::Peer(Serial),
            "PEER_FINGERPRINT_1" if downstream => Field::Peer(Sha1),
            "PEER_FINGERPRINT_256" if downstream => Field::Peer(Sha256),
            "PEER_CHAIN_SERIALS" if downstream => Field::Peer(ChainSerials),
            "PEER_CHAIN_FINGERPRINTS_1" if downstream => Field::Peer(ChainSha1),
            "PEER_CHAIN_FINGERPRINTS_256" if downstream => Field::Peer(ChainSha256),
            "LOCAL_URI_SAN" => Field::Local(Uris),
            "LOCAL_DNS_SAN" => Field::Local(Dns),
            "LOCAL_IP_SAN" => Field::Local(Ips),
            "LOCAL_EMAIL_SAN" if downstream => Field::Local(Emails),
            "LOCAL_OTHERNAME_SAN" if downstream => Field::Local(OtherNames),
            "LOCAL_SUBJECT" if downstream => Field::Local(Subject),
            _ => return None,
        })
    }
}

fn certificate(of: Option<&Certificates>, field: CertificateField, out: &mut Vec<u8>) -> Appended {
    let Some(printed) = of.map(Certificates::printed) else { return Appended::Empty };
    let values: &[String] = match field {
        CertificateField::Subject => slice::from_ref(&printed.subject),
        CertificateField::Issuer => slice::from_ref(&printed.issuer),
        CertificateField::Pem => slice::from_ref(&printed.pem),
        CertificateField::Uris => &printed.uris,
        CertificateField::Dns => &printed.dns,
        CertificateField::Emails => &printed.emails,
        CertificateField::Ips => &printed.ips,
        CertificateField::OtherNames => &printed.other_names,
        CertificateField::Serial => leaf(&printed.serials),
        CertificateField::Sha1 => leaf(&printed.sha1),
        CertificateField::Sha256 => leaf(&printed.sha256),
        CertificateField::ChainSerials => &printed.serials,
        CertificateField::ChainSha1 => &printed.sha1,
        CertificateField::ChainSha256 => &printed.sha256,
    };
    joined(values, out)
}

fn leaf(values: &[String]) -> &[String] {
    &values[..values.len().min(1)]
}

fn time(
    tls: &TlsInfo,
    of: impl Fn(&PrintedCertificates) -> Option<SystemTime>,
    format: &TimeFormat,
    clock: &mut Clock,
    out: &mut Vec<u8>,
) -> Appended {
    match tls.peer.as_deref().and_then(|peer| of(peer.printed())) {
        Some(time) => {
            format.append(time, clock, out);
            Appended::Text
        }
        None => Appended::Empty,
    }
}
