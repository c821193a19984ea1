//! A cluster by kubeconfig: the client, the Pods of the control plane, and a connection to a port inside of a Pod.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the chart calls the control plane.
const CONTROL_PLANE: &str = "app.kubernetes.io/name=outrigger-control-plane";

/// How long after the end of a forwarded connection its reason is waited for.
const REFUSAL: Duration = Duration::from_secs(1);

/// Flags that say which cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterOptions {
    /// How to reach the cluster; default: KUBECONFIG, then ~/.kube/config, then the Pod's own service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterOptions {
    /// A client of the API server. Nothing is connected yet.
    ///
    /// # Errors
    /// There is no usable kubeconfig.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
            None => match Config::from_kubeconfig(&options).await {
                Ok(config) => config,
                // Whoever chose a context means a kubeconfig.
                Err(error) if self.context.is_some() => return Err(error.into()),
                Err(error) => Config::incluster().or(Err(error)).context("no kubeconfig")?,
            },
        };
        Ok(Client::try_from(config)?)
    }
}

/// The Pods of the control plane that run, by name.
pub(super) async fn control_planes(client: &Client, namespace: &str) -> anyhow::Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.list(&ListParams::default().labels(CONTROL_PLANE)).await;
    let found = found.with_context(|| format!("cannot list the Pods of namespace {namespace}"))?;
    let is_running = |pod: &Pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
            && pod.metadata.deletion_timestamp.is_none()
    };
    let mut names: Vec<String> =
        found.items.into_iter().filter(is_running).filter_map(|pod| pod.metadata.name).collect();
    if names.is_empty() {
        bail!("no control plane runs in namespace {namespace} (Pods with {CONTROL_PLANE})");
    }
    names.sort();
    Ok(names)
}

/// A connection to a port that a Pod listens on, also on its loopback address; and, once it has broken, why the Pod's node
/// could not connect, when that is so.
pub(super) async fn forward(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
) -> anyhow::Result<(
    impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    impl Future<Output = Option<String>> + Send,
)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = pods.portforward(pod, &[port]).await.context("port-forward")?;
    let stream = forwarder.take_stream(port).context("port-forward")?;
    let error = forwarder.take_error(port).context("port-forward")?;
    // It comes with the end of the connection or not at all.
    let refusal = async { tokio::time::timeout(REFUSAL, error).await.ok().flatten() };
    Ok((stream, refusal))
}
