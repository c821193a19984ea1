//! Callers in two namespaces, two versions of `reviews`, and requests and answers that are written in one line.
//!
//! A request: `[POD>] [METHOD] PATH [NAME:VALUE]...`, by default a GET of `web-0`; `//HOST/PATH` for another host than
//! `reviews:9080`. An answer: the status, the body, and what else a rule may change: the location, the status of gRPC, headers
//! that begin with `x-`. `reviews` answers with the pod's name and what the request's header `echo` names of what arrived.

use std::collections::BTreeMap;

use outrigger_tests::mesh::{APP_PORT, Mesh};
use outrigger_tests::message::{Request, Response};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};

/// The caller and both versions.
const PODS: [(&str, &str, &str); 3] =
    [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1"), ("reviews-1", "reviews", "v2")];

/// Others that call: one with another label, one in another namespace.
const CALLERS: [(&str, &str, &str); 2] = [("web-1", "web", "v2"), ("client/guest-0", "guest", "v1")];

/// The rules of an HTTPRoute of `reviews`.
pub(crate) fn http_route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules:\n{rules}"
    )
}

/// The `http` of a VirtualService of `reviews`.
pub(crate) fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n{http}"
    )
}

/// `reviews` of one version, as a backend and as a destination.
pub(crate) fn backend(version: &str) -> String {
    format!("{{name: reviews-{version}, port: {APP_PORT}}}")
}

pub(crate) fn destination(version: &str) -> String {
    format!("{{destination: {{host: reviews-{version}, port: {{number: {APP_PORT}}}}}}}")
}

pub(crate) struct World(pub(crate) Mesh);

impl World {
    /// With one caller.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::of(&PODS)
    }

    /// With all callers.
    #[track_caller]
    pub(crate) fn with_callers() -> Self {
        Self::of(&[&PODS[..], &CALLERS].concat())
    }

    /// With these pods as `(pod, app, version)`.
    #[track_caller]
    pub(crate) fn of(pods: &[(&str, &str, &str)]) -> Self {
        let world = Self(Mesh::start(pods, ""));
        world.answer_as_usual();
        world
    }

    /// Each application answers with its pod's name and what `echo` asks for.
    pub(crate) fn answer_as_usual(&self) {
        for workload in &self.0.workloads {
            let name = workload.pod.clone();
            workload
                .upstream
                .answer_with(move |request| Reply::status(200, &(name.clone() + &echoed(request))));
        }
    }

    pub(crate) fn ask(&self, path: &str, headers: &str) -> Response {
        self.request("GET", path, headers)
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &str) -> Response {
        self.send("web-0", &format!("reviews:{APP_PORT}"), &format!("{method} {path}"), headers)
    }

    fn send(&self, from: &str, host: &str, line: &str, headers: &str) -> Response {
        let mut client = RawClient::connect(self.0.workload(from).outbound()).unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        client.send(head.as_bytes());
        client.response().unwrap()
    }

    /// Puts these rules in the place of all others, and waits until every caller follows them.
    ///
    /// They come with a rule that answers for a host of its own. All rules of a sidecar for requests are one resource, so they are in
    /// force when that one is.
    #[track_caller]
    pub(crate) fn apply(&self, rules: &str) {
        let mark = format!("{:x}", fastrand::u64(..));
        let marker = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: in-force, namespace: default}\nspec:\n  \
                      hosts: [in-force.example]\n  http: [{directResponse: {status: 200, body: {string: ";
        self.0.write("more.yaml", &format!("{marker}\"{mark}\"}}}}}}]\n---\n{rules}"));
        let callers =
            self.0.workloads.iter().filter(|workload| ["web", "guest"].contains(&workload.app.as_str()));
        for caller in callers {
            let in_force = || self.send(&caller.pod, "in-force.example", "GET /", "").text() == mark;
            wait::until("the rules", in_force);
        }
        let page = self.0.control_plane.page("/proxies").text();
        assert!(!page.contains("\"nacked\""), "{rules}\n{page}");
    }

    /// Puts rules into force, one after the other, and checks each.
    #[track_caller]
    pub(crate) fn each(&self, rules: &[String], check: impl Fn(&Self)) {
        for rule in rules {
            self.apply(rule);
            self.0.workloads.iter().for_each(|workload| drop(workload.upstream.take_requests()));
            check(self);
        }
    }

    /// Puts rules into force and sends requests, each with the answer that it must get.
    #[track_caller]
    pub(crate) fn table(&self, rules: &str, rows: &[(&str, &str)]) {
        self.apply(rules);
        for (request, answer) in rows {
            assert_eq!(self.answer(request), *answer, "{request}\n{rules}");
        }
    }

    /// The answer to a request in one line.
    pub(crate) fn answer(&self, request: &str) -> String {
        let (from, rest) = request.split_once("> ").unwrap_or(("web-0", request));
        let (method, rest) = match rest.starts_with('/') {
            true => ("GET", rest),
            false => rest.split_once(' ').unwrap(),
        };
        let mut words = rest.split(' ');
        let target = words.next().unwrap();
        let headers: String = words.map(|word| word.replacen(':', ": ", 1) + "\r\n").collect();
        let own = format!("reviews:{APP_PORT}");
        let (host, path) = match target.strip_prefix("//") {
            Some(other) => other.split_at(other.find('/').unwrap()),
            None => (own.as_str(), target),
        };
        shown(&self.send(from, host, &format!("{method} {path}"), &headers))
    }

    /// How many of so many requests get each answer.
    pub(crate) fn answers(&self, request: &str, count: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            *answers.entry(self.answer(request)).or_default() += 1;
        }
        answers
    }

    pub(crate) fn taken(&self, pod: &str) -> Vec<Request> {
        self.0.workload(pod).upstream.take_requests()
    }

    /// What the control plane says of an object beside `accepted`: each finding with its field.
    pub(crate) fn findings(&self, object: &str) -> Vec<String> {
        let page: serde_json::Value =
            serde_json::from_str(&self.0.control_plane.page("/rejections").text()).unwrap();
        let rows = ["rejections", "problems"].map(|list| page[list].as_array().cloned().unwrap());
        let of_object = rows.concat().into_iter().filter(|row| {
            let key = &row["object"];
            format!("{} {}/{}", key["kind"], key["namespace"], key["name"]).replace('"', "") == object
        });
        of_object.map(|row| format!("{}: {}", row["field"], row["reason"]).replace('"', "")).collect()
    }
}

/// What the header `echo` asks for: the `target`, or headers.
fn echoed(request: &Request) -> String {
    let asked = request.headers.get("echo").unwrap_or_default().split(',').filter(|name| !name.is_empty());
    let value = |name| match name {
        "target" => &request.target,
        name => request.headers.get(name).unwrap_or("-"),
    };
    asked.map(|name| format!(" {name}={}", value(name))).collect()
}

fn shown(response: &Response) -> String {
    let mut shown = format!("{} {}", response.status, response.text());
    let is_told = |name: &str| {
        ["location", "grpc-status"].contains(&name) || name.starts_with("x-") && !name.starts_with("x-envoy-")
    };
    let mut told: Vec<_> = response.headers.0.iter().filter(|(name, _)| is_told(name)).collect();
    told.sort();
    for (name, value) in told {
        shown.push_str(&format!(" {name}={value}"));
    }
    shown.trim_end().to_owned()
}
