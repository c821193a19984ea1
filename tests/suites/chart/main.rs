//! The Helm chart, through the real Helm SDK: what it renders to is valid for Kubernetes and says what the mesh needs.
//!
//! Facts, not snapshots: each test asks one thing of every set of values in [`values`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod install;
mod objects;
mod program;
mod refusals;
mod running;
mod security;
mod values;
mod webhooks;

use std::process::Command;
use std::sync::OnceLock;

use outrigger_tests::helm::{Helm, Release, Rendered};
use outrigger_tests::tools::require_tool;
use serde_json::{Value, json};

/// A set of values: its name, the release, what it renders to.
type Set = (&'static str, Release, Rendered);

/// Every set of values, rendered once; `None` without Helm.
#[track_caller]
fn every_set() -> Option<&'static [Set]> {
    static SETS: OnceLock<Vec<Set>> = OnceLock::new();
    let helm = Helm::find()?;
    Some(SETS.get_or_init(|| {
        let sets = values::sets();
        let rendered = helm.render_all(sets.iter().map(|(_, release)| release));
        let sets = sets.into_iter().zip(rendered).map(|((name, release), rendered)| {
            (name, release, rendered.unwrap_or_else(|error| panic!("{name}: {error}")))
        });
        sets.collect()
    }))
}

#[test]
fn lint_finds_nothing() {
    let Some(helm) = Helm::find() else { return };
    for (name, release) in values::sets() {
        assert_eq!(helm.lint(&release), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn every_set_of_values_is_valid_for_kubernetes() {
    let Some(validate) = require_tool("kubernetes-validate") else { return };
    let Some(sets) = every_set() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, _, rendered) in sets {
        let file = folder.path().join("manifest.yaml");
        std::fs::write(&file, &rendered.manifest).unwrap();
        let output = Command::new(&validate).args(["--strict", "-k", "1.36"]).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}");
        // A kind without a schema is only warned about; the Prometheus operator's have none here.
        let unchecked: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("WARN") && !line.contains("monitoring.coreos.com/v1"))
            .collect();
        assert!(unchecked.is_empty(), "{name}: {unchecked:?}");
        let checked = text.lines().filter(|line| line.starts_with("INFO")).count();
        let monitors = rendered.of_kind("ServiceMonitor").chain(rendered.of_kind("PodMonitor")).count();
        assert_eq!(checked + monitors, rendered.objects.len(), "{name}: {text}");
    }
}

#[test]
fn the_notes_tell_the_next_commands() {
    let Some(sets) = every_set() else { return };
    for (name, release, rendered) in sets {
        let revision = release.values["revision"].as_str().unwrap_or("default");
        let label = match revision {
            "default" => "kubectl label namespace NAMESPACE istio-injection=enabled".to_owned(),
            other => format!("kubectl label namespace NAMESPACE istio.io/rev={other}"),
        };
        let deployment = rendered.the("Deployment")["metadata"]["name"].as_str().unwrap();
        let namespace = &release.namespace;
        for expected in [
            label,
            format!("helm -n {namespace} test {}", release.name),
            format!("kubectl -n {namespace} rollout status deployment/{deployment}"),
            format!("helm -n {namespace} uninstall {}", release.name),
        ] {
            assert!(rendered.notes.contains(&expected), "{name}: no `{expected}` in\n{}", rendered.notes);
        }
        assert!(!rendered.notes.contains("<no value>"), "{name}");
    }
}

#[test]
fn a_release_has_a_test() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        let test = rendered.the("Pod");
        let annotations = &test["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], "test", "{name}");
        assert_eq!(test["spec"]["restartPolicy"], "Never", "{name}");
        let hooks = rendered
            .objects
            .iter()
            .filter(|object| !object["metadata"]["annotations"]["helm.sh/hook"].is_null());
        assert_eq!(hooks.count(), 1, "{name}");
    }
}

#[test]
fn switches_leave_out_what_they_name() {
    let Some(helm) = Helm::find() else { return };
    let count = |kind: &str, values: Value| helm.render(&Release::new(values)).of_kind(kind).count();
    for (kind, on, off) in [
        (
            "PodDisruptionBudget",
            json!({}),
            json!({"controlPlane": {"podDisruptionBudget": {"enabled": false}}}),
        ),
        ("NetworkPolicy", json!({}), json!({"networkPolicy": {"enabled": false}})),
        (
            "ValidatingWebhookConfiguration",
            json!({}),
            json!({"webhooks": {"validation": {"enabled": false}}}),
        ),
        ("HorizontalPodAutoscaler", json!({"controlPlane": {"autoscaling": {"enabled": true}}}), json!({})),
        ("ServiceMonitor", json!({"monitoring": {"serviceMonitor": {"enabled": true}}}), json!({})),
        ("PodMonitor", json!({"monitoring": {"podMonitor": {"enabled": true}}}), json!({})),
    ] {
        assert_eq!((count(kind, on), count(kind, off)), (1, 0), "{kind}");
    }
}
