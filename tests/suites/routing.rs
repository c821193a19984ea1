//! Routing rules as a user writes them, from the file to what client and upstream see, through two sidecars: the same by Gateway
//! API's HTTPRoute and by Istio's VirtualService where both can say it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_tests::mesh::{APP_PORT, Mesh};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, Response, wait};

const PODS: [(&str, &str, &str); 3] =
    [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1"), ("reviews-1", "reviews", "v2")];

/// A mesh whose rules for `reviews` are replaced by each test case.
struct World(Mesh);

impl World {
    fn start() -> Self {
        let mesh = Mesh::start(&PODS, "");
        for (pod, _, version) in &PODS[1..] {
            mesh.workload(pod).upstream.answer_with(move |request| {
                let mut reply = Reply::status(200, version);
                reply.headers.push(("x-path".into(), request.path.clone()));
                reply
            });
        }
        Self(mesh)
    }

    /// Puts rules into force: they are there when `marker` is answered by a direct response of theirs.
    fn put(&self, rules: &str) {
        self.0.write("more.yaml", rules);
        wait::until("the rules", || self.0.control_plane.page("/rejections").text().contains("\"rejections\""));
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Response {
        let mut client = RawClient::connect(self.0.workload("web-0").outbound()).unwrap();
        client.send(
            format!("{method} {path} HTTP/1.1\r\nhost: reviews:{APP_PORT}\r\nconnection: close\r\n{headers}\r\n").as_bytes(),
        );
        client.response().unwrap()
    }

    /// Waits until a request has this outcome.
    #[track_caller]
    fn wait(&self, what: &str, path: &str, headers: &str, expected: impl Fn(&Response) -> bool) {
        wait::until(what, || expected(&self.ask("GET", path, headers)));
    }
}
