//! Workloads that are no Pods: WorkloadEntries, with a sidecar of their own and without.

use outrigger_tests::certs::spiffe;
use outrigger_tests::mesh::{APP_PORT, Workload};
use outrigger_tests::proxy::Proxy;
use outrigger_tests::wait;

use crate::world::World;

/// A host and a Service of Kubernetes that both select the application `details`.
fn services() -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: details, namespace: default}}\nspec: {{hosts: \
         [details.example], location: MESH_INTERNAL, resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP, targetPort: \
         {APP_PORT}}}], workloadSelector: {{labels: {{app: details}}}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: details, \
         namespace: default}}\nspec: {{selector: {{app: details}}, ports: [{{name: web, appProtocol: http, port: 9090, targetPort: \
         main}}]}}\n---\n"
    )
}

fn entry(machine: &Workload, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {}, namespace: default}}\nspec: {{address: {}, labels: \
         {{app: details}}, ports: {{main: {APP_PORT}}}{more}}}\n---\n",
        machine.pod, machine.ip
    )
}

fn start(world: &World, machine: &Workload) -> Proxy {
    let mut sidecar = world.0.start_sidecar(machine, &machine.pod);
    wait::until("its sidecar is ready", || machine.is_ready() || !sidecar.is_running());
    assert!(sidecar.is_running(), "{}", sidecar.stderr());
    sidecar
}

const CALLS: [&str; 2] = ["//details.example/", "//details:9090/"];

#[test]
fn one_without_a_sidecar_is_called_as_it_is() {
    let world = World::start();
    let machine = Workload::machine("machine-0", "details");
    world.0.write("entries.yaml", &(services() + &entry(&machine, "")));
    for call in CALLS {
        wait::until(call, || world.answer(call) == "200 machine-0");
    }
    assert_eq!(world.findings("WorkloadEntry default/machine-0"), [""; 0]);
    // It goes with its entry.
    world.0.write("entries.yaml", &services());
    for call in CALLS {
        wait::until(call, || world.answer(call) == "503 no healthy upstream");
    }
}

#[test]
fn one_with_a_sidecar_proves_who_it_is_and_calls_itself() {
    let world = World::start();
    let machine = Workload::machine("machine-0", "details");
    world.0.write(
        "entries.yaml",
        &(services() + &entry(&machine, ", serviceAccount: details, network: elsewhere")),
    );
    let _sidecar = start(&world, &machine);
    for call in CALLS {
        wait::until(call, || world.answer(call) == "200 machine-0");
    }
    machine.upstream.take_requests();
    // Both sides have seen who the other one is.
    let principals = [("source_principal", spiffe("web")), ("destination_principal", spiffe("details"))];
    for (who, reporter) in [(world.0.workload("web-0"), "source"), (&machine, "destination")] {
        let mut labels = vec![("reporter", reporter), ("response_code", "200")];
        labels.extend(principals.iter().map(|(name, value)| (*name, value.as_str())));
        wait::until(reporter, || who.scrape().sum("istio_requests_total", &labels) >= 2.0);
    }
    let answer = outrigger_tests::client::get(machine.outbound(), &format!("reviews:{APP_PORT}"), "/");
    assert!(answer.text().starts_with("reviews-"), "{}", answer.text());
    let findings = world.findings("WorkloadEntry default/machine-0");
    assert!(findings.len() == 1 && findings[0].starts_with("spec.network: has no effect"), "{findings:?}");

    // Another identity than the one that is expected gets nothing.
    world.0.write("entries.yaml", &(services() + &entry(&machine, ", serviceAccount: other")));
    for call in CALLS {
        wait::until(call, || world.answer(call).starts_with("503"));
    }
    machine.upstream.take_requests();
    for call in CALLS {
        assert!(world.answer(call).starts_with("503"), "{call}");
    }
    assert!(machine.upstream.take_requests().is_empty());
}
