//! `Secret`: a certificate with its key, or rules for peer certificates.

use std::sync::Arc;

use outrigger_xds_api::wire::tls::v3 as wire;

use super::cx::{CompileCx, Compiled};
use super::tls::{compile_certificate, compile_validation_context};
use crate::transport_socket::{TlsCertificate, ValidationContext};

/// A compiled secret. Printing it shows no key.
#[derive(Debug, Clone)]
pub enum Secret {
    /// `tls_certificate`.
    Certificate(Arc<TlsCertificate>),
    /// `validation_context`.
    Validation(Arc<ValidationContext>),
}

/// Compiles a secret.
pub fn compile_secret(value: &wire::Secret, cx: &mut CompileCx<'_>) -> Compiled<Secret> {
    let wire::Secret { name, r#type } = value;
    if name.is_empty() {
        cx.refuse("name", "value length must be at least 1 characters");
    }
    match r#type {
        Some(wire::secret::Type::TlsCertificate(certificate)) => cx
            .field("tls_certificate", |cx| compile_certificate(cx, certificate))
            .map(|c| Secret::Certificate(Arc::new(c))),
        Some(wire::secret::Type::ValidationContext(context)) => cx
            .field("validation_context", |cx| compile_validation_context(cx, context))
            .map(|c| Secret::Validation(Arc::new(c))),
        Some(wire::secret::Type::SessionTicketKeys(_)) => {
            Err(cx.refuse("session_ticket_keys", "not supported"))
        }
        Some(wire::secret::Type::GenericSecret(_)) => Err(cx.refuse("generic_secret", "not supported")),
        None => Err(cx.refuse("", "one of tls_certificate or validation_context is required")),
    }
}
