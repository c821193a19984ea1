//! The status of policies that are attached to objects: the Gateway API's `PolicyStatus`, one ancestor for each target, with the
//! conditions `Accepted` and, while the last good version is in force, `PartiallyInvalid`.

use serde_json::{Value, json};

use super::conditions::{Condition, condition, message, partially_invalid};
use crate::model::{Concern, Finding};

/// `status.ancestors` of the policy `object` in `namespace`: those of other controllers as they are, and those of `controller`, one for each of its
/// `spec.targetRefs`. `timed` writes a condition, with the times of the old ones.
pub(super) fn ancestors(
    object: &Value,
    namespace: &str,
    controller: &str,
    rejections: &[Finding],
    problems: &[Finding],
    timed: impl Fn(&Condition, &Value) -> Value,
) -> Value {
    let before = object["status"]["ancestors"].as_array().map_or(&[][..], Vec::as_slice);
    let is_ours = |ancestor: &&Value| ancestor["controllerName"] == controller;
    let mut all: Vec<Value> = before.iter().filter(|ancestor| !is_ours(ancestor)).cloned().collect();
    let targets = object["spec"]["targetRefs"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, target) in targets.iter().enumerate() {
        let mut reference = target.clone();
        reference["namespace"] = namespace.into();
        let old = before.iter().filter(is_ours).find(|ancestor| ancestor["ancestorRef"] == reference);
        let old = old.map_or(&Value::Null, |ancestor| &ancestor["conditions"]);
        let found = conditions(rejections, problems, index);
        let conditions: Vec<Value> = found.iter().map(|found| timed(found, old)).collect();
        all.push(json!({"ancestorRef": reference, "controllerName": controller, "conditions": conditions}));
    }
    all.into()
}

/// The conditions of a policy at the target of this number.
fn conditions(rejections: &[Finding], problems: &[Finding], target: usize) -> Vec<Condition> {
    let field = format!("spec.targetRefs[{target}]");
    let problems: Vec<&Finding> = problems.iter().filter(|finding| finding.field == field).collect();
    let reason = problems.iter().find_map(|finding| match finding.concern {
        Concern::TargetNotFound => Some("TargetNotFound"),
        Concern::Conflicted => Some("Conflicted"),
        _ => None,
    });
    let fell_back = rejections.iter().any(|finding| finding.concern == Concern::FellBack);
    let accepted = match reason {
        _ if !rejections.is_empty() && !fell_back => {
            condition("Accepted", false, "Invalid", message(rejections.iter()))
        }
        Some(reason) => condition("Accepted", false, reason, message(problems.into_iter())),
        // What keeps it from having its whole effect.
        None => condition("Accepted", true, "Accepted", message(problems.into_iter())),
    };
    let fallen = fell_back.then(|| partially_invalid("Invalid", rejections));
    [accepted].into_iter().chain(fallen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::test_origin;

    fn finding(field: &str, concern: Concern) -> Finding {
        Finding::at(&test_origin("TrafficPolicy", "shop", "p"), field, "why").about(concern)
    }

    fn shown(rejections: &[Finding], problems: &[Finding]) -> Vec<String> {
        let all = conditions(rejections, problems, 1).into_iter();
        all.map(|found| format!("{} {} {} {}", found.of, found.is_true, found.reason, found.message))
            .collect()
    }

    #[test]
    fn reasons_of_conditions() {
        assert_eq!(shown(&[], &[]), ["Accepted true Accepted "]);
        let here = "spec.targetRefs[1]";
        for (concern, expected) in [
            (Concern::TargetNotFound, "Accepted false TargetNotFound spec.targetRefs[1]: why"),
            (Concern::Conflicted, "Accepted false Conflicted spec.targetRefs[1]: why"),
            (Concern::Other, "Accepted true Accepted spec.targetRefs[1]: why"),
        ] {
            assert_eq!(shown(&[], &[finding(here, concern)]), [expected]);
            assert_eq!(shown(&[], &[finding("spec.targetRefs[0]", concern)]), ["Accepted true Accepted "]);
        }
        let refused = finding("spec.rateLimit.requests", Concern::Other);
        assert_eq!(shown(&[refused], &[]), ["Accepted false Invalid spec.rateLimit.requests: why"]);
        let fell_back = finding("spec.rateLimit.requests", Concern::FellBack);
        assert_eq!(
            shown(&[fell_back], &[finding(here, Concern::Conflicted)]),
            [
                "Accepted false Conflicted spec.targetRefs[1]: why",
                "PartiallyInvalid true Invalid Fall Back: spec.rateLimit.requests: why"
            ]
        );
    }

    #[test]
    fn one_ancestor_for_each_target_beside_those_of_others() {
        let target = |name: &str| json!({"group": "", "kind": "Service", "name": name});
        let theirs = json!({"ancestorRef": target("a"), "controllerName": "other.example/x"});
        let gone = json!({"ancestorRef": target("gone"), "controllerName": "ours"});
        let object = json!({
            "spec": {"targetRefs": [target("a"), target("b")]},
            "status": {"ancestors": [theirs, gone]},
        });
        let problem = [finding("spec.targetRefs[1]", Concern::TargetNotFound)];
        let written =
            ancestors(&object, "shop", "ours", &[], &problem, |found, old| json!([found.reason, old]));
        let ours = |name: &str, reason: &str| {
            let reference = json!({"group": "", "kind": "Service", "name": name, "namespace": "shop"});
            json!({"ancestorRef": reference, "controllerName": "ours", "conditions": [[reason, null]]})
        };
        assert_eq!(written, json!([theirs, ours("a", "Accepted"), ours("b", "TargetNotFound")]));
    }
}
