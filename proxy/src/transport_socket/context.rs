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

/// Where our own certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// `tls_certificates`: files or inline.
    Fixed(Arc<TlsCertificate>),
    /// `tls_certificate_sds_secret_configs`.
    Secret(Arc<Live<TlsCertificate>>),
}

/// Where the rules for peer certificates come from.
#[derive(Debug, Clone)]
pub enum ValidationSource {
    /// `validation_context`.
    Fixed(Arc<ValidationContext>),
    /// `validation_context_sds_secret_config`.
    Secret(Arc<Live<ValidationContext>>),
    /// `combined_validation_context`.
    Combined {
        /// `default_validation_context`.
        default: Arc<ValidationContext>,
        /// `validation_context_sds_secret_config`.
        secret: Arc<Live<ValidationContext>>,
    },
}

/// Both sources of one context.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) certificate: Option<CertificateSource>,
    pub(super) validation: Option<ValidationSource>,
}

/// What the sources held when a configuration was made.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) certificate: Option<Arc<TlsCertificate>>,
    /// As published: for a combined context the dynamic part alone.
    validation: Option<Arc<ValidationContext>>,
}

impl Sources {
    /// The secrets that nothing has been published under yet.
    pub(super) fn missing_secrets(&self) -> Vec<Arc<str>> {
        let mut missing = Vec::new();
        if let Some(CertificateSource::Secret(secret)) = &self.certificate
            && secret.peek().is_none()
        {
            missing.push(secret.name().clone());
        }
        if let Some(ValidationSource::Secret(secret) | ValidationSource::Combined { secret, .. }) =
            &self.validation
            && secret.peek().is_none()
        {
            missing.push(secret.name().clone());
        }
        missing
    }

    pub(super) fn load(&self) -> Result<Inputs, TransportError> {
        let certificate = match &self.certificate {
            None => None,
            Some(CertificateSource::Fixed(fixed)) => Some(fixed.clone()),
            Some(CertificateSource::Secret(secret)) => {
                Some(secret.get().ok_or_else(|| TransportError::missing(secret.name()))?)
            }
        };
        let validation = match &self.validation {
            None => None,
            Some(ValidationSource::Fixed(fixed)) => Some(fixed.clone()),
            Some(ValidationSource::Secret(secret) | ValidationSource::Combined { secret, .. }) => {
                Some(secret.get().ok_or_else(|| TransportError::missing(secret.name()))?)
            }
        };
        Ok(Inputs { certificate, validation })
    }

    /// The rules that hold for `inputs`.
    pub(super) fn rules(&self, inputs: &Inputs) -> Result<Option<Arc<ValidationContext>>, String> {
        let rules = match (&self.validation, &inputs.validation) {
            (Some(ValidationSource::Combined { default, .. }), Some(dynamic)) => {
                Some(Arc::new(ValidationContext::combine(default, dynamic)))
            }
            (_, published) => published.clone(),
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
