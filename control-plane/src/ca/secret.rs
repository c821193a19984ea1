//! The CA's root in a Secret of the cluster, so that it outlives the Pod and all replicas sign with the same one.
//!
//! Invariant: the Secret is the truth. Whoever comes first makes the root in its own data directory and offers it; of
//! several at once one wins, and the others take the winner's. Runs once, before anything is signed.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use time::OffsetDateTime;

use super::root::{CERTIFICATE_FILE, KEY_FILE, Root, RootError};

/// Entries of a Secret of type `kubernetes.io/tls`.
const ENTRIES: [(&str, &str); 2] = [("tls.crt", CERTIFICATE_FILE), ("tls.key", KEY_FILE)];

/// Why the root cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootSecretError {
    /// The API server refused, or cannot be reached.
    #[error("the Secret {name} with the root of the certificates: {source}")]
    Api {
        /// `namespace/name`.
        name: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// An entry is missing.
    #[error("the Secret {name} with the root of the certificates has no entry {entry}")]
    Missing {
        /// `namespace/name`.
        name: String,
        /// `tls.crt` or `tls.key`.
        entry: &'static str,
    },
    /// The root itself.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Where the root is kept.
#[derive(Debug, Clone)]
pub struct RootSecret {
    /// Namespace of the Secret: the control plane's.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl RootSecret {
    /// The root of the Secret, which is made when there is none. `data_dir` holds a copy.
    ///
    /// # Errors
    /// See [`RootSecretError`]; none of them holds key material.
    pub async fn open_or_create(
        &self,
        client: Client,
        data_dir: &Path,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Root, RootSecretError> {
        let secrets: Api<Secret> = Api::namespaced(client, &self.namespace);
        let api = |source| RootSecretError::Api { name: self.to_string(), source: Box::new(source) };
        let found = match secrets.get_opt(&self.name).await.map_err(api)? {
            Some(found) => found,
            None => {
                let root = Root::open_or_create(data_dir, trust_domain, now)?;
                match secrets.create(&PostParams::default(), &self.offer(data_dir)?).await {
                    Ok(_) => return Ok(root),
                    // Another replica was faster.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        secrets.get(&self.name).await.map_err(api)?
                    }
                    Err(error) => return Err(api(error)),
                }
            }
        };
        let data = found.data.unwrap_or_default();
        for (entry, file) in ENTRIES {
            let Some(ByteString(content)) = data.get(entry) else {
                return Err(RootSecretError::Missing { name: self.to_string(), entry });
            };
            super::root::replace(&data_dir.join(file), content)?;
        }
        Ok(Root::open_or_create(data_dir, trust_domain, now)?)
    }

    fn offer(&self, data_dir: &Path) -> Result<Secret, RootError> {
        let mut data = BTreeMap::new();
        for (entry, file) in ENTRIES {
            let path = data_dir.join(file);
            let content = std::fs::read(&path).map_err(|source| RootError::Io { path, source })?;
            data.insert(entry.to_owned(), ByteString(content));
        }
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            ..ObjectMeta::default()
        };
        Ok(Secret {
            metadata,
            data: Some(data),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        })
    }
}

impl std::fmt::Display for RootSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
