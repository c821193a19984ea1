//! What a request costs a captured pair of pods, beside an explicit pair of proxies: CPU of both sidecars, the same load generator,
//! the same upstream, taking turns in one run. Needs root, `wrk` and `taskset`; for a quiet machine with two cores.
//!
//! ```text
//! cargo run -p outrigger-tests --example captured_cost -- UPSTREAM PAIR_A.yaml PAIR_B.yaml
//! ```
//!
//! UPSTREAM is a program that serves HTTP at the address in its first argument. The two files are an Envoy bootstrap each: the first
//! listens at 127.0.0.1:10003 and calls the second, which calls an upstream at 127.0.0.1:9001. Paths in them begin at the working directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use outrigger_tests::pods::{PodMesh, cluster_ip};
use outrigger_tests::proxy::binary;
use outrigger_tests::wait;

/// Seconds of one measurement.
const SECONDS: u32 = 6;
const ROUNDS: usize = 5;
/// The proxies have one core, load and upstream the other.
const PROXIES: &str = "0";
const LOAD: &str = "1";

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  selector: {app: shop}
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1]
  ports: [{name: http, port: 80, targetPort: 8080}]
";

/// Ends with the value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start a program"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [upstream, pair @ ..] = arguments.as_slice() else { panic!("UPSTREAM PAIR_A.yaml PAIR_B.yaml") };
    assert_eq!(pair.len(), 2, "UPSTREAM PAIR_A.yaml PAIR_B.yaml");

    let mesh = PodMesh::start_with(&["web", "shop"], SHOP, &[]).expect("root");
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let _shop = Running::start(shop.net.command("taskset").args(["-c", LOAD, upstream]).arg("0.0.0.0:8080"));
    wait::until("the mesh", || web.get((cluster_ip(1), 80), "shop").status == 200);
    let captured = [web.sidecar_id(), shop.sidecar_id()];
    for id in captured {
        assert!(Command::new("taskset").args(["-acp", PROXIES, &id.to_string()]).status().unwrap().success());
    }

    let _upstream =
        Running::start(Command::new("taskset").args(["-c", LOAD, upstream]).arg("127.0.0.1:9001"));
    let proxies: Vec<Running> = pair
        .iter()
        .map(|file| {
            let mut command = Command::new("taskset");
            command.args(["-c", PROXIES]).arg(binary("outrigger-proxy"));
            Running::start(command.args(["--concurrency", "1", "-l", "error", "-c", file]))
        })
        .collect();
    let explicit = [proxies[0].0.id(), proxies[1].0.id()];
    let entry = SocketAddr::from((Ipv4Addr::LOCALHOST, 10003));
    wait::until("the explicit pair", || TcpStream::connect(entry).is_ok());

    let mut costs: [Vec<f64>; 2] = Default::default();
    for round in 0..=ROUNDS {
        let by_capture = measure(web.net.command("taskset"), &format!("http://{}/", cluster_ip(1)), captured);
        let by_address = measure(Command::new("taskset"), &format!("http://{entry}/"), explicit);
        // The first warms up.
        if round > 0 {
            println!("captured {by_capture:.2} µs, explicit {by_address:.2} µs per request");
            costs[0].push(by_capture);
            costs[1].push(by_address);
        }
    }
    let [captured, explicit] = costs.map(median);
    println!(
        "median: captured {captured:.2} µs, explicit {explicit:.2} µs, ratio {:.2}",
        captured / explicit
    );
}

/// CPU time of these processes for each request of a load, in microseconds.
fn measure(mut taskset: Command, url: &str, processes: [u32; 2]) -> f64 {
    let before: u64 = processes.into_iter().map(cpu_ns).sum();
    let duration = format!("-d{SECONDS}s");
    let output = taskset.args(["-c", LOAD, "wrk", "-t1", "-c64", &duration, url]).output().expect("run wrk");
    let after: u64 = processes.into_iter().map(cpu_ns).sum();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let requests =
        text.lines().find_map(|line| line.trim().split_once(" requests in")).expect("wrk's report").0;
    (after - before) as f64 / 1e3 / requests.parse::<f64>().expect("a number")
}

/// Time on a CPU of all threads, in nanoseconds (`/proc/PID/task/*/schedstat`).
fn cpu_ns(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("threads of a process");
    let on_cpu = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(on_cpu).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
