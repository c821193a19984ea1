//! How commands get to the control plane and to proxies: by an address, or through the API server of a cluster.
//!
//! In a cluster everything goes by port-forward, as with istioctl. The kubelet connects inside of the Pod, so the admin
//! interface of a proxy and the dumps of the control plane stay on their loopback addresses; who may use them is a matter of the
//! cluster's own rights (`create` on `pods/portforward`).

mod cluster;

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::{Request, Uri};
use kube::Client;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::exchange;
pub(crate) use cluster::ClusterOptions;

/// Port of the control plane's admin pages.
const CONTROL_PLANE_PORT: u16 = 15014;
/// Port of a sidecar's admin interface, on the loopback address of its Pod.
const PROXY_ADMIN_PORT: u16 = 15000;
/// One request.
const LIMIT: Duration = Duration::from_secs(30);
/// A page may be this large, in bytes; the dump of a proxy in a large mesh has many megabytes.
const PAGE_MAX_BYTES: usize = 512 << 20;

/// Flags that say where the control plane is.
#[derive(Debug, Args)]
pub(crate) struct ControlPlaneOptions {
    /// Address of a control plane's admin pages, as http://127.0.0.1:15014; without it those in the cluster are asked
    #[arg(long, env = "OUTRIGGER_CONTROL_PLANE", value_name = "URL", value_parser = url)]
    pub(crate) control_plane: Option<Uri>,
    /// Namespace of the control plane in the cluster
    #[arg(short = 'i', long, value_name = "NAMESPACE", default_value = "outrigger-system")]
    pub(crate) control_plane_namespace: String,
}

/// Flags that say where a proxy is.
#[derive(Debug, Args)]
pub(crate) struct ProxyOptions {
    /// The proxy's Pod: POD.NAMESPACE, or POD with --namespace
    #[arg(value_name = "PROXY")]
    pub(crate) proxy: Option<String>,
    /// Address of the proxy's admin interface, as http://127.0.0.1:15000; without it the Pod is reached through the cluster
    #[arg(long, value_name = "URL", value_parser = url, conflicts_with_all = ["proxy", "namespace"])]
    pub(crate) proxy_admin: Option<Uri>,
    /// Namespace of the proxy's Pod; default: that of the kubeconfig's context
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// Something with pages.
#[derive(Debug)]
pub(crate) struct Target {
    /// What messages call it: an address, or a Pod.
    pub(crate) name: String,
    way: Way,
}

enum Way {
    Address { host: String, port: u16 },
    Pod { client: Client, namespace: String, pod: String, port: u16 },
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address { host, port } => write!(f, "{host}:{port}"),
            Self::Pod { namespace, pod, port, .. } => write!(f, "{namespace}/{pod}:{port}"),
        }
    }
}

impl Target {
    /// At this address.
    pub(crate) fn at(url: &Uri) -> Self {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Self { name: url.to_string(), way: Way::Address { host, port: url.port_u16().unwrap_or(80) } }
    }

    fn pod(client: Client, namespace: &str, pod: &str, port: u16) -> Self {
        let name = format!("{pod}.{namespace}");
        Self { name, way: Way::Pod { client, namespace: namespace.to_owned(), pod: pod.to_owned(), port } }
    }

    /// The admin interfaces of these proxies, each `POD.NAMESPACE`, through the cluster.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub(crate) async fn proxies(names: &[&str], cluster: &ClusterOptions) -> anyhow::Result<Vec<Self>> {
        let client = cluster.client().await.context("no --proxy-admin was given")?;
        let default = client.default_namespace().to_owned();
        let of = |name: &&str| {
            let (pod, namespace) = pod(name, None, &default);
            Self::pod(client.clone(), namespace, pod, PROXY_ADMIN_PORT)
        };
        Ok(names.iter().map(of).collect())
    }

    /// The body of a page.
    ///
    /// # Errors
    /// It cannot be reached, answers another status than 200, or not in time.
    pub(crate) async fn page(&self, path: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(path).header("host", "localhost").body(Full::default())?;
        let answer = async {
            match &self.way {
                Way::Address { host, port } => {
                    get(TcpStream::connect((host.as_str(), *port)).await?, request).await
                }
                Way::Pod { client, namespace, pod, port } => {
                    let (connection, refusal) = cluster::forward(client, namespace, pod, *port).await?;
                    match get(connection, request).await {
                        Ok(page) => Ok(page),
                        Err(error) => match refusal.await {
                            Some(reason) => Err(error.context(reason)),
                            None => Err(error),
                        },
                    }
                }
            }
        };
        let answer = timeout(LIMIT, answer).await;
        let answer = answer.unwrap_or_else(|_| bail!("no answer within {} s", LIMIT.as_secs()));
        answer.with_context(|| format!("{}: {path}", self.name))
    }

    /// A page of JSON.
    ///
    /// # Errors
    /// Those of [`Target::page`], or it is no JSON.
    pub(crate) async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let page = self.page(path).await?;
        serde_json::from_slice(&page).with_context(|| format!("{}: {path}: is no JSON", self.name))
    }
}

async fn get(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Bytes> {
    exchange(connection, request, PAGE_MAX_BYTES).await
}

impl ControlPlaneOptions {
    /// The control plane at the address, or all that run in the cluster.
    ///
    /// # Errors
    /// The cluster cannot be asked, or none runs there.
    pub(crate) async fn targets(&self, cluster: &ClusterOptions) -> anyhow::Result<Vec<Target>> {
        if let Some(url) = &self.control_plane {
            return Ok(vec![Target::at(url)]);
        }
        let client = cluster.client().await.context("no --control-plane was given")?;
        let namespace = self.control_plane_namespace.as_str();
        let pods = cluster::control_planes(&client, namespace).await?;
        let target = |pod: &String| Target::pod(client.clone(), namespace, pod, CONTROL_PLANE_PORT);
        Ok(pods.iter().map(target).collect())
    }
}

impl ProxyOptions {
    /// The proxy's admin interface.
    ///
    /// # Errors
    /// Nothing says where it is, or the cluster cannot be asked.
    pub(crate) async fn target(&self, cluster: &ClusterOptions) -> anyhow::Result<Target> {
        if let Some(url) = &self.proxy_admin {
            return Ok(Target::at(url));
        }
        let Some(proxy) = &self.proxy else {
            bail!("name a proxy, POD.NAMESPACE, or give --proxy-admin URL");
        };
        let client = cluster.client().await.context("no --proxy-admin was given")?;
        let namespace = client.default_namespace().to_owned();
        let (pod, namespace) = pod(proxy, self.namespace.as_deref(), &namespace);
        Ok(Target::pod(client, namespace, pod, PROXY_ADMIN_PORT))
    }
}

/// Pod and namespace of a proxy's name. With `--namespace` all of it is the Pod's; else what follows its last dot is the
/// namespace.
fn pod<'a>(proxy: &'a str, namespace: Option<&'a str>, default: &'a str) -> (&'a str, &'a str) {
    match (namespace, proxy.rsplit_once('.')) {
        (Some(namespace), _) => (proxy, namespace),
        (None, Some((pod, namespace))) => (pod, namespace),
        (None, None) => (proxy, default),
    }
}

/// `http://HOST:PORT`, or without the scheme.
pub(crate) fn url(text: &str) -> Result<Uri, String> {
    let wrong = || format!("`{text}` is no address; write http://HOST:PORT");
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = whole.parse().map_err(|_| wrong())?;
    let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() && !has_path => Ok(uri),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_proxies() {
        assert_eq!(pod("web-0", None, "default"), ("web-0", "default"));
        assert_eq!(pod("web-0.shop", None, "default"), ("web-0", "shop"));
        assert_eq!(pod("web-0", Some("shop"), "default"), ("web-0", "shop"));
        assert_eq!(pod("a.b", Some("shop"), "default"), ("a.b", "shop"));
    }

    #[test]
    fn addresses() {
        let at = |text: &str| url(text).map(|uri| format!("{:?}", Target::at(&uri).way));
        assert_eq!(at("http://127.0.0.1:15014").as_deref(), Ok("127.0.0.1:15014"));
        assert_eq!(at("localhost:1/").as_deref(), Ok("localhost:1"));
        assert_eq!(at("http://[::1]:15014").as_deref(), Ok("::1:15014"));
        assert_eq!(at("http://a").as_deref(), Ok("a:80"));
        for wrong in ["", "https://a", "http://a/proxies", "http://", "http://a?b"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
