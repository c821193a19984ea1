//! Gives the mesh's root certificate to those in the cluster who have to trust it.
//!
//! * Sidecars: a ConfigMap in each namespace, which the injector mounts (Istio's `istio-ca-root-cert`).
//! * The API server: `caBundle` of the mesh's own webhook configurations.
//!
//! Both are written when they are missing or wrong, and looked at again for ever: the service account may read and write
//! them by name, but not list or watch them. Namespaces are watched. Runs on the main runtime; a failure is told and tried
//! again, and stops nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::ca::CertificateAuthority;

/// The key of the ConfigMap (Istio's).
const KEY: &str = "root-cert.pem";
/// Who owns the fields that are written.
const FIELD_MANAGER: &str = "outrigger-control-plane";
/// Kubernetes' own namespaces: nothing is injected there.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What is right is looked at again after this long.
const CONFIG_MAP_PERIOD: Duration = Duration::from_secs(60);
const WEBHOOK_PERIOD: Duration = Duration::from_secs(5);
/// What failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(2);
/// How long one watch of namespaces lasts before it is renewed, in seconds.
const WATCH_S: u32 = 60;

/// Who gets which certificate.
#[derive(Clone)]
pub(super) struct TrustAnchors {
    /// The API server.
    pub(super) client: Client,
    /// Whose roots are trusted.
    pub(super) authority: Arc<CertificateAuthority>,
    /// Name of the ConfigMap in each namespace.
    pub(super) config_map: String,
    /// Name of the webhook configurations, when there are webhooks here.
    pub(super) webhooks: Option<String>,
}

impl TrustAnchors {
    /// Keeps all of them, for ever.
    pub(super) async fn keep(self) {
        tokio::join!(self.keep_config_maps(), self.keep_webhooks());
    }

    async fn keep_config_maps(&self) {
        // Each namespace, and when it is looked at next.
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let config = watcher::Config::default().timeout(WATCH_S);
            let mut namespaces = watcher(Api::<Namespace>::all(self.client.clone()), config).boxed();
            let failure = loop {
                let next = due.iter().min_by_key(|(_, at)| **at).map(|(name, at)| (name.clone(), *at));
                let at = next.as_ref().map_or_else(|| Instant::now() + CONFIG_MAP_PERIOD, |(_, at)| *at);
                tokio::select! {
                    event = namespaces.next() => match event {
                        Some(Ok(event)) => take(event, &mut due),
                        Some(Err(error)) => break error.to_string(),
                        None => break "the watch ended".to_owned(),
                    },
                    () = sleep_until(at) => if let Some((namespace, _)) = next {
                        let pause = self.write_config_map(&namespace).await;
                        due.insert(namespace, Instant::now() + pause);
                    },
                }
            };
            tracing::info!(error = failure, "namespaces: watching again");
            // A new watch begins with a list, and so forgets what is gone.
            sleep(RETRY).await;
        }
    }

    /// Writes the ConfigMap of a namespace if it is not right; tells when to look again.
    async fn write_config_map(&self, namespace: &str) -> Duration {
        let (api, name) =
            (Api::<ConfigMap>::namespaced(self.client.clone(), namespace), self.config_map.as_str());
        let write = async {
            let found = api.get_opt(name).await?;
            let data = found.and_then(|found| found.data).unwrap_or_default();
            let roots = self.authority.bundle().pem();
            if data.get(KEY) == Some(&roots) {
                return Ok(false);
            }
            let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                "data": {KEY: roots}});
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &params, &Patch::Apply(wanted)).await.map(|_| true)
        };
        match write.await {
            Ok(written) => {
                if written {
                    tracing::info!(namespace, config_map = name, "the root certificate is written");
                }
                CONFIG_MAP_PERIOD
            }
            Err::<_, kube::Error>(error) => {
                tracing::warn!(namespace, config_map = name, %error, "the root certificate is not written");
                RETRY
            }
        }
    }

    async fn keep_webhooks(&self) {
        let Some(name) = &self.webhooks else { return };
        let bundle = STANDARD.encode(crate::webhook::ca_bundle(&self.authority));
        loop {
            let mut pause = WEBHOOK_PERIOD;
            for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
                match self.write_bundle(kind, name, &bundle).await {
                    Ok(true) => tracing::info!(kind, name, "caBundle is written"),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(kind, name, %error, "caBundle is not written");
                        pause = RETRY;
                    }
                }
            }
            sleep(pause).await;
        }
    }

    /// Writes `caBundle` into each webhook of a configuration that has another one; tells whether there was any. A
    /// configuration that does not exist is left so: the chart installs it.
    async fn write_bundle(&self, kind: &str, name: &str, bundle: &str) -> Result<bool, kube::Error> {
        let resource = ApiResource {
            group: "admissionregistration.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "admissionregistration.k8s.io/v1".to_owned(),
            kind: kind.to_owned(),
            plural: format!("{}s", kind.to_ascii_lowercase()),
        };
        // Not a type of a known version: what it does not know would be lost when it is written back.
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let Some(mut configuration) = api.get_opt(name).await? else { return Ok(false) };
        let mut is_wrong = false;
        let webhooks = configuration.data.get_mut("webhooks").and_then(serde_json::Value::as_array_mut);
        for webhook in webhooks.into_iter().flatten() {
            let ours = &mut webhook["clientConfig"]["caBundle"];
            is_wrong |= ours != bundle;
            *ours = bundle.into();
        }
        if is_wrong {
            // With the version that was read: who changed it meanwhile wins, and is looked at again.
            api.replace(name, &PostParams::default(), &configuration).await?;
        }
        Ok(is_wrong)
    }
}

/// Takes in which namespaces there are. One that is new or changed is due at once.
fn take(event: Event<Namespace>, due: &mut BTreeMap<String, Instant>) {
    match event {
        Event::Init => due.clear(),
        Event::InitDone => {}
        Event::Delete(namespace) => {
            due.remove(&namespace.name_any());
        }
        Event::InitApply(namespace) | Event::Apply(namespace) => {
            let name = namespace.name_any();
            if namespace.metadata.deletion_timestamp.is_some() {
                due.remove(&name);
            } else if !SYSTEM_NAMESPACES.contains(&name.as_str()) {
                due.insert(name, Instant::now());
            }
        }
    }
}
