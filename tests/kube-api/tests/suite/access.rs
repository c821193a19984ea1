//! Tokens and roles.

use outrigger_kube_api::{ApiServer, TokenSpec};
use serde_json::{Value, json};

use crate::client::{Answer, Client};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://kubernetes.default.svc";

/// A server with the service accounts `demo/web` and `demo/nobody`, and a pod of `web` on a node.
fn demo() -> ApiServer {
    let server = ApiServer::start();
    for name in ["web", "nobody"] {
        server
            .put(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "demo"}}))
            .unwrap();
    }
    server.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}})).unwrap();
    server
        .put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "demo"},
            "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": [{"name": "c", "image": "i:1"}]}}))
        .unwrap();
    server
}

fn spec(service_account: &str, audiences: &[&str]) -> TokenSpec {
    TokenSpec {
        namespace: "demo".into(),
        service_account: service_account.into(),
        audiences: audiences.iter().map(|one| (*one).to_owned()).collect(),
        expires_in: 3600,
        pod: None,
    }
}

async fn review(client: &Client<'_>, token: &str, audiences: &[&str]) -> Answer {
    let mut spec = json!({"token": token});
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    client.post(REVIEWS, &review).await
}

async fn error_of(client: &Client<'_>, token: &str, audiences: &[&str]) -> String {
    let status = review(client, token, audiences).await.ok()["status"].clone();
    assert!(status.get("authenticated").is_none());
    assert_eq!(status["user"], json!({}));
    status["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_is_judged_for_an_audience() {
    let server = demo();
    let client = Client::new(&server);
    let token = server.token(&spec("web", &["mesh-ca"])).unwrap();
    let answer = review(&client, &token, &["other", "mesh-ca"]).await;
    assert_eq!(answer.status, 201);
    let status = answer.ok()["status"].clone();
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["mesh-ca"])));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:demo:web");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:demo", "system:authenticated"])
    );
    let credential = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(credential.starts_with("JTI="));

    assert_eq!(
        error_of(&client, &token, &["other"]).await,
        "[invalid bearer token, token audiences [\"mesh-ca\"] is invalid for the target audiences [\"other\"]]"
    );
    assert!(error_of(&client, &token, &[]).await.contains(ISSUER));
    assert_eq!(error_of(&client, "garbage", &["mesh-ca"]).await, "invalid bearer token");
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(
        error_of(&client, &format!("{signed}.AAAA"), &["mesh-ca"]).await,
        "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]"
    );
    let expired = server.token(&TokenSpec { expires_in: -1, ..spec("web", &["mesh-ca"]) }).unwrap();
    assert!(error_of(&client, &expired, &["mesh-ca"]).await.contains("expired"));
    let own = server.token(&spec("web", &[])).unwrap();
    assert_eq!(review(&client, &own, &[]).await.ok()["status"]["audiences"], json!([ISSUER]));
    assert_eq!(
        review(&client, "", &[]).await.failure(),
        (400, "BadRequest", "token is required for TokenReview in authentication")
    );
    assert_eq!(client.get(REVIEWS).await.failure().0, 405);
}

#[tokio::test]
async fn a_bound_token_dies_with_its_pod() {
    let server = demo();
    let client = Client::new(&server);
    let token = server.token(&TokenSpec { pod: Some("web-0".into()), ..spec("web", &["mesh-ca"]) }).unwrap();
    let status = review(&client, &token, &["mesh-ca"]).await.ok()["status"].clone();
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["web-0"]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["node-a"]));
    assert!(extra["authentication.kubernetes.io/pod-uid"][0].is_string());
    client.delete_with("/api/v1/namespaces/demo/pods/web-0", &json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(
        error_of(&client, &token, &["mesh-ca"]).await,
        "[invalid bearer token, service account token has been invalidated]"
    );
}

#[tokio::test]
async fn tokens_are_asked_for_by_the_kubelet() {
    let server = demo();
    let client = Client::new(&server);
    let ask = async |account: &str, spec: Value| {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        client.post(&format!("/api/v1/namespaces/demo/serviceaccounts/{account}/token"), &request).await
    };
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "web-0"});
    let given =
        ask("web", json!({"audiences": ["mesh-ca"], "expirationSeconds": 3600, "boundObjectRef": bound}))
            .await;
    assert_eq!(given.status, 201);
    let given = given.ok();
    assert!(given["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'));
    let token = given["status"]["token"].as_str().unwrap();
    assert_eq!(review(&client, token, &["mesh-ca"]).await.ok()["status"]["authenticated"], true);
    let short = ask("web", json!({"expirationSeconds": 60})).await;
    assert_eq!(
        short.failure().2,
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not \
         specify a duration less than 10 minutes"
    );
    assert_eq!(
        ask("nobody", json!({"boundObjectRef": bound})).await.failure().2,
        "cannot bind token for serviceaccount \"nobody\" to pod running with different serviceaccount name."
    );
    assert_eq!(
        ask("missing", json!({})).await.failure(),
        (404, "NotFound", "serviceaccounts \"missing\" not found")
    );
}

#[tokio::test]
async fn only_what_a_role_allows_is_allowed() {
    let server = demo();
    let admin = Client::new(&server);
    let token = server.token(&spec("web", &[])).unwrap();
    let client = Client::with_token(&server, &token);
    let pods = "/api/v1/namespaces/demo/pods";
    assert_eq!(
        client.get(pods).await.failure(),
        (
            403,
            "Forbidden",
            "pods is forbidden: User \"system:serviceaccount:demo:web\" cannot list resource \"pods\" in API group \"\" \
             in the namespace \"demo\""
        )
    );
    let slice = client.get("/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices/web-1").await;
    assert_eq!(
        slice.body["details"],
        json!({"name": "web-1", "group": "discovery.k8s.io", "kind": "endpointslices"})
    );
    let denied = review(&client, "x", &[]).await;
    assert!(denied.failure().2.ends_with(
        "cannot create resource \"tokenreviews\" in API group \
        \"authentication.k8s.io\" at the cluster scope"
    ));

    let rbac = "rbac.authorization.k8s.io";
    let subjects = json!([{"kind": "ServiceAccount", "name": "web", "namespace": "demo"}]);
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["get", "list"]}]});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "reader"},
        "subjects": subjects, "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"}});
    let path = format!("/apis/{rbac}/v1/namespaces/demo");
    admin.post(&format!("{path}/roles"), &role).await.ok();
    admin.post(&format!("{path}/rolebindings"), &binding).await.ok();
    assert_eq!(client.get(pods).await.names(), ["web-0"]);
    assert_eq!(client.get(&format!("{pods}/web-0/status")).await.status, 200);
    assert_eq!(client.get(&format!("{pods}?watch=1")).await.failure().0, 403);
    assert_eq!(client.get("/api/v1/namespaces/default/pods").await.status, 403);
    assert_eq!(client.get("/api/v1/pods").await.status, 403);

    let delegator = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": "web:auth-delegator"}, "subjects": subjects,
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:auth-delegator"}});
    admin.post(&format!("/apis/{rbac}/v1/clusterrolebindings"), &delegator).await.ok();
    assert_eq!(review(&client, "x", &[]).await.status, 201);
}

#[tokio::test]
async fn a_token_for_somebody_else_opens_nothing() {
    let server = demo();
    let token = server.token(&spec("web", &["mesh-ca"])).unwrap();
    let answer = Client::with_token(&server, &token).get("/api/v1/namespaces/demo/services").await;
    assert_eq!(answer.failure(), (401, "Unauthorized", "Unauthorized"));
}

#[tokio::test]
async fn access_can_be_asked_about() {
    let server = demo();
    let token = server.token(&spec("web", &[])).unwrap();
    let attributes = json!({"verb": "list", "resource": "services", "namespace": "demo"});
    let own = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = Client::with_token(&server, &token).post(path, &own).await.ok();
    assert_eq!(answer["status"]["allowed"], false);
    assert_eq!(Client::new(&server).post(path, &own).await.ok()["status"]["allowed"], true);
    let other = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "system:serviceaccount:demo:web", "resourceAttributes": attributes}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(Client::new(&server).post(path, &other).await.ok()["status"]["allowed"], false);
}
