//! What is known of an object as conditions, in the words of the Gateway API: `Accepted`, `ResolvedRefs`, `PartiallyInvalid`.

use serde_json::{Value, json};

use crate::model::{Concern, Finding};

/// Characters of a message; an object of many rules may have as much wrong with it. (Kubernetes allows 32,768.)
const MESSAGE_MAX: usize = 4096;

/// The types of the conditions that are written here; those of other types are others'.
pub(super) const TYPES: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// `type`
    pub(super) of: &'static str,
    pub(super) is_true: bool,
    /// One word, in camel case.
    pub(super) reason: &'static str,
    /// Sentences, each with the field that it is about; may be empty.
    pub(super) message: String,
}

/// The conditions of an object by what is wrong with it, or of one of its parents by the parent's number.
pub(super) fn conditions(
    rejections: &[Finding],
    problems: &[Finding],
    parent: Option<usize>,
) -> Vec<Condition> {
    let of_parent = parent.map(|index| format!("spec.parentRefs[{index}]"));
    // What is wrong with another parent is not this one's business.
    let concerns = |finding: &&Finding| match &of_parent {
        Some(parent) => !finding.field.starts_with("spec.parentRefs[") || finding.field == *parent,
        None => true,
    };
    let problems: Vec<&Finding> = problems.iter().filter(concerns).collect();
    let with = |wanted: &[Concern]| -> Vec<&Finding> {
        problems.iter().filter(|finding| wanted.contains(&finding.concern)).copied().collect()
    };
    let fell_back = rejections.iter().any(|finding| finding.concern == Concern::FellBack);
    let unattached = with(&[Concern::NoMatchingParent]);
    let accepted = if !rejections.is_empty() && !fell_back {
        condition("Accepted", false, "UnsupportedValue", message(rejections.iter()))
    } else if !unattached.is_empty() {
        condition("Accepted", false, "NoMatchingParent", message(unattached.into_iter()))
    } else {
        // What keeps it from having its whole effect.
        condition("Accepted", true, "Accepted", message(with(&[Concern::Other]).into_iter()))
    };
    let unresolved = with(&[Concern::InvalidKind, Concern::BackendNotFound, Concern::RefNotPermitted]);
    let reason = match unresolved.first().map(|finding| finding.concern) {
        None => "ResolvedRefs",
        Some(Concern::RefNotPermitted) => "RefNotPermitted",
        Some(Concern::InvalidKind) => "InvalidKind",
        Some(_) => "BackendNotFound",
    };
    let resolved = condition("ResolvedRefs", unresolved.is_empty(), reason, message(unresolved.into_iter()));
    let mut all = vec![accepted, resolved];
    if fell_back {
        all.push(partially_invalid("UnsupportedValue", rejections));
    }
    all
}

/// The last good version is in force.
pub(super) fn partially_invalid(reason: &'static str, rejections: &[Finding]) -> Condition {
    // The Gateway API wants these words in front.
    condition("PartiallyInvalid", true, reason, format!("Fall Back: {}", message(rejections.iter())))
}

pub(super) fn condition(of: &'static str, is_true: bool, reason: &'static str, message: String) -> Condition {
    Condition { of, is_true, reason, message }
}

pub(super) fn message<'a>(findings: impl Iterator<Item = &'a Finding>) -> String {
    let shown = findings.map(|finding| match finding.field.as_str() {
        "" => finding.reason.clone(),
        field => format!("{field}: {}", finding.reason),
    });
    let mut all = shown.collect::<Vec<_>>().join("; ");
    if let Some((end, _)) = all.char_indices().nth(MESSAGE_MAX) {
        all.truncate(end);
        all.push('…');
    }
    all
}

impl Condition {
    /// As Kubernetes writes it, without times.
    pub(super) fn shown(&self) -> Value {
        json!({
            "type": self.of,
            "status": if self.is_true { "True" } else { "False" },
            "reason": self.reason,
            "message": self.message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::test_origin;

    fn finding(field: &str, concern: Concern) -> Finding {
        Finding::at(&test_origin("HTTPRoute", "shop", "r"), field, "why").about(concern)
    }

    fn shown(rejections: &[Finding], problems: &[Finding], parent: Option<usize>) -> Vec<String> {
        let all = conditions(rejections, problems, parent).into_iter();
        all.map(|found| format!("{} {} {} {}", found.of, found.is_true, found.reason, found.message))
            .collect()
    }

    #[test]
    fn reasons_of_conditions() {
        let fine = ["Accepted true Accepted ", "ResolvedRefs true ResolvedRefs "];
        assert_eq!(shown(&[], &[], Some(0)), fine);
        let parent = finding("spec.parentRefs[1]", Concern::NoMatchingParent);
        assert_eq!(shown(&[], std::slice::from_ref(&parent), Some(0)), fine, "another parent's");
        assert_eq!(
            shown(&[], &[parent], Some(1))[0],
            "Accepted false NoMatchingParent spec.parentRefs[1]: why"
        );
        let backends = [
            finding("spec.rules[0].backendRefs[0]", Concern::RefNotPermitted),
            finding("spec.rules[0].backendRefs[1]", Concern::BackendNotFound),
        ];
        assert_eq!(
            shown(&[], &backends, None)[1],
            "ResolvedRefs false RefNotPermitted spec.rules[0].backendRefs[0]: why; spec.rules[0].backendRefs[1]: why"
        );
        let kind = [finding("spec.rules[0].backendRefs[0]", Concern::InvalidKind)];
        assert_eq!(
            shown(&[], &kind, None)[1],
            "ResolvedRefs false InvalidKind spec.rules[0].backendRefs[0]: why"
        );
        let note = finding("spec.hosts[0]", Concern::Other);
        assert_eq!(shown(&[], &[note], None)[0], "Accepted true Accepted spec.hosts[0]: why");
        let refused = finding("spec.x", Concern::Other);
        assert_eq!(shown(&[refused], &[], Some(0))[0], "Accepted false UnsupportedValue spec.x: why");
        let fell_back = finding("spec.x", Concern::FellBack);
        assert_eq!(
            shown(&[fell_back], &[], Some(0)),
            [fine[0], fine[1], "PartiallyInvalid true UnsupportedValue Fall Back: spec.x: why"]
        );
    }
}
