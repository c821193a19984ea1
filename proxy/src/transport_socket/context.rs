//! Where a context's certificate and validation come from, and the rustls configuration made of them.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SupportedProtocolVersion;

use super::certificate::TlsCertificate;
use super::error::TransportError;
use super::validation::ValidationContext;
use crate::config::live::Live;

/// A TLS version that can be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLSv1_2`.
    V1_2,
    /// `TLSv1_3`.
    V1_3,
}

/// `TlsParameters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsParams {
    /// `tls_minimum_protocol_version`, default TLS 1.2.
    pub min: TlsVersion,
    /// `tls_maximum_protocol_version`.
    pub max: TlsVersion,
}

impl Default for TlsParams {
    fn default() -> Self {
        Self { min: TlsVersion::V1_2, max: TlsVersion::V1_3 }
    }
}

impl TlsParams {
    /// Never empty.
    ///
    /// # Errors
    /// The minimum is above the maximum.
    pub(super) fn versions(self) -> Result<&'static [&'static SupportedProtocolVersion], String> {
        use rustls::version::{TLS12, TLS13};
        static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
        match (self.min, self.max) {
            (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(&ONLY_12),
            (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(&BOTH),
            (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(&ONLY_13),
            (TlsVersion::V1_3, TlsVersion::V1_2) => {
                Err("the minimum TLS version is above the maximum".to_owned())
            }
        }
    }
}

/// Where the rules for peer certificates come from: a secret, or what stands in the configuration.
#[derive(Debug, Clone)]
pub enum ValidationSource {
    /// `validation_context`, `validation_context_sds_secret_config`.
    Whole(Arc<Live<ValidationContext>>),
    /// `combined_validation_context`.
    Combined {
        /// `default_validation_context`.
        default: Arc<Live<ValidationContext>>,
        /// `validation_context_sds_secret_config`.
        secret: Arc<Live<ValidationContext>>,
    },
}

/// Both sources of one context.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) certificate: Option<Arc<Live<TlsCertificate>>>,
    pub(super) validation: Option<ValidationSource>,
}

/// What the sources held when a configuration was made.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) certificate: Option<Arc<TlsCertificate>>,
    /// For a combined context the dynamic part.
    validation: Option<Arc<ValidationContext>>,
    /// The other part of a combined context.
    default_validation: Option<Arc<ValidationContext>>,
}

impl Sources {
    /// The secrets that nothing has been published under yet.
    pub(super) fn missing_secrets(&self) -> Vec<Arc<str>> {
        let mut missing = Vec::new();
        if let Some(certificate) = &self.certificate
            && certificate.peek().is_none()
        {
            missing.push(certificate.name().clone());
        }
        if let Some(ValidationSource::Whole(secret) | ValidationSource::Combined { secret, .. }) =
            &self.validation
            && secret.peek().is_none()
        {
            missing.push(secret.name().clone());
        }
        missing
    }

    pub(super) fn load(&self) -> Result<Inputs, TransportError> {
        let certificate = self.certificate.as_deref().map(load).transpose()?;
        let (validation, default_validation) = match &self.validation {
            None => (None, None),
            Some(ValidationSource::Whole(whole)) => (Some(load(whole)?), None),
            Some(ValidationSource::Combined { default, secret }) => {
                (Some(load(secret)?), Some(load(default)?))
            }
        };
        Ok(Inputs { certificate, validation, default_validation })
    }
}

fn load<T>(cell: &Live<T>) -> Result<Arc<T>, TransportError> {
    cell.get().ok_or_else(|| TransportError::missing(cell.name()))
}

impl Inputs {
    /// The rules for peer certificates.
    pub(super) fn rules(&self) -> Result<Option<Arc<ValidationContext>>, String> {
        let rules = match (&self.default_validation, &self.validation) {
            (Some(default), Some(dynamic)) => Some(Arc::new(ValidationContext::combine(default, dynamic))),
            (_, whole) => whole.clone(),
        };
        if let Some(rules) = &rules {
            rules.check()?;
        }
        Ok(rules)
    }
}

/// A configuration and what it was made of.
#[derive(Debug)]
pub(super) struct Built<C> {
    inputs: Inputs,
    pub(super) config: C,
}

/// The newest configuration of one context.
#[derive(Debug)]
pub(super) struct Cache<C>(ArcSwapOption<Built<C>>);

impl<C> Cache<C> {
    pub(super) fn new() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// The configuration for what the sources hold now. Built again only when that has changed; two threads that notice at the
    /// same time may both build, which costs time only.
    pub(super) fn get(
        &self,
        sources: &Sources,
        build: impl FnOnce(&Inputs) -> Result<C, String>,
    ) -> Result<Arc<Built<C>>, TransportError> {
        let inputs = sources.load()?;
        if let Some(built) = self.0.load_full()
            && same(&built.inputs.certificate, &inputs.certificate)
            && same(&built.inputs.validation, &inputs.validation)
            && same(&built.inputs.default_validation, &inputs.default_validation)
        {
            return Ok(built);
        }
        let config = build(&inputs).map_err(TransportError::unusable)?;
        let built = Arc::new(Built { inputs, config });
        self.0.store(Some(built.clone()));
        Ok(built)
    }
}

fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
