//! Who gets a sidecar.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::inject::decision::SkipReason;

/// The decision for a Pod with this label or annotation in a namespace with these labels.
fn decide(
    namespace: &[(&str, &str)],
    labels: &[(&str, &str)],
    annotations: &[(&str, &str)],
) -> Result<Outcome, Refusal> {
    let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut pod = pod();
    pod["metadata"]["labels"] = json!(map(labels));
    pod["metadata"]["annotations"] = json!(map(annotations));
    let namespace = Namespace { name: "shop".to_owned(), policy: NamespacePolicy::Labels(map(namespace)) };
    inject(&pod, &namespace, &InjectionSettings::default())
}

const ENABLED: &[(&str, &str)] = &[("istio-injection", "enabled")];
const YES: &[(&str, &str)] = &[("sidecar.istio.io/inject", "true")];
const NO: &[(&str, &str)] = &[("sidecar.istio.io/inject", "false")];

#[test]
fn labels_decide_as_in_istio() {
    use SkipReason::{NamespaceOptedOut, NotEnabled, OtherRevision, PodOptedOut};
    let disabled = &[("istio-injection", "disabled")][..];
    let ours = &[("istio.io/rev", "default")][..];
    let other = &[("istio.io/rev", "canary")][..];
    let both = &[("istio-injection", "enabled"), ("istio.io/rev", "canary")][..];
    type Entries<'a> = &'a [(&'a str, &'a str)];
    type Row<'a> = (Entries<'a>, Entries<'a>, Entries<'a>, Option<SkipReason>);
    let table: &[Row<'_>] = &[
        (ENABLED, &[], &[], None),
        (ENABLED, NO, &[], Some(PodOptedOut)),
        (ENABLED, &[], NO, Some(PodOptedOut)),
        (ENABLED, YES, NO, None),
        (ENABLED, NO, YES, Some(PodOptedOut)),
        (ENABLED, &[("sidecar.istio.io/inject", "")], &[], None),
        (disabled, YES, &[], Some(NamespaceOptedOut)),
        (disabled, &[], &[], Some(NamespaceOptedOut)),
        (&[], &[], &[], Some(NotEnabled)),
        (&[], YES, &[], None),
        (&[], &[], YES, None),
        (&[], ours, &[], None),
        (&[], other, &[], Some(OtherRevision)),
        (ours, &[], &[], None),
        (ours, NO, &[], Some(PodOptedOut)),
        (other, &[], &[], Some(OtherRevision)),
        (other, ours, &[], Some(OtherRevision)),
        (both, &[], &[], None),
    ];
    for (number, (namespace, labels, annotations, expected)) in table.iter().enumerate() {
        match (decide(namespace, labels, annotations), expected) {
            (Ok(Outcome::Injected { .. }), None) => {}
            (Ok(Outcome::Skipped(reason)), Some(expected)) if reason == *expected => {}
            (other, _) => panic!("row {number}: {other:?}"),
        }
    }
}

#[test]
fn a_value_that_is_neither_yes_nor_no_is_refused() {
    let refused = decide(ENABLED, &[("sidecar.istio.io/inject", "ture")], &[]).unwrap_err();
    assert_eq!(refused.field, "metadata.labels[\"sidecar.istio.io/inject\"]");
    let refused = decide(&[("istio-injection", "enable")], &[], &[]).unwrap_err();
    assert!(refused.reason.contains("shop"), "{refused:?}");
}

#[test]
fn what_cannot_have_a_sidecar_is_left_alone() {
    let mut host = pod();
    host["spec"]["hostNetwork"] = true.into();
    assert_eq!(run(&host), Ok(Outcome::Skipped(SkipReason::HostNetwork)));
    let mut windows = pod();
    windows["spec"]["os"] = json!({"name": "windows"});
    assert_eq!(run(&windows), Ok(Outcome::Skipped(SkipReason::Windows)));
    let mirror = annotated(&[("kubernetes.io/config.mirror", "5f3a")]);
    assert_eq!(run(&mirror), Ok(Outcome::Skipped(SkipReason::MirrorPod)));
    let system = Namespace { name: "kube-system".to_owned(), policy: NamespacePolicy::Selected };
    let skipped = inject(&pod(), &system, &InjectionSettings::default());
    assert_eq!(skipped, Ok(Outcome::Skipped(SkipReason::SystemNamespace)));
}

#[test]
fn an_injected_pod_is_left_alone_whoever_injected_it() {
    assert_eq!(run(&injected(&pod())), Ok(Outcome::Skipped(SkipReason::AlreadyInjected)));
    let istio = r#"{"initContainers":["istio-init"],"containers":["istio-proxy"],"volumes":null}"#;
    let mut foreign = annotated(&[("sidecar.istio.io/status", istio)]);
    // The annotation alone is not a sidecar.
    injected(&foreign);
    foreign["spec"]["initContainers"] = json!([{"name": "istio-init"}]);
    injected(&foreign);
    foreign["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "istio-proxy"}));
    assert_eq!(run(&foreign), Ok(Outcome::Skipped(SkipReason::AlreadyInjected)));
    for wrong in ["", "yes", "[]", r#"{"containers":"a"}"#, r#"{"containers":[1]}"#] {
        let refused = run(&annotated(&[("sidecar.istio.io/status", wrong)])).unwrap_err();
        assert_eq!(refused.field, "metadata.annotations[\"sidecar.istio.io/status\"]", "{wrong}");
    }
    // A status that names nothing says that nothing was put in.
    injected(&annotated(&[("sidecar.istio.io/status", "{}")]));
}

#[test]
fn each_reason_has_a_name_of_its_own() {
    let mut labels = SkipReason::ALL.map(SkipReason::label);
    labels.sort_unstable();
    assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
}
