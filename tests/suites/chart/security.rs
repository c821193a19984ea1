//! Least privilege: rights in the cluster, and of the containers.

use serde_json::Value;

use crate::every_set;

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// (API group, resources, verbs, whether names are needed): all that the control plane may do.
const RIGHTS: &[(&str, &[&str], &[&str], bool)] = &[
    ("", &["services", "pods", "nodes", "namespaces"], &["get", "list", "watch"], false),
    ("discovery.k8s.io", &["endpointslices"], &["get", "list", "watch"], false),
    (
        "gateway.networking.k8s.io",
        &["httproutes", "grpcroutes", "referencegrants"],
        &["get", "list", "watch"],
        false,
    ),
    (
        "networking.istio.io",
        &["virtualservices", "destinationrules", "serviceentries", "workloadentries", "workloadgroups"],
        &["get", "list", "watch"],
        false,
    ),
    ("security.istio.io", &["peerauthentications"], &["get", "list", "watch"], false),
    ("outrigger.dev", &["trafficpolicies"], &["get", "list", "watch"], false),
    ("gateway.networking.k8s.io", &["httproutes/status", "grpcroutes/status"], &["patch"], false),
    (
        "networking.istio.io",
        &[
            "virtualservices/status",
            "destinationrules/status",
            "serviceentries/status",
            "workloadentries/status",
            "workloadgroups/status",
        ],
        &["patch"],
        false,
    ),
    ("security.istio.io", &["peerauthentications/status"], &["patch"], false),
    ("outrigger.dev", &["trafficpolicies/status"], &["patch"], false),
    ("apiextensions.k8s.io", &["customresourcedefinitions"], &["get", "list", "watch"], false),
    ("authentication.k8s.io", &["tokenreviews"], &["create"], false),
    (
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        &["get", "update", "patch"],
        true,
    ),
    ("", &["configmaps"], &["create"], false),
    ("", &["configmaps"], &["get", "update", "patch"], true),
    ("", &["secrets"], &["create"], false),
    ("", &["secrets"], &["get", "update", "patch"], true),
    ("coordination.k8s.io", &["leases"], &["create"], false),
    ("coordination.k8s.io", &["leases"], &["get", "update", "patch"], true),
];

#[test]
fn the_control_plane_may_do_only_what_it_does() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        for role in rendered.of_kind("ClusterRole").chain(rendered.of_kind("Role")) {
            for rule in role["rules"].as_array().unwrap() {
                assert!(!rule.to_string().contains('*'), "{name}: {rule}");
                assert!(rule["nonResourceURLs"].is_null(), "{name}: {rule}");
                let named = !texts(&rule["resourceNames"]).is_empty();
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for verb in texts(&rule["verbs"]) {
                            let allowed = RIGHTS.iter().any(|(of, resources, verbs, needs_name)| {
                                *of == group
                                    && resources.contains(&resource)
                                    && verbs.contains(&verb)
                                    && (named || !needs_name)
                            });
                            assert!(allowed, "{name}: {verb} {group}/{resource}, named: {named}");
                        }
                    }
                }
            }
        }
        let everywhere = rendered.the("ClusterRole")["rules"].to_string();
        assert!(!everywhere.contains("secrets"), "{name}: Secrets only in its own namespace");
    }
}

#[test]
fn a_root_of_ones_own_takes_the_right_to_secrets_away() {
    let Some(sets) = every_set() else { return };
    for (name, release, rendered) in sets {
        let own = !release.values["ca"]["existingSecret"].is_null();
        let may = rendered.the("Role")["rules"].to_string().contains("secrets");
        assert_eq!(may, !own, "{name}");
    }
}

#[test]
fn rights_go_to_the_control_planes_account_alone() {
    let Some(sets) = every_set() else { return };
    for (name, release, rendered) in sets {
        let account = rendered.the("ServiceAccount");
        for (binding, role) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
            let binding = rendered.the(binding);
            assert_eq!(binding["roleRef"]["kind"], role, "{name}");
            assert_eq!(binding["roleRef"]["name"], rendered.the(role)["metadata"]["name"], "{name}");
            let subjects = binding["subjects"].as_array().unwrap();
            assert_eq!(subjects.len(), 1, "{name}");
            assert_eq!(subjects[0]["kind"], "ServiceAccount", "{name}");
            assert_eq!(subjects[0]["name"], account["metadata"]["name"], "{name}");
            assert_eq!(subjects[0]["namespace"], release.namespace.as_str(), "{name}");
        }
        assert_eq!(account["automountServiceAccountToken"], false, "{name}");
        let deployment = &rendered.the("Deployment")["spec"]["template"]["spec"];
        assert_eq!(deployment["serviceAccountName"], account["metadata"]["name"], "{name}");
        assert_eq!(
            rendered.the("Pod")["spec"]["automountServiceAccountToken"],
            false,
            "{name}: the test has no rights"
        );
    }
}

#[test]
fn containers_are_restricted_and_sized() {
    let Some(sets) = every_set() else { return };
    for (name, _, rendered) in sets {
        let pods = [&rendered.the("Deployment")["spec"]["template"]["spec"], &rendered.the("Pod")["spec"]];
        for pod in pods {
            let all = &pod["securityContext"];
            assert_eq!(all["runAsNonRoot"], true, "{name}");
            assert_eq!((&all["runAsUser"], &all["runAsGroup"]), (&1337.into(), &1337.into()), "{name}");
            assert_eq!(all["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for refused in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
                assert!(pod[refused].is_null(), "{name}: {refused}");
            }
            let containers = pod["containers"].as_array().unwrap();
            assert!(!containers.is_empty(), "{name}");
            for container in containers {
                let own = &container["securityContext"];
                assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(own["privileged"], false, "{name}");
                assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(own["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{name}");
                for overriding in ["runAsUser", "runAsNonRoot", "seccompProfile"] {
                    assert!(own[overriding].is_null(), "{name}: {overriding} is the Pod's");
                }
                for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                    let amount = container["resources"].pointer(amount);
                    assert!(amount.is_some_and(Value::is_string), "{name}: {}", container["resources"]);
                }
            }
        }
    }
}

#[test]
fn the_mounted_key_is_for_its_group_alone() {
    let Some(sets) = every_set() else { return };
    let mut seen = 0;
    for (name, _, rendered) in sets {
        let pod = &rendered.the("Deployment")["spec"]["template"]["spec"];
        for volume in pod["volumes"].as_array().unwrap().iter().filter(|volume| !volume["secret"].is_null()) {
            assert_eq!(volume["secret"]["defaultMode"], 0o440, "{name}");
            assert_eq!(pod["securityContext"]["fsGroup"], 1337, "{name}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}
