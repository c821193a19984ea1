//! Workloads that Kubernetes does not know: WorkloadEntries, and the groups that they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{EndpointAddress, Locality, Name, Workload};
use crate::source::Origin;

/// A WorkloadEntry.
#[derive(Debug)]
pub struct WorkloadEntry {
    /// Its name.
    pub name: Name,
    /// What it is to the mesh; its [`entry`](Workload::entry) is set.
    pub workload: Arc<Workload>,
    /// What of it has no effect.
    pub remarks: Vec<Remark>,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// What a WorkloadEntry says of a workload and a Pod does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is called.
    pub address: EndpointAddress,
    /// Its ports by the names of ports of Services, or of their target ports.
    pub ports: BTreeMap<String, u16>,
    /// Where it is; empty where nothing is said.
    pub locality: Locality,
    /// Its share is this by the sum of all; 1 where nothing is said.
    pub weight: u32,
}

/// A WorkloadGroup: a template of WorkloadEntries. It does nothing by itself.
#[derive(Debug)]
pub struct WorkloadGroup {
    /// Its name.
    pub name: Name,
    /// What of it has no effect.
    pub remarks: Vec<Remark>,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// Something in an object that is accepted and has no effect, or another one than its writer may think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Path of the field.
    pub field: String,
    /// What is the matter with it, in a sentence.
    pub reason: String,
}

impl Remark {
    /// A remark about a field.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}
