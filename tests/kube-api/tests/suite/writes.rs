//! Create, update, patch, delete, and what is wrong with them.

use http::Method;
use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

use crate::client::{Client, config_map, service};

const MAPS: &str = "/api/v1/namespaces/demo/configmaps";
const SERVICES: &str = "/api/v1/namespaces/demo/services";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/demo/leases";

async fn demo(server: &ApiServer) -> Client<'_> {
    let client = Client::new(server);
    client.namespace("demo").await;
    client
}

#[tokio::test]
async fn a_new_object_gets_what_only_the_server_writes() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let created = client.post(MAPS, &config_map("one", json!({"key": "x"}))).await;
    assert_eq!(created.status, 201);
    let metadata = &created.body["metadata"];
    assert_eq!(metadata["namespace"], "demo");
    assert_eq!(metadata["resourceVersion"], server.version().to_string());
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(metadata.get("generation").is_none());
    let again = client.post(MAPS, &config_map("one", json!({}))).await;
    assert_eq!(again.failure(), (409, "AlreadyExists", "configmaps \"one\" already exists"));
    assert_eq!(again.body["details"], json!({"name": "one", "kind": "configmaps"}));
    let mut generated = config_map("", json!({}));
    generated["metadata"] = json!({"generateName": "gen-"});
    let generated = client.post(MAPS, &generated).await.ok();
    assert_eq!(generated["metadata"]["name"].as_str().unwrap().len(), "gen-".len() + 5);
}

#[tokio::test]
async fn a_service_gets_addresses_and_defaults() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let created = client.post(SERVICES, &service("web", json!({}))).await.ok();
    let spec = &created["spec"];
    let address = spec["clusterIP"].as_str().unwrap();
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok());
    assert_eq!(spec["clusterIPs"], json!([address]));
    assert_eq!(spec["ports"], json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]));
    assert_eq!((&spec["type"], &spec["ipFamilyPolicy"]), (&json!("ClusterIP"), &json!("SingleStack")));
    assert_eq!((&spec["ipFamilies"], &spec["sessionAffinity"]), (&json!(["IPv4"]), &json!("None")));
    assert_eq!(created["status"], json!({"loadBalancer": {}}));
    // A PUT that leaves the address out keeps it.
    let replaced = client.put(&format!("{SERVICES}/web"), &service("web", json!({"a": "b"}))).await.ok();
    assert_eq!(replaced["spec"]["clusterIP"], address);

    let headless = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    let headless = client.post(SERVICES, &headless).await.ok();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(headless["spec"]["ports"][0]["targetPort"], 80);

    let mut both = service("both", json!({}));
    both["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
    let both = client.post(SERVICES, &both).await.ok();
    assert_eq!(both["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn updates_are_guarded_by_version_and_uid() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let one = format!("{MAPS}/one");
    let first = client.post(MAPS, &config_map("one", json!({"key": "x"}))).await.ok();
    let unconditional = client.put(&one, &config_map("one", json!({"key": "y"}))).await.ok();
    assert_eq!(unconditional["data"]["key"], "y");

    let mut stale = first.clone();
    stale["data"]["key"] = "z".into();
    let conflict = client.put(&one, &stale).await;
    assert_eq!(
        conflict.failure(),
        (
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your \
             changes to the latest version and try again"
        )
    );
    let version = &first["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"key": "z"}});
    assert_eq!(client.merge(&one, &patch).await.status, 409);
    let mut other = config_map("one", json!({}));
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001".into();
    let conflict = client.put(&one, &other).await;
    assert!(conflict.failure().2.contains("Precondition failed: UID in precondition"), "{}", conflict.text);

    // What changes nothing is not written.
    let same = client.put(&one, &config_map("one", json!({"key": "y"}))).await.ok();
    assert_eq!(same["metadata"]["resourceVersion"], unconditional["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    client.post(MAPS, &config_map("one", json!({}))).await.ok();
    let one = format!("{MAPS}/one");
    let missing = format!("{MAPS}/none");
    let not_found = (404, "NotFound", "configmaps \"none\" not found");
    assert_eq!(client.get(&missing).await.failure(), not_found);
    assert_eq!(client.delete(&missing).await.failure(), not_found);
    assert_eq!(client.put(&missing, &config_map("none", json!({}))).await.failure(), not_found);
    assert_eq!(
        client.put(&one, &config_map("two", json!({}))).await.failure().2,
        "the name of the object (two) does not match the name on the URL (one)"
    );
    let mut elsewhere = config_map("two", json!({}));
    elsewhere["metadata"]["namespace"] = "default".into();
    assert_eq!(
        client.post(MAPS, &elsewhere).await.failure().2,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let nowhere = client.post("/api/v1/namespaces/nonexistent/configmaps", &config_map("a", json!({}))).await;
    assert_eq!(nowhere.failure(), (404, "NotFound", "namespaces \"nonexistent\" not found"));
    assert_eq!(
        client.post(MAPS, &service("wrong", json!({}))).await.failure().2,
        "Service in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Service) to (core.ConfigMap): \
         unknown conversion"
    );
    let broken = client.send(Method::POST, MAPS, "application/json", "{\"apiVersion\": \"v1\", ").await;
    assert_eq!(
        broken.failure().2,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse \
         error: unexpected end of JSON input ({\"apiVersion\": \"v1\", )"
    );
    let text = client.send(Method::POST, MAPS, "text/plain", "hello").await;
    assert_eq!((text.status, text.failure().1), (415, "UnsupportedMediaType"));
    let collection = client.put(MAPS, &config_map("one", json!({}))).await;
    assert_eq!((collection.failure().0, &collection.body["details"]), (405, &json!({})));
    let name = client.post(MAPS, &config_map("Not_Valid", json!({}))).await;
    assert!(name.failure().2.starts_with(
        "ConfigMap \"Not_Valid\" is invalid: metadata.name: Invalid value: \"Not_Valid\": a lowercase RFC 1123 \
         subdomain must consist of lower case alphanumeric characters"
    ));
    let dry = client.post(&format!("{MAPS}?dryRun=Some"), &config_map("a", json!({}))).await;
    assert_eq!(dry.causes(), [("dryRun", "Unsupported value: [\"Some\"]: supported values: \"All\"")]);
    let validation = client.post(&format!("{MAPS}?fieldValidation=Maybe"), &config_map("a", json!({}))).await;
    assert_eq!(validation.causes()[0].0, "fieldValidation");
}

#[tokio::test]
async fn kinds_are_validated() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices";
    let slice = |endpoints: Value| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"},
               "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}]})
    };
    let invalid = client.post(slices, &slice(json!([{"addresses": ["not-an-ip"]}, {"addresses": []}]))).await;
    assert_eq!(
        invalid.failure().2,
        "EndpointSlice.discovery.k8s.io \"s\" is invalid: [endpoints[0].addresses[0]: Invalid value: \"not-an-ip\": \
         must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff), endpoints[1].addresses: Required value: must \
         contain at least 1 address]"
    );
    assert_eq!(invalid.body["details"]["group"], "discovery.k8s.io");
    let created = client.post(slices, &slice(json!([{"addresses": ["10.0.0.1"]}]))).await.ok();
    assert_eq!(created["metadata"]["generation"], 1);
    let immutable = client.merge(&format!("{slices}/s"), &json!({"addressType": "IPv6"})).await;
    assert_eq!(immutable.causes(), [("addressType", "Invalid value: \"IPv6\": field is immutable")]);
    let mut bad = service("bad", json!({}));
    bad["spec"] = json!({"clusterIP": "1.2.3.4.5", "ports": []});
    assert_eq!(client.post(SERVICES, &bad).await.causes()[0].0, "spec.clusterIPs[0]");
}

#[tokio::test]
async fn status_has_its_own_door() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let mut balancer = service("lb", json!({}));
    balancer["spec"]["type"] = "LoadBalancer".into();
    balancer["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let created = client.post(SERVICES, &balancer).await.ok();
    assert_eq!(created["status"], json!({"loadBalancer": {}}));
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}});
    let main = client.merge(&format!("{SERVICES}/lb"), &patch).await.ok();
    assert_eq!(main["status"], json!({"loadBalancer": {}}));
    let status = client.merge(&format!("{SERVICES}/lb/status"), &patch).await.ok();
    assert_eq!(status["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.10", "ipMode": "VIP"}]));
    client.post(SERVICES, &service("web", json!({}))).await.ok();
    let refused = client.merge(&format!("{SERVICES}/web/status"), &patch).await;
    assert_eq!(refused.causes()[0].0, "status.loadBalancer.ingress");
}

#[tokio::test]
async fn patches() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    client.post(SERVICES, &service("api", json!({}))).await.ok();
    let path = format!("{SERVICES}/api");
    let strategic = json!({"spec": {"ports": [{"name": "metrics", "port": 9090}]}});
    let merged = client.patch(&path, "strategic-merge-patch+json", &strategic).await.ok();
    let names: Vec<&Value> =
        merged["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
    assert_eq!(names, ["metrics", "http"]);
    let json = json!([{"op": "test", "path": "/spec/ports/0/name", "value": "metrics"},
        {"op": "remove", "path": "/spec/ports/0"}, {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]);
    let patched = client.patch(&path, "json-patch+json", &json).await.ok();
    assert_eq!(patched["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(patched["metadata"]["labels"]["a"], "b");
    for bad in [
        json!([{"op": "test", "path": "/spec/type", "value": "x"}]),
        json!([{"op": "remove", "path": "/nope/x"}]),
    ] {
        let rejected = client.patch(&path, "json-patch+json", &bad).await;
        assert_eq!(
            rejected.failure(),
            (422, "Invalid", "the server rejected our request due to an error in our request")
        );
        assert_eq!(rejected.body["details"], json!({}));
    }
    assert_eq!(client.patch(&path, "json", &json!({})).await.status, 415);
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let version = server.version();
    let dry = client.post(&format!("{MAPS}?dryRun=All"), &config_map("dry", json!({}))).await;
    assert_eq!(dry.status, 201);
    assert!(dry.body["metadata"].get("resourceVersion").is_none());
    assert!(dry.body["metadata"].get("uid").is_some());
    assert_eq!(client.get(&format!("{MAPS}/dry")).await.status, 404);
    assert_eq!(server.version(), version);
    client.post(MAPS, &config_map("kept", json!({}))).await.ok();
    let patched = client.merge(&format!("{MAPS}/kept?dryRun=All"), &json!({"data": {"a": "b"}})).await.ok();
    assert_eq!(patched["data"]["a"], "b");
    assert_eq!(client.delete(&format!("{MAPS}/kept?dryRun=All")).await.ok()["status"], "Success");
    assert!(
        client.get(&format!("{MAPS}/kept")).await.ok().get("data").is_none_or(|data| data.get("a").is_none())
    );
}

#[tokio::test]
async fn deletes() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let created = client.post(MAPS, &config_map("del", json!({}))).await.ok();
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000001"}});
    let conflict = client.delete_with(&format!("{MAPS}/del"), &wrong).await;
    assert_eq!(conflict.failure().0, 409);
    assert!(
        conflict
            .failure()
            .2
            .starts_with("Operation cannot be fulfilled on ConfigMap \"del\": the UID in the")
    );
    let deleted = client.delete(&format!("{MAPS}/del")).await.ok();
    assert_eq!(
        deleted,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
               "details": {"name": "del", "kind": "configmaps", "uid": created["metadata"]["uid"]}})
    );
    // A service answers with itself, at the version of its deletion.
    client.post(SERVICES, &service("web", json!({}))).await.ok();
    let deleted = client.delete(&format!("{SERVICES}/web")).await.ok();
    assert_eq!(deleted["kind"], "Service");
    assert_eq!(deleted["metadata"]["resourceVersion"], server.version().to_string());

    for name in ["c0", "c1", "other"] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = json!({"c": if name == "other" { "2" } else { "1" }});
        client.post(MAPS, &map).await.ok();
    }
    let deleted = client.delete(&format!("{MAPS}?labelSelector=c%3D1")).await;
    assert_eq!(deleted.names(), ["c0", "c1"]);
    assert_eq!(client.get(MAPS).await.names(), ["other"]);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let mut map = config_map("fin", json!({}));
    map["metadata"]["finalizers"] = json!(["mesh.example.dev/cleanup"]);
    client.post(MAPS, &map).await.ok();
    let fin = format!("{MAPS}/fin");
    let marked = client.delete(&fin).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again =
        client.merge(&fin, &json!({"metadata": {"finalizers": ["mesh.example.dev/cleanup", "a.b/c"]}})).await;
    assert_eq!(again.status, 422);
    let last = client.merge(&fin, &json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(last["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    assert_eq!(client.get(&fin).await.status, 404);
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let owner = client.post(MAPS, &config_map("owner", json!({}))).await.ok();
    let other = client.post(MAPS, &config_map("other", json!({}))).await.ok();
    let reference = |of: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": of["metadata"]["name"], "uid": of["metadata"]["uid"]});
    let owned = async |name: &str, owners: Value| {
        let mut map = config_map(name, json!({}));
        map["metadata"]["ownerReferences"] = owners;
        client.post(MAPS, &map).await.ok()
    };
    let child = owned("child", json!([reference(&owner)])).await;
    owned("grandchild", json!([reference(&child)])).await;
    owned("shared", json!([reference(&owner), reference(&other)])).await;
    client.delete(&format!("{MAPS}/owner")).await.ok();
    assert_eq!(client.get(MAPS).await.names(), ["other", "shared"]);
    let shared = client.get(&format!("{MAPS}/shared")).await.ok();
    assert_eq!(shared["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    // And everything goes with its namespace.
    client.delete("/api/v1/namespaces/demo").await.ok();
    assert_eq!(client.get("/api/v1/configmaps").await.names(), [] as [&str; 0]);
    assert_eq!(client.get("/api/v1/namespaces/demo").await.status, 404);
}

#[tokio::test]
async fn a_running_pod_is_deleted_by_its_kubelet() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let pods = "/api/v1/namespaces/demo/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "node-a", "terminationGracePeriodSeconds": 7,
                 "containers": [{"name": "app", "image": "app:1"}]}});
    let created = client.post(pods, &pod).await.ok();
    assert_eq!(created["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let mount = &created["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(created["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    let marked = client.delete(&format!("{pods}/web")).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
    assert_eq!(client.get(&format!("{pods}/web")).await.status, 200);
    let gone = client.delete_with(&format!("{pods}/web"), &json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(gone["kind"], "Pod");
    assert_eq!(client.get(&format!("{pods}/web")).await.status, 404);
}

#[tokio::test]
async fn a_lease_elects_one_leader() {
    let server = ApiServer::start();
    let client = demo(&server).await;
    let lease = |holder: &str, version: Option<&Value>| {
        let mut lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0,
                     "acquireTime": "2026-11-21T04:00:00.000000Z", "renewTime": "2026-11-21T04:00:00.000000Z"}});
        if let Some(version) = version {
            lease["metadata"]["resourceVersion"] = version.clone();
        }
        lease
    };
    let leader = format!("{LEASES}/leader");
    assert_eq!(
        client.get(&leader).await.failure(),
        (404, "NotFound", "leases.coordination.k8s.io \"leader\" not found")
    );
    let first = client.post(LEASES, &lease("a", None)).await.ok();
    let version = &first["metadata"]["resourceVersion"];
    assert_eq!(client.post(LEASES, &lease("b", None)).await.failure().1, "AlreadyExists");
    let renewed = client.put(&leader, &lease("a2", Some(version))).await.ok();
    assert_ne!(&renewed["metadata"]["resourceVersion"], version);
    assert_eq!(client.put(&leader, &lease("b", Some(version))).await.failure().1, "Conflict");
    let unguarded = client.put(&leader, &lease("b", None)).await;
    assert_eq!(
        unguarded.failure().2,
        "leases.coordination.k8s.io \"leader\" is invalid: metadata.resourceVersion: Invalid value: 0: must be \
         specified for an update"
    );
    let invalid = client.merge(&leader, &json!({"spec": {"leaseDurationSeconds": 0}})).await;
    assert_eq!(
        invalid.failure().2,
        "Lease.coordination.k8s.io \"leader\" is invalid: spec.leaseDurationSeconds: Invalid value: 0: must be \
         greater than 0"
    );
}
