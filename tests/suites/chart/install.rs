//! The chart's life in a cluster: installed, upgraded, rolled back and removed by the real Helm, on the API server of the
//! tests.

use outrigger_kube_api::{ApiServer, Collection, TokenSpec};
use outrigger_tests::helm::{Helm, Release, Session};
use outrigger_tests::wait::until;
use serde_json::{Value, json};

use crate::running::Running;

/// An API server, and Helm with its kubeconfig.
struct Cluster {
    server: ApiServer,
    helm: Helm,
    session: Session,
    _kubeconfig: tempfile::NamedTempFile,
}

impl Cluster {
    #[track_caller]
    fn start() -> Option<Self> {
        let helm = Helm::find()?;
        let server = ApiServer::start();
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), server.kubeconfig()).unwrap();
        let session = helm.session(kubeconfig.path());
        Some(Cluster { server, helm, session, _kubeconfig: kubeconfig })
    }

    /// The stored object of the same kind and name.
    fn stored(&self, object: &Value) -> Option<Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api_version = text(&object["apiVersion"]);
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let kind = text(&object["kind"]).to_lowercase();
        let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
        let collection = Collection::new(group, &plural);
        self.server.get(
            &collection,
            &text(&object["metadata"]["namespace"]),
            &text(&object["metadata"]["name"]),
        )
    }

    /// What Helm installs of a release: all but its test.
    fn objects(&self, release: &Release) -> Vec<Value> {
        let rendered = self.helm.render(release);
        rendered.objects.into_iter().filter(|object| object["kind"] != "Pod").collect()
    }

    fn replicas(&self, release: &Release) -> Option<u64> {
        let deployment = self.objects(release).into_iter().find(|object| object["kind"] == "Deployment")?;
        self.stored(&deployment)?["spec"]["replicas"].as_u64()
    }

    /// What the control plane does at its start: its certificate goes into both webhook configurations.
    fn trust_webhooks(&self, release: &Release) {
        for object in self.webhook_configurations(release) {
            let mut stored = self.stored(&object).unwrap();
            for webhook in stored["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["caBundle"] = json!("Q0E=");
            }
            self.server.put(stored).unwrap();
        }
    }

    fn webhook_configurations(&self, release: &Release) -> Vec<Value> {
        let mut objects = self.objects(release);
        objects.retain(|object| {
            object["kind"].as_str().is_some_and(|kind| kind.ends_with("WebhookConfiguration"))
        });
        objects
    }

    #[track_caller]
    fn assert_trusted(&self, release: &Release) {
        let configurations = self.webhook_configurations(release);
        assert_eq!(configurations.len(), 2);
        for object in configurations {
            let stored = self.stored(&object).unwrap();
            for webhook in stored["webhooks"].as_array().unwrap() {
                assert_eq!(
                    webhook["clientConfig"]["caBundle"], "Q0E=",
                    "{}: {}",
                    object["kind"], webhook["name"]
                );
            }
        }
    }
}

#[test]
fn installed_upgraded_rolled_back_and_removed() {
    let Some(mut cluster) = Cluster::start() else { return };
    let first = Release::new(json!({}));
    let installed = cluster.session.act("install", &first, json!({})).unwrap();
    assert_eq!((&installed["status"], &installed["revision"]), (&json!("deployed"), &json!(1)));
    for object in cluster.objects(&first) {
        assert!(cluster.stored(&object).is_some(), "not stored: {object}");
    }
    let definitions = Collection::new("apiextensions.k8s.io", "customresourcedefinitions");
    assert!(cluster.server.get(&definitions, "", "trafficpolicies.outrigger.dev").is_some());
    assert_eq!(cluster.replicas(&first), Some(1));
    cluster.trust_webhooks(&first);

    let second = Release::new(json!({
        "controlPlane": {"replicas": 3},
        "webhooks": {"injection": {"timeoutSeconds": 5}},
        "networkPolicy": {"enabled": false},
    }));
    let upgraded = cluster.session.act("upgrade", &second, json!({})).unwrap();
    assert_eq!((&upgraded["status"], &upgraded["revision"]), (&json!("deployed"), &json!(2)));
    assert_eq!(cluster.replicas(&first), Some(3));
    let policy =
        cluster.objects(&first).into_iter().find(|object| object["kind"] == "NetworkPolicy").unwrap();
    assert!(cluster.stored(&policy).is_none(), "what a value switches off goes");
    for object in cluster
        .webhook_configurations(&first)
        .iter()
        .filter(|it| it["kind"] == "MutatingWebhookConfiguration")
    {
        assert_eq!(cluster.stored(object).unwrap()["webhooks"][0]["timeoutSeconds"], 5);
    }
    // Otherwise Pods would be refused from each upgrade to the next start of the control plane.
    cluster.assert_trusted(&first);

    cluster.session.act("rollback", &first, json!({"revision": 1})).unwrap();
    assert_eq!(cluster.replicas(&first), Some(1));
    assert!(cluster.stored(&policy).is_some());
    cluster.assert_trusted(&first);
    let history = cluster.session.act("history", &first, json!({})).unwrap();
    let revisions: Vec<&Value> = history.as_array().unwrap().iter().map(|it| &it["revision"]).collect();
    assert_eq!(revisions, [1, 2, 3]);

    cluster.session.act("uninstall", &first, json!({})).unwrap();
    for object in cluster.objects(&first) {
        assert!(cluster.stored(&object).is_none(), "left behind: {object}");
    }
}

#[test]
fn two_revisions_live_side_by_side() {
    let Some(mut cluster) = Cluster::start() else { return };
    let stable = Release::new(json!({}));
    let canary = Release { name: "canary".into(), ..Release::new(json!({"revision": "canary"})) };
    for release in [&stable, &canary] {
        cluster.session.act("install", release, json!({})).unwrap();
    }
    cluster.session.act("uninstall", &canary, json!({})).unwrap();
    for object in cluster.objects(&stable) {
        assert!(cluster.stored(&object).is_some(), "went with the other revision: {object}");
    }
    for object in cluster.objects(&canary) {
        assert!(cluster.stored(&object).is_none(), "left behind: {object}");
    }
}

#[test]
fn wrong_values_store_nothing() {
    let Some(mut cluster) = Cluster::start() else { return };
    let wrong = Release::new(json!({"controlPlane": {"replicas": -1}}));
    let error = cluster.session.act("install", &wrong, json!({})).unwrap_err();
    assert!(error.contains("/controlPlane/replicas"), "{error}");
    for object in cluster.objects(&Release::new(json!({}))) {
        assert!(cluster.stored(&object).is_none(), "{object}");
    }
}

/// A rule kind as a CustomResourceDefinition.
fn definition(kind: &str, plural: &str, group: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

/// The rights are enough to read all that the mesh is made of, and those of another account are not.
#[test]
fn the_control_plane_serves_with_the_rights_of_the_chart() {
    let Some(mut cluster) = Cluster::start() else { return };
    for definition in [
        definition("HTTPRoute", "httproutes", "gateway.networking.k8s.io", "v1"),
        definition("GRPCRoute", "grpcroutes", "gateway.networking.k8s.io", "v1"),
        definition("ReferenceGrant", "referencegrants", "gateway.networking.k8s.io", "v1"),
        definition("VirtualService", "virtualservices", "networking.istio.io", "v1"),
        definition("DestinationRule", "destinationrules", "networking.istio.io", "v1"),
        definition("ServiceEntry", "serviceentries", "networking.istio.io", "v1"),
        definition("WorkloadEntry", "workloadentries", "networking.istio.io", "v1"),
        definition("WorkloadGroup", "workloadgroups", "networking.istio.io", "v1"),
        definition("PeerAuthentication", "peerauthentications", "security.istio.io", "v1"),
    ] {
        cluster.server.put(definition).unwrap();
    }
    let release = Release::new(json!({}));
    cluster.session.act("install", &release, json!({})).unwrap();
    let stranger = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "stranger", "namespace": release.namespace}});
    cluster.server.put(stranger).unwrap();
    let start = |account: &str| {
        let token = cluster.server.token(&TokenSpec {
            namespace: release.namespace.clone(),
            service_account: account.into(),
            audiences: Vec::new(),
            expires_in: 3600,
            pod: None,
        });
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            kubeconfig.path(),
            cluster.server.kubeconfig_with(&cluster.server.url(), &token.unwrap()),
        )
        .unwrap();
        let flags = ["--source=kubernetes".into(), format!("--kubeconfig={}", kubeconfig.path().display())];
        (Running::start(&flags), kubeconfig)
    };
    let (control_plane, _kubeconfig) = start("outrigger-control-plane");
    control_plane.until_ready();
    let (refused, _kubeconfig) = start("stranger");
    until("it says that it may not", || {
        let (status, text) = refused.readiness();
        assert_eq!(status, 503);
        text.contains("forbidden")
    });
}
