//! What all compile functions share: where in the resource we are, what was found wrong there, what was ignored.
//!
//! A compile function that meets something wrong records it here and goes on where it can, so that one pass reports all
//! problems of a resource. Nothing recorded here ever contains a secret.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use rustc_hash::FxHashSet;

use super::source::Fetch;
use crate::access_log::LogFiles;
use crate::cluster::lb::LocalCluster;
use crate::cluster::lb::slow_start::WarmUps;
use crate::cluster::original_dst::Inhabited;
use crate::cluster::outlier::Ejections;
use crate::config::certificate_files::{Files, Folders, Inlined};
use crate::config::dns::Started;
use crate::config::registry::Registry;
use crate::config::sources::{SourceId, Sources, Variant};
use crate::config::watch::{Watch, Watches};
use crate::health_check::Starts;
use crate::net::Resolvers;
use crate::on_demand::Asks;
use crate::stats::Stats;
use crate::transport_socket::{TlsCertificate, ValidationContext};

/// One thing that is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Field path from the resource, for instance `filter_chains[0].filters[0].typed_config.stat_prefix`.
    pub path: String,
    /// What is wrong, in Envoy's words where it has some.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// A resource that is refused, with everything that was found wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `listener`, `cluster`, `route configuration`, `load assignment`, `secret` or `bootstrap`.
    pub kind: &'static str,
    /// The resource's name.
    pub name: String,
    /// At least one.
    pub problems: Vec<Problem>,
    /// The same content will be refused again: nothing but it was looked at.
    pub is_final: bool,
}

impl Invalid {
    /// A resource with one problem.
    pub fn one(kind: &'static str, name: &str, path: &str, reason: impl Into<String>) -> Self {
        let problem = Problem { path: path.to_owned(), reason: reason.into() };
        Self { kind, name: name.to_owned(), problems: vec![problem], is_final: true }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}': ", self.kind, self.name)?;
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Says that a problem was recorded in the context, so that there is no value. Only the context makes it.
#[derive(Debug)]
pub struct Refused(());

/// What a compile function gives back.
pub type Compiled<T> = Result<T, Refused>;

/// Names that a resource refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Clusters that routes and `tcp_proxy` name.
    pub clusters: Vec<Arc<str>>,
    /// The same where a request asks for a cluster that is not there: nothing waits for it to come by itself.
    pub on_demand_clusters: Vec<Arc<str>>,
    /// Route configurations whose clusters are asked for like that.
    pub on_demand_routes: Vec<(SourceId, Arc<str>)>,
    /// What is taken from a source by name: route configurations, load assignments, secrets.
    pub watches: Vec<Watch>,
    /// Secrets taken from the workload's own identity (cluster `sds-grpc`).
    pub identity_secrets: Vec<Arc<str>>,
    /// How long all this is waited for: the longest `initial_fetch_timeout`.
    pub fetch_timeout: Duration,
}

impl References {
    /// Adds everything that `other` refers to.
    pub fn extend(&mut self, other: &References) {
        self.clusters.extend_from_slice(&other.clusters);
        self.on_demand_clusters.extend_from_slice(&other.on_demand_clusters);
        self.on_demand_routes.extend_from_slice(&other.on_demand_routes);
        self.watches.extend_from_slice(&other.watches);
        self.identity_secrets.extend_from_slice(&other.identity_secrets);
        self.fetch_timeout = self.fetch_timeout.max(other.fetch_timeout);
    }

    /// What it refers to of this type, with the source of each.
    pub fn watched(&self, resource_type: ResourceType) -> impl Iterator<Item = (SourceId, &Arc<str>)> {
        let keys = self.watches.iter().map(Watch::key).filter(move |key| key.resource_type == resource_type);
        keys.map(|key| (key.source, &key.name))
    }

    /// Each name once.
    fn deduplicate(&mut self) {
        for names in [&mut self.clusters, &mut self.on_demand_clusters] {
            names.sort_unstable();
            names.dedup();
        }
        self.on_demand_routes.sort_unstable();
        self.on_demand_routes.dedup();
        self.watches.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        self.watches.dedup();
        self.identity_secrets.sort_unstable();
        self.identity_secrets.dedup();
    }
}

/// Reads a file that the configuration names. The disk in the process, a map in tests and fuzzing.
pub type ReadFile = dyn Fn(&str) -> io::Result<Vec<u8>> + Send + Sync;

/// What compiling needs besides the message; the same for all resources.
pub struct Inputs {
    /// The cells that names resolve to.
    pub registry: Registry,
    /// Where dynamic resources come from.
    pub sources: Sources,
    /// What is wanted of them.
    pub watches: Watches,
    /// Where handles are resolved.
    pub stats: Arc<Stats>,
    /// Open access logs, one per path.
    pub log_files: Arc<LogFiles>,
    /// Where workers report the hosts that they eject.
    pub ejections: Ejections,
    /// Where hosts are given to be checked.
    pub checks: Starts,
    /// Where workers report clusters whose hosts main has to clean up.
    pub inhabited: Inhabited,
    /// Where workers ask for what requests need.
    pub on_demand: Asks,
    /// Where endpoint sets say that their hosts warm up.
    pub warm_ups: WarmUps,
    /// `cluster_manager.local_cluster_name`, with the node's locality.
    pub local_cluster: Option<Arc<LocalCluster>>,
    /// Who looks up the names of clusters.
    pub resolvers: Resolvers,
    /// Where clusters say that they have names to look up.
    pub names: Started,
    /// Reads certificates, keys and bodies.
    pub read_file: Box<ReadFile>,
    /// `cluster_manager.upstream_bind_config.source_address`.
    pub source_address: Option<IpAddr>,
    /// The node's `id`.
    pub node_id: Arc<str>,
    /// The node's `cluster`: filters name it and count by it.
    pub service_cluster: Arc<str>,
    /// Static clusters that need no other cluster: what gRPC sources may ask.
    pub static_clusters: FxHashSet<Arc<str>>,
    /// Names of all clusters that are defined, published or not: what static routes may name.
    pub known_clusters: FxHashSet<Arc<str>>,
    /// Certificates that stand in TLS contexts.
    pub inline_certificates: Inlined<TlsCertificate>,
    /// Rules for peer certificates that stand in TLS contexts.
    pub inline_validations: Inlined<ValidationContext>,
    /// Where files are followed.
    pub folders: Folders,
    /// Ignored fields that the log has told about.
    pub told: FxHashSet<String>,
    /// The variant of the bootstrap's `ads_config`; without it `ads: {}` does not work.
    pub ads: Option<Variant>,
    /// The bootstrap has `cds_config`: a cluster that is not there may come.
    pub has_cds: bool,
    /// The workload's identity is served in this process under the cluster name `sds-grpc`.
    pub has_identity: bool,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("source_address", &self.source_address).finish_non_exhaustive()
    }
}

/// The state of compiling one resource.
#[derive(Debug)]
pub struct CompileCx<'a> {
    /// What is the same for all resources.
    pub inputs: &'a mut Inputs,
    /// What the resource refers to, filled on the way.
    pub references: References,
    /// The resource is static: what it names must exist already where Envoy demands that.
    pub is_static: bool,
    path: String,
    problems: Vec<Problem>,
    ignored: Vec<String>,
    /// What the content says depends on these files, which may be others the next time.
    pub(crate) files: Files,
}

impl<'a> CompileCx<'a> {
    /// A context for one resource.
    pub fn new(inputs: &'a mut Inputs, is_static: bool) -> Self {
        Self {
            inputs,
            references: References::default(),
            is_static,
            path: String::new(),
            problems: Vec::new(),
            ignored: Vec::new(),
            files: Files::default(),
        }
    }

    /// Reads a file that the resource names.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn read_file(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.files.read(path, &self.inputs.read_file)
    }

    /// Runs `f`, and tells which files it has read.
    pub(crate) fn reading<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> (T, Files) {
        let before = std::mem::take(&mut self.files);
        let result = f(self);
        let read = std::mem::replace(&mut self.files, before);
        self.files.add(&read);
        (result, read)
    }

    /// Notes that the resource refers to this name of a source, and how long it waits for it.
    pub(crate) fn watch(&mut self, resource_type: ResourceType, fetch: Fetch, name: &str) {
        let watch = self.inputs.watches.watch(fetch.source, resource_type, name);
        self.references.watches.push(watch);
        self.references.fetch_timeout = self.references.fetch_timeout.max(fetch.timeout);
    }

    /// Runs `f`, where requests ask for the clusters that it refers to.
    pub(crate) fn on_demand<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.references.clusters.len();
        let result = f(self);
        let clusters = self.references.clusters.split_off(before);
        self.references.on_demand_clusters.extend(clusters);
        result
    }

    /// Runs `f` inside the field `name`.
    pub fn field<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        if !self.path.is_empty() && !name.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name.trim_start_matches("r#"));
        let result = f(self);
        self.path.truncate(len);
        result
    }

    /// Runs `f` inside element `index` of the list `name`.
    pub fn item<T>(&mut self, name: &str, index: usize, f: impl FnOnce(&mut Self) -> T) -> T {
        self.field(&format!("{name}[{index}]"), f)
    }

    /// Records that the field `name` (empty: the present one) is wrong.
    pub fn refuse(&mut self, name: &str, reason: impl Into<String>) -> Refused {
        let path = self.path_of(name);
        self.problems.push(Problem { path, reason: reason.into() });
        Refused(())
    }

    /// Records that a field which is set has no effect here. Only for fields that change neither security nor routing.
    pub fn ignored(&mut self, name: &str) {
        let path = self.path_of(name);
        self.ignored.push(path);
    }

    /// Takes over what another check (Envoy's validation rules) found.
    pub fn problem(&mut self, path: &str, reason: &str) {
        let path = self.path_of(path);
        self.problems.push(Problem { path, reason: reason.to_owned() });
    }

    /// Compiles every element of a list; stops at none, so that all problems are found.
    pub fn each<M, T>(
        &mut self,
        name: &str,
        items: &[M],
        mut f: impl FnMut(&M, &mut Self) -> Compiled<T>,
    ) -> Compiled<Vec<T>> {
        let results: Vec<Compiled<T>> =
            items.iter().enumerate().map(|(i, item)| self.item(name, i, |cx| f(item, cx))).collect();
        results.into_iter().collect()
    }

    /// Ends the compilation: the value, unless anything was found wrong. Ignored fields are logged and counted.
    ///
    /// # Errors
    /// Everything that was recorded.
    pub fn finish<T>(
        mut self,
        kind: &'static str,
        name: &str,
        value: Compiled<T>,
    ) -> Result<(T, References), Invalid> {
        match value {
            Ok(value) if self.problems.is_empty() => {
                for path in &self.ignored {
                    // A thousand clusters often set the same field: once is enough to know.
                    if self.inputs.told.insert(format!("{kind} {}", without_indexes(path))) {
                        tracing::warn!(target: "config", "{kind} '{name}': {path} is set but has no effect here");
                    } else {
                        tracing::debug!(target: "config", "{kind} '{name}': {path} is set but has no effect here");
                    }
                }
                self.inputs.stats.server().config_ignored_fields_total.inc_by(self.ignored.len() as u64);
                self.references.deduplicate();
                Ok((value, self.references))
            }
            _ => {
                let name = name.to_owned();
                Err(Invalid { kind, name, problems: self.problems, is_final: self.files.is_empty() })
            }
        }
    }

    fn path_of(&self, name: &str) -> String {
        let name = name.trim_start_matches("r#");
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (_, true) => self.path.clone(),
            _ if name.starts_with('[') => format!("{}{name}", self.path),
            _ => format!("{}.{name}", self.path),
        }
    }
}

/// `a[12].b` as `a[].b`.
fn without_indexes(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Whether a field differs from its protobuf default, that is: whether the configuration says anything.
pub(crate) trait IsSet {
    /// See the trait.
    fn is_set(&self) -> bool;
}

impl<T: IsSet + ?Sized> IsSet for &T {
    fn is_set(&self) -> bool {
        (**self).is_set()
    }
}

impl<T> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<T> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> IsSet for std::collections::HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for bool {
    fn is_set(&self) -> bool {
        *self
    }
}

macro_rules! numbers_are_set {
    ($($number:ty),*) => {
        $(impl IsSet for $number {
            fn is_set(&self) -> bool {
                *self != <$number>::default()
            }
        })*
    };
}

numbers_are_set!(i32, i64, u32, u64, f64);

/// Verdict "unsupported": refuses each of the named fields (bindings of a destructured message) that is set.
macro_rules! unsupported {
    ($cx:expr; $($field:ident),* $(,)?) => {
        $(if $crate::config::compile::cx::IsSet::is_set(&$field) {
            $cx.refuse(stringify!($field), "not supported");
        })*
    };
}

/// Verdict "harmless": notes each of the named fields that is set, and goes on.
macro_rules! ignored {
    ($cx:expr; $($field:ident),* $(,)?) => {
        $(if $crate::config::compile::cx::IsSet::is_set(&$field) {
            $cx.ignored(stringify!($field));
        })*
    };
}

/// Verdict "informational": the field describes the resource to people and tools, or has no effect without a field that is
/// refused; nothing here reads it.
macro_rules! informational {
    ($($field:ident),* $(,)?) => {
        $(let _ = $field;)*
    };
}

pub(crate) use {ignored, informational, unsupported};
