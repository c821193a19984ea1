//! Which peers a workload accepts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Name;
use crate::source::Origin;

/// Whether a port takes mutual TLS, plaintext, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MutualTlsMode {
    /// Only plaintext.
    Disable,
    /// Both (the default when nothing says otherwise).
    #[default]
    Permissive,
    /// Only mutual TLS.
    Strict,
}

/// A PeerAuthentication.
#[derive(Debug)]
pub struct PeerAuthn {
    /// Its name.
    pub name: Name,
    /// The workloads it is for. Empty: all of the namespace, or of the mesh when it is in the root namespace.
    pub selector: BTreeMap<String, String>,
    /// The mode; none (`UNSET`) inherits.
    pub mode: Option<MutualTlsMode>,
    /// Modes of single ports of the workload (not of the Service); none inherits from `mode`.
    pub port_modes: BTreeMap<u16, Option<MutualTlsMode>>,
    /// `metadata.creationTimestamp`, or empty. The older of two for the same workloads wins.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl PeerAuthn {
    /// Whether it names a workload with these labels (in its namespace).
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
