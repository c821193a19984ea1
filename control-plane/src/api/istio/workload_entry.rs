//! WorkloadEntry -> [`WorkloadEntry`]: a workload that is no Pod. Endpoints of ServiceEntries and templates of WorkloadGroups have
//! the same fields.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use crate::api::values::{number, port};
use crate::api::{Metadata, Refusal, Strict, name_of, names, read};
use crate::model::{
    EndpointAddress, Entry, Interception, Locality, Remark, ServicePort, StaticEndpoint, Workload,
    WorkloadEntry,
};
use crate::source::Object;

/// Label that says whether a workload has a sidecar.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// Annotation that says how its traffic gets there.
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";

/// What an address of a Unix socket begins with.
const UNIX: &str = "unix://";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EntrySpec {
    #[serde(default)]
    pub(super) address: String,
    #[serde(default)]
    ports: BTreeMap<String, i64>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    network: String,
    #[serde(default)]
    locality: String,
    weight: Option<i64>,
    #[serde(default)]
    service_account: String,
}

/// What counts as its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressKind {
    /// Addresses and Unix sockets.
    Static,
    /// Addresses and names.
    Dns,
    /// All of these: it is not known yet who selects it.
    Any,
}

/// Decodes a WorkloadEntry.
pub(in crate::api) fn workload_entry(object: &Object) -> Result<WorkloadEntry, Refusal> {
    let Strict { metadata, spec, .. }: Strict<EntrySpec> = read(object)?;
    let name = name_of(object);
    let address = spec.address("spec", AddressKind::Any)?;
    let remarks = spec.remarks("spec");
    let mut ports = BTreeMap::new();
    for (name, number) in &spec.ports {
        ports.insert(name.clone(), spec.port(name, *number, "spec")?);
    }
    if matches!(address, EndpointAddress::Pipe(_)) && !ports.is_empty() {
        return Err(Refusal::new("spec.ports", "a Unix socket has no ports"));
    }
    let sidecar = spec.has_sidecar(&metadata, "spec")?;
    let mut labels = spec.labels.clone();
    labels.extend(metadata.labels.clone());
    check_labels("metadata.labels", &metadata.labels)?;
    let service_account = match spec.service_account.as_str() {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    let interception = interception(&metadata)?;
    let is_ending = metadata.deletion_timestamp.is_some();
    let ips = match &address {
        EndpointAddress::Ip(ip) => vec![*ip],
        EndpointAddress::Name(_) | EndpointAddress::Pipe(_) => Vec::new(),
    };
    let entry =
        Entry { address, ports, locality: Locality::parse(&spec.locality), weight: spec.weight("spec")? };
    let workload = Workload {
        controller: name.name.clone(),
        name: name.clone(),
        ips,
        labels,
        node: None,
        service_account,
        named_ports: BTreeMap::new(),
        ready: !is_ending,
        is_ending,
        sidecar,
        proxyless: false,
        interception,
        entry: Some(entry),
        origin: object.origin.clone(),
    };
    Ok(WorkloadEntry { name, workload: Arc::new(workload), remarks, origin: object.origin.clone() })
}

/// A machine says by its own sidecar's flags how that gets its traffic, which nobody but the annotation tells.
fn interception(metadata: &Metadata) -> Result<Interception, Refusal> {
    match metadata.annotations.get(INTERCEPTION_MODE).map(String::as_str) {
        None | Some("NONE") => Ok(Interception::None),
        Some("REDIRECT") => Ok(Interception::Redirect),
        Some(other) => {
            let field = format!("metadata.annotations.{INTERCEPTION_MODE}");
            Err(Refusal::new(field, format!("{other:?} is not supported; supported are NONE and REDIRECT")))
        }
    }
}

impl EntrySpec {
    /// An endpoint of a ServiceEntry with these ports, written at `field`.
    pub(super) fn endpoint(
        self,
        service_ports: &[ServicePort],
        field: &str,
        kind: AddressKind,
    ) -> Result<StaticEndpoint, Refusal> {
        let address = self.address(field, kind)?;
        let is_pipe = matches!(address, EndpointAddress::Pipe(_));
        let mut ports = BTreeMap::new();
        for (name, number) in &self.ports {
            let field = format!("{field}.ports.{name}");
            if is_pipe {
                return Err(Refusal::new(field, "a Unix socket has no ports"));
            }
            if service_ports.iter().all(|port| port.name != *name) {
                return Err(Refusal::new(field, "is no port of the ServiceEntry"));
            }
            ports.insert(name.clone(), port(*number, field)?);
        }
        if is_pipe && service_ports.len() > 1 {
            let reason = "a Unix socket is one port: the ServiceEntry must not have more";
            return Err(Refusal::new(format!("{field}.address"), reason));
        }
        if self.has_sidecar(&Metadata::default(), field)? {
            let which = match self.labels.contains_key(TLS_MODE) {
                true => format!("{field}.labels.{TLS_MODE}"),
                false => format!("{field}.serviceAccount"),
            };
            let reason = "says that the endpoint has a sidecar, which must know by which names it is called: write a WorkloadEntry \
                          with this address, and a workloadSelector that selects it";
            return Err(Refusal::new(which, reason));
        }
        let (locality, weight) = (Locality::parse(&self.locality), self.weight(field)?);
        Ok(StaticEndpoint { address, ports, labels: self.labels, locality, weight })
    }

    /// Whether a sidecar takes its connections: as the label says, else where there is a service account (Istio).
    fn has_sidecar(&self, metadata: &Metadata, field: &str) -> Result<bool, Refusal> {
        names_or_nothing(&format!("{field}.serviceAccount"), &self.service_account)?;
        check_labels(&format!("{field}.labels"), &self.labels)?;
        match metadata.labels.get(TLS_MODE).or_else(|| self.labels.get(TLS_MODE)).map(String::as_str) {
            Some("istio") => Ok(true),
            Some("disabled") => Ok(false),
            Some(other) => {
                let in_spec = !metadata.labels.contains_key(TLS_MODE);
                let field = if in_spec { format!("{field}.labels") } else { "metadata.labels".to_owned() };
                let reason = format!("{other:?} is not supported; supported are istio and disabled");
                Err(Refusal::new(format!("{field}.{TLS_MODE}"), reason))
            }
            None => Ok(!self.service_account.is_empty()),
        }
    }

    /// What of it has no effect.
    pub(super) fn remarks(&self, field: &str) -> Vec<Remark> {
        let network = || {
            let reason =
                "has no effect: the mesh has one network, in which every endpoint is called at its address";
            Remark::new(format!("{field}.network"), reason)
        };
        (!self.network.is_empty()).then(network).into_iter().collect()
    }

    /// What of a template can be checked without an address.
    pub(super) fn check_template(&self, field: &str) -> Result<(), Refusal> {
        if !self.address.is_empty() {
            let reason = "a template has no address: each WorkloadEntry has its own";
            return Err(Refusal::new(format!("{field}.address"), reason));
        }
        for (name, number) in &self.ports {
            self.port(name, *number, field)?;
        }
        self.weight(field)?;
        self.has_sidecar(&Metadata::default(), field).map(drop)
    }

    fn port(&self, name: &str, number: i64, field: &str) -> Result<u16, Refusal> {
        let field = format!("{field}.ports.{name}");
        names::label(&field, name)?;
        port(number, field)
    }

    fn weight(&self, field: &str) -> Result<u32, Refusal> {
        match self.weight {
            // Nothing said, and zero, is 1.
            None | Some(0) => Ok(1),
            Some(weight) => number(weight, 1, u32::MAX, format!("{field}.weight")),
        }
    }

    fn address(&self, field: &str, kind: AddressKind) -> Result<EndpointAddress, Refusal> {
        let field = format!("{field}.address");
        let text = self.address.as_str();
        if text.is_empty() {
            let reason = "must be said: endpoints of other networks are not reached by a gateway here";
            return Err(Refusal::new(field, reason));
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            if kind == AddressKind::Dns {
                return Err(Refusal::new(field, format!("{text:?} is neither an address nor a name")));
            }
            // An abstract name begins with @ (Envoy).
            let is_abstract = path.len() > 1 && path.starts_with('@');
            if !path.starts_with('/') && !is_abstract {
                return Err(Refusal::new(field, format!("{text:?} is no absolute path")));
            }
            return Ok(EndpointAddress::Pipe(path.to_owned()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(EndpointAddress::Ip(ip));
        }
        if kind == AddressKind::Static {
            return Err(Refusal::new(field, format!("{text:?} is no IP address")));
        }
        names::subdomain(&field, text.strip_suffix('.').unwrap_or(text))?;
        Ok(EndpointAddress::Name(text.to_owned()))
    }
}

fn names_or_nothing(field: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() { Ok(()) } else { names::subdomain(field, name) }
}

fn check_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    labels.iter().try_for_each(|(key, value)| names::label_value(&format!("{field}.{key}"), value))
}
