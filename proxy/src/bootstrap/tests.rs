//! Accept and reject tables of the bootstrap, and where its problems are.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::transport_socket::ConfigType;
use outrigger_xds_api::wire::tls::v3::UpstreamTlsContext;
use outrigger_xds_api::wire::tls::v3::common_tls_context::ValidationContextType;
use outrigger_xds_api::wire::tls::v3::subject_alt_name_matcher::SanType;
use outrigger_xds_api::wire::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::Message;

use super::sidecar::{SidecarOptions, bootstrap};
use super::{Bootstrap, Document, NodeFlags, compile_bootstrap};
use crate::config::compile::{CompileCx, Invalid};
use crate::config::sources::{SourceId, Variant};
use crate::config::testing::inputs;
use crate::stats::Resource;

fn read(yaml: &str) -> Document {
    let mut document = Document::default();
    document.merge("test.yaml", yaml).unwrap();
    document
}

fn compile(document: &Document, flags: &NodeFlags) -> Result<Bootstrap, Invalid> {
    compile_bootstrap(document.message.clone(), flags, CompileCx::new(&mut inputs(), true))
}

const ADS: &str = "dynamic_resources: {cds_config: {ads: {}}, lds_config: {ads: {}, resource_api_version: V3}, ads_config: {api_type: \
     DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}";

#[test]
fn what_is_dynamic() {
    let bootstrap =
        compile(&read(&format!("{ADS}\nnode: {{id: i, cluster: c}}")), &NodeFlags::default()).unwrap();
    let ads = bootstrap.ads.unwrap();
    assert_eq!((&*ads.cluster, ads.variant, ads.node_once), ("xds", Variant::Delta, false));
    let roots: Vec<_> = bootstrap.roots.iter().map(|(kind, fetch)| (*kind, fetch.source)).collect();
    assert_eq!(roots, [(ResourceType::Cluster, SourceId::ADS), (ResourceType::Listener, SourceId::ADS)]);
    let bootstrap = compile(&read("admin: {}"), &NodeFlags::default()).unwrap();
    assert!(bootstrap.ads.is_none() && bootstrap.roots.is_empty() && bootstrap.admin.is_none());
}

#[test]
fn the_local_cluster_has_a_name() {
    let of = |yaml: &str| compile(&read(yaml), &NodeFlags::default()).unwrap().cluster_manager.local_cluster;
    assert_eq!(of("cluster_manager: {local_cluster_name: me}").as_deref(), Some("me"));
    assert_eq!(of("cluster_manager: {}"), None);
}

#[test]
fn flags_win_over_the_node() {
    let flags = NodeFlags { id: Some("flag".into()), cluster: None, zone: Some("z".into()) };
    let node = compile(&read("node: {id: i, cluster: c, locality: {region: r}}"), &flags).unwrap().node;
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("flag", "c"));
    let locality = node.locality.unwrap();
    assert_eq!((locality.region.as_str(), locality.zone.as_str()), ("r", "z"));
}

#[test]
fn static_resources_come_in_the_order_in_which_they_are_needed() {
    let document = read(
        "static_resources: {listeners: [{name: l}], clusters: [{name: a}, {name: b}], secrets: [{name: s}]}",
    );
    let paths: Vec<String> =
        compile(&document, &NodeFlags::default()).unwrap().resources.into_iter().map(|r| r.path).collect();
    assert_eq!(
        paths,
        [
            "static_resources.secrets[0]",
            "static_resources.clusters[0]",
            "static_resources.clusters[1]",
            "static_resources.listeners[0]"
        ]
    );
}

#[test]
fn refuses() {
    for (yaml, expected) in [
        ("header_prefix: x-foo", "header_prefix: not supported"),
        (
            "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}, allow_paths: [{exact: /x}]}",
            "admin.allow_paths: not supported",
        ),
        (
            "dynamic_resources: {cds_config: {ads: {}}}",
            "dynamic_resources.cds_config.ads: the bootstrap has no dynamic_resources.ads_config",
        ),
        (
            "dynamic_resources: {lds_config: {path_config_source: {path: /x}}}",
            "dynamic_resources.lds_config.path_config_source.path: paths must refer to an existing path in the system: '/x' does not exist",
        ),
        (
            "layered_runtime: {layers: [{name: s, static_layer: {upstream: {healthy_panic_threshold: 1}}}]}",
            "layered_runtime.layers[0].static_layer[\"upstream.healthy_panic_threshold\"]: this runtime key is not supported",
        ),
        (
            "layered_runtime: {layers: [{name: d, disk_layer: {symlink_root: /x}}]}",
            "layered_runtime.layers[0].disk_layer: not supported",
        ),
    ] {
        let invalid = compile(&read(yaml), &NodeFlags::default()).unwrap_err();
        let problems: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, [expected], "{yaml}");
    }
    let invalid = compile(&read(&ADS.replace("DELTA_GRPC", "REST")), &NodeFlags::default()).unwrap_err();
    let problems: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "dynamic_resources.ads_config.api_type: only GRPC and DELTA_GRPC are supported",
            "node.id: node 'id' is required with xDS: set it in the bootstrap or by --service-node",
            "node.cluster: node 'cluster' is required with xDS: set it in the bootstrap or by --service-cluster",
        ]
    );
}

#[test]
fn accepts_what_is_harmless() {
    for yaml in [
        "stats_flush_interval: 5s\nwatchdogs: {}\nenable_dispatcher_stats: true",
        "layered_runtime: {layers: [{name: s, static_layer: {envoy.reloadable_features.x: true, re2: {max_program_size: {error_level: 1}}, overload.global_downstream_max_connections: 2147483647}}, {name: a, admin_layer: {}}]}",
        "cluster_manager: {upstream_bind_config: {source_address: {address: 127.1.0.1, port_value: 0}}}",
    ] {
        compile(&read(yaml), &NodeFlags::default()).unwrap();
    }
}

#[test]
fn problems_have_their_place() {
    let document = read("node: {id: i}\nheader_prefix: x\n");
    let invalid = compile(&document, &NodeFlags::default()).unwrap_err();
    assert_eq!(document.locate("", &invalid)[0].to_string(), "test.yaml:2:1: header_prefix: not supported");

    let mut broken = Document::default();
    let errors =
        broken.merge("test.yaml", "static_resources:\n  clusters:\n  - name: c\n    typ: EDS\n").unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].position, Some((4, 5)));
    assert!(
        errors[0].to_string().starts_with("test.yaml:4:5: static_resources.clusters[0]"),
        "{}",
        errors[0]
    );
}

#[test]
fn texts_are_merged() {
    let mut document = read("node: {id: i, cluster: c}\nstatic_resources: {clusters: [{name: a}]}");
    document.merge("--config-yaml", "{node: {id: j}, static_resources: {clusters: [{name: b}]}}").unwrap();
    let bootstrap = compile(&document, &NodeFlags::default()).unwrap();
    assert_eq!((bootstrap.node.id.as_str(), bootstrap.node.cluster.as_str()), ("j", "c"));
    assert_eq!(bootstrap.resources.len(), 2);
}

fn sidecar() -> SidecarOptions {
    SidecarOptions {
        xds_address: "127.0.0.1:15010".parse().unwrap(),
        ca_root_cert: None,
        admin_address: "127.1.0.2:15000".parse().unwrap(),
        node_id: None,
        instance_ip: "127.1.0.2".parse().unwrap(),
        binds_upstreams: true,
        sheds_load: true,
        memory_limit: None,
        pod_name: "reviews-v1-a".into(),
        pod_namespace: "shop".into(),
        service_account: "reviews".into(),
        cluster_domain: "cluster.local".into(),
        metadata: BTreeMap::from([("LABELS".to_owned(), serde_json::json!({"app": "reviews"}))]),
    }
}

#[test]
fn a_sidecar_writes_a_bootstrap_that_compiles() {
    let bootstrap = compile(&bootstrap(&sidecar()).unwrap(), &NodeFlags::default()).unwrap();
    assert_eq!(bootstrap.node.id, "sidecar~127.1.0.2~reviews-v1-a.shop~shop.svc.cluster.local");
    assert_eq!(bootstrap.node.cluster, "reviews.shop");
    assert_eq!(bootstrap.cluster_manager.source_address, Some("127.1.0.2".parse().unwrap()));
    assert_eq!(&*bootstrap.ads.as_ref().unwrap().cluster, "xds-grpc");
    assert_eq!(bootstrap.resources.len(), 1);
    assert_eq!(bootstrap.roots.len(), 2);
}

#[test]
fn a_sidecar_sheds_load() {
    let of = |options: &SidecarOptions| {
        compile(&bootstrap(options).unwrap(), &NodeFlags::default()).unwrap().overload
    };
    let resources = |options: &SidecarOptions| {
        of(options).monitors.iter().map(|(resource, _)| *resource).collect::<Vec<_>>()
    };
    let off = SidecarOptions { sheds_load: false, ..sidecar() };
    assert!(of(&off).actions.is_empty() && resources(&off).is_empty());
    assert_eq!(resources(&sidecar()), [Resource::FileDescriptors]);
    assert_eq!(of(&sidecar()).actions.len(), 2);
    let limited = SidecarOptions { memory_limit: Some(1 << 30), ..sidecar() };
    assert_eq!(resources(&limited), [Resource::FixedHeap, Resource::FileDescriptors]);
    assert_eq!(of(&limited).actions.len(), 3);
}

#[test]
fn a_sidecar_speaks_plaintext_to_its_own_machine_only() {
    let far = SidecarOptions { xds_address: "192.0.2.1:15010".parse().unwrap(), ..sidecar() };
    assert!(bootstrap(&far).unwrap_err().contains("--ca-root-cert"));
    let roots = Some(PathBuf::from("/roots.pem"));
    assert!(bootstrap(&SidecarOptions { ca_root_cert: roots, ..far }).is_ok());
    let named = SidecarOptions { xds_address: "control-plane.mesh.svc:15010".parse().unwrap(), ..sidecar() };
    assert!(bootstrap(&named).unwrap_err().contains("--ca-root-cert"));
}

#[test]
fn a_control_plane_with_a_name_must_prove_it() {
    let xds_address = "control-plane.mesh.svc:15010".parse().unwrap();
    let ca_root_cert = Some(PathBuf::from("/roots.pem"));
    let document = bootstrap(&SidecarOptions { xds_address, ca_root_cert, ..sidecar() }).unwrap();
    let cluster = &document.message.static_resources.as_ref().unwrap().clusters[0];
    assert!(cluster.load_assignment.as_ref().unwrap().endpoints.is_empty());
    let Some(ConfigType::TypedConfig(tls)) = &cluster.transport_socket.as_ref().unwrap().config_type else {
        panic!("no TLS")
    };
    let tls = UpstreamTlsContext::decode(tls.value.as_slice()).unwrap();
    assert_eq!(tls.sni, "control-plane.mesh.svc");
    let Some(ValidationContextType::ValidationContext(rules)) =
        tls.common_tls_context.unwrap().validation_context_type
    else {
        panic!("no rules")
    };
    let [name] = rules.match_typed_subject_alt_names.as_slice() else { panic!("{rules:?}") };
    assert_eq!(name.san_type(), SanType::Dns);
    let expected = MatchPattern::Exact("control-plane.mesh.svc".to_owned());
    assert_eq!(name.matcher.as_ref().unwrap().match_pattern, Some(expected));
}
