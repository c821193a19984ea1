//! Every annotation: what it does, and what it says of a bad value.

use serde_json::json;

use super::*;

const CONFIG: &str = "proxy.istio.io/config";

#[test]
fn annotations_of_the_sidecar() {
    let pod = injected(&annotated(&[
        ("sidecar.istio.io/proxyImage", "proxy:debug"),
        ("sidecar.istio.io/proxyCPU", "250m"),
        ("sidecar.istio.io/proxyMemory", "64Mi"),
        ("sidecar.istio.io/proxyCPULimit", "1500m"),
        ("sidecar.istio.io/proxyMemoryLimit", "256Mi"),
        ("sidecar.istio.io/logLevel", "debug"),
        ("sidecar.istio.io/componentLogLevel", "http:trace,upstream:info"),
        ("readiness.status.sidecar.istio.io/initialDelaySeconds", "3"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "5"),
        ("readiness.status.sidecar.istio.io/failureThreshold", "7"),
        ("status.sidecar.istio.io/port", "15020"),
    ]));
    let sidecar = proxy(&pod);
    assert_eq!(sidecar["image"], "proxy:debug");
    assert_eq!(
        sidecar["resources"],
        json!({"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1500m", "memory": "256Mi"}})
    );
    let expected = ["sidecar", "--log-level=debug", "--component-log-level=http:trace,upstream:info"];
    assert_eq!(arguments(sidecar), expected);
    let readiness = &sidecar["readinessProbe"];
    assert_eq!(
        [&readiness["initialDelaySeconds"], &readiness["periodSeconds"], &readiness["failureThreshold"]],
        [3, 5, 7]
    );
}

#[test]
fn one_resource_annotation_replaces_all_defaults() {
    let pod = injected(&annotated(&[("sidecar.istio.io/proxyCPU", "4")]));
    assert_eq!(proxy(&pod)["resources"], json!({"requests": {"cpu": "4"}}));
}

#[test]
fn switches() {
    let pod = injected(&annotated(&[("sidecar.istio.io/nativeSidecar", "false")]));
    assert_eq!(names(&pod["spec"]["containers"]), ["outrigger-proxy", "app"]);
    let native =
        injected_by(&annotated(&[("sidecar.istio.io/nativeSidecar", "true")]), "nativeSidecar: false");
    assert_eq!(names(&native["spec"]["containers"]), ["app"]);

    let pod = injected(&annotated(&[("sidecar.istio.io/interceptionMode", "NONE")]));
    assert_eq!(names(&pod["spec"]["initContainers"]), ["outrigger-proxy", "migrate"]);

    let mut probed = annotated(&[("sidecar.istio.io/rewriteAppHTTPProbers", "false")]);
    probed["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 1}});
    assert_eq!(injected(&probed)["spec"]["containers"], probed["spec"]["containers"]);
}

#[test]
fn annotations_of_the_capture() {
    let pod = injected(&annotated(&[
        ("traffic.sidecar.istio.io/includeInboundPorts", "80,443"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "22"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "5432"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "25"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8, fd00::/8"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "169.254.169.254/32"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "docker0"),
    ]));
    let capture = named(&pod["spec"]["initContainers"], "outrigger-capture");
    assert_eq!(
        arguments(capture)[5..],
        [
            "--include-inbound-ports=80,443",
            "--exclude-inbound-ports=22",
            "--include-outbound-ports=5432",
            "--exclude-outbound-ports=25",
            "--include-outbound-ip-ranges=10.0.0.0/8,fd00::/8",
            "--exclude-outbound-ip-ranges=169.254.169.254/32",
            "--exclude-interfaces=docker0",
        ]
    );
    let nothing = injected(&annotated(&[("traffic.sidecar.istio.io/includeInboundPorts", "")]));
    let capture = named(&nothing["spec"]["initContainers"], "outrigger-capture");
    assert_eq!(arguments(capture)[5..], ["--include-inbound-ports="]);
    let (_, warnings) = injected_with_warnings(&annotated(&[
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "25"),
    ]));
    assert!(warnings[0].contains("without capture"), "{warnings:?}");
}

#[test]
fn a_bad_value_is_refused_by_its_annotation() {
    for (name, value) in [
        ("sidecar.istio.io/proxyImage", ""),
        ("sidecar.istio.io/proxyCPU", "much"),
        ("sidecar.istio.io/proxyMemory", "-1"),
        ("sidecar.istio.io/proxyCPULimit", ""),
        ("sidecar.istio.io/proxyMemoryLimit", "1 Gi"),
        ("sidecar.istio.io/logLevel", "loud"),
        ("sidecar.istio.io/componentLogLevel", "http"),
        ("sidecar.istio.io/componentLogLevel", "http:loud"),
        ("sidecar.istio.io/nativeSidecar", "yes"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "maybe"),
        ("prometheus.istio.io/merge-metrics", ""),
        ("readiness.status.sidecar.istio.io/initialDelaySeconds", "-1"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "0"),
        ("readiness.status.sidecar.istio.io/failureThreshold", "4294967295"),
        ("status.sidecar.istio.io/port", "0"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "0"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "1,"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "a b"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "net1"),
        ("traffic.sidecar.istio.io/includeInboundIPRanges", "10.0.0.0/8"),
        ("istio.io/reroute-virtual-interfaces", "net1"),
        ("sidecar.istio.io/bootstrapOverride", "my-bootstrap"),
        ("inject.istio.io/templates", "gateway"),
        (CONFIG, "concurrency: ["),
    ] {
        let refused = run(&annotated(&[(name, value)])).unwrap_err();
        assert_eq!(refused.field, format!("metadata.annotations[{name:?}]"), "{value}: {}", refused.reason);
        assert!(!refused.reason.is_empty());
    }
    let above = [("sidecar.istio.io/proxyCPU", "2"), ("sidecar.istio.io/proxyCPULimit", "1")];
    let refused = run(&annotated(&above)).unwrap_err();
    assert_eq!(refused.field, "metadata.annotations[\"sidecar.istio.io/proxyCPU\"]");
    assert!(refused.reason.contains("more than the limit"), "{}", refused.reason);
}

#[test]
fn an_annotation_without_effect_is_told() {
    for name in ["sidecar.istio.io/statsEvictionInterval", "sidecar.istio.io/nobody-knows-it"] {
        let (_, warnings) = injected_with_warnings(&annotated(&[(name, "x")]));
        assert!(warnings[0].contains(name), "{warnings:?}");
    }
    injected(&annotated(&[("example.org/anything", "x"), ("plain", "x")]));
}

#[test]
fn proxy_config() {
    let pod = injected(&annotated(&[(
        CONFIG,
        "concurrency: 3\nterminationDrainDuration: 40s\nholdApplicationUntilProxyStarts: true\nstatusPort: 15020\n\
         meshId: m\nproxyMetadata: {ISTIO_META_TEAM: blue}\n",
    )]));
    assert_eq!(arguments(proxy(&pod)), ["sidecar", "--log-level=warning", "--concurrency=3"]);
    assert_eq!(variable(&pod, "OUTRIGGER_DRAIN_TIME_S"), Some("40"));
    assert_eq!(variable(&pod, "ISTIO_META_TEAM"), Some("blue"));
    assert_eq!(variable(&pod, "ISTIO_META_MESH_ID"), Some("m"));

    let old =
        &[("sidecar.istio.io/nativeSidecar", "false"), (CONFIG, "holdApplicationUntilProxyStarts: false")];
    assert_eq!(names(&injected(&annotated(old))["spec"]["containers"]), ["app", "outrigger-proxy"]);
    let explicit = injected(&annotated(&[(CONFIG, "interceptionMode: NONE")]));
    assert_eq!(variable(&explicit, "INTERCEPTION_MODE"), Some("NONE"));
    // The annotation of its own is more specific than the document.
    let both = [(CONFIG, "interceptionMode: NONE"), ("sidecar.istio.io/interceptionMode", "REDIRECT")];
    assert_eq!(variable(&injected(&annotated(&both)), "INTERCEPTION_MODE"), Some("REDIRECT"));
    injected(&annotated(&[(CONFIG, "")]));
}

#[test]
fn proxy_config_that_does_not_map() {
    for (text, part) in [
        ("drainDuration: 45s", "drainDuration"),
        ("holdApplicationUntilProxyStarts: false", "always starts first"),
        ("proxyMetadata: {DNS_AGENT: x}", "DNS_AGENT"),
    ] {
        let (_, warnings) = injected_with_warnings(&annotated(&[(CONFIG, text)]));
        assert!(warnings[0].contains(part), "{text}: {warnings:?}");
    }
    for (text, part) in [
        ("concurrency: 0", "core of the node"),
        ("concurrency: many", "whole number"),
        ("concurrency: 2000", "1024"),
        ("terminationDrainDuration: 1.5s", "whole number of seconds"),
        ("terminationDrainDuration: 0s", "at least 1s"),
        ("terminationDrainDuration: 46s", "terminationGracePeriodSeconds, 45 s"),
        ("terminationDrainDuration: 5", "duration"),
        ("holdApplicationUntilProxyStarts: 1", "true or false"),
        ("interceptionMode: TPROXY", "not supported"),
        ("statusPort: 1", "15020"),
        ("proxyMetadata: {ISTIO_META_WORKLOAD_NAME: x}", "set by the injector"),
        ("proxyMetadata: {ISTIO_METAJSON_A: '{'}", "must be JSON"),
        ("proxyMetadata: [a]", "map of texts"),
        ("proxyMetadata: {A: 1}", "must be a text"),
        ("caCertificatesPem: [x]", "must not start without it"),
        ("discoveryAddress: other:15012", "must not start without it"),
        ("nobody: knows", "not a field"),
        ("- a", "must be a map"),
    ] {
        let refused = run(&annotated(&[(CONFIG, text)])).unwrap_err();
        assert!(refused.reason.contains(part), "{text}: {}", refused.reason);
    }
}
