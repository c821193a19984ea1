//! What a NACK says: which resources the proxy refuses, by which field, for which reason, and whose they are.
//!
//! Everything in a NACK comes from the other end, so it is cut to a size before it is kept or logged.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::nack::{self, Problem};
use outrigger_xds_api::wire::rpc;
use time::OffsetDateTime;

use crate::snapshot::Resource;
use crate::translate::{Cause, causes};

/// A text of a NACK is cut to this length.
const TEXT_MAX_BYTES: usize = 4096;

/// How many refusals of one NACK are kept.
const REFUSALS_MAX: usize = 100;

/// One thing that is wrong with a resource, says a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The resource's name.
    pub resource: String,
    /// Path of the field in the resource; empty when the proxy does not say it.
    pub field: String,
    /// The reason.
    pub reason: String,
    /// The objects that made that field, each with its own field; empty when they cannot be told.
    pub objects: Vec<Cause>,
    /// When it was refused.
    pub at: OffsetDateTime,
}

/// Reads a NACK of a response of which `names` are rejected. `find` gives a resource as it was sent.
///
/// Our proxy tells each problem. Of any other there is only the text: it is said of the resources that it names, or of all when
/// it names none.
pub(super) fn read<'a>(
    of: ResourceType,
    status: &rpc::Status,
    names: &[String],
    find: impl Fn(&str) -> Option<&'a Arc<Resource>>,
) -> Vec<Refusal> {
    let at = OffsetDateTime::now_utc();
    let refusal = |name: &str, problem: Problem| {
        let Problem { mut field, mut reason } = problem;
        cut(&mut field);
        cut(&mut reason);
        let objects = find(name).map(|resource| causes(of, &resource.content, &field)).unwrap_or_default();
        Refusal { resource: name.to_owned(), field, reason, objects, at }
    };
    let mut told = nack::refused(of, &status.details);
    told.retain(|refused| names.contains(&refused.name));
    if told.is_empty() {
        let is_named = |name: &&String| status.message.contains(name.as_str());
        let named = names.iter().any(|name| is_named(&name));
        let whole = || Problem { field: String::new(), reason: status.message.clone() };
        let names = names.iter().filter(|name| !named || is_named(name));
        return names.take(REFUSALS_MAX).map(|name| refusal(name, whole())).collect();
    }
    let problems = told.into_iter().flat_map(|refused| {
        let name = refused.name;
        refused.problems.into_iter().map(move |problem| (name.clone(), problem))
    });
    problems.take(REFUSALS_MAX).map(|(name, problem)| refusal(&name, problem)).collect()
}

/// Cuts a text that came from the other end.
pub(super) fn cut(text: &mut String) {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_xds_api::session::nack::Refused;

    fn read(status: &rpc::Status) -> Vec<(String, String, String)> {
        let names = ["a", "b"].map(str::to_owned);
        let refusals = super::read(ResourceType::Cluster, status, &names, |_| None).into_iter();
        refusals.map(|refusal| (refusal.resource, refusal.field, refusal.reason)).collect()
    }

    fn status(message: &str, refused: Vec<Refused>) -> rpc::Status {
        let details = nack::details(ResourceType::Cluster, refused);
        rpc::Status { code: 3, message: message.to_owned(), details }
    }

    fn all(of: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        of.iter().map(|&(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).collect()
    }

    #[test]
    fn details_come_first_and_then_the_names_in_the_text() {
        let problem =
            |field: &str, reason: &str| Problem { field: field.to_owned(), reason: reason.to_owned() };
        let refused = |name: &str| Refused {
            name: name.to_owned(),
            problems: vec![problem("x", "one"), problem("", "two")],
        };
        let told = status("all of it", vec![refused("b"), refused("stranger")]);
        assert_eq!(read(&told), all(&[("b", "x", "one"), ("b", "", "two")]));
        let envoys = "Error adding/updating cluster(s) b: no";
        assert_eq!(
            read(&status(envoys, vec![])),
            all(&[("a", "", envoys), ("b", "", envoys)]),
            "`a` is in it"
        );
        assert_eq!(read(&status("wrong: b", vec![])), all(&[("b", "", "wrong: b")]));
        assert_eq!(read(&status("?", vec![])), all(&[("a", "", "?"), ("b", "", "?")]));
    }

    #[test]
    fn texts_are_cut() {
        let long = "ä".repeat(TEXT_MAX_BYTES);
        assert_eq!(read(&status(&long, vec![]))[0].2.len(), TEXT_MAX_BYTES);
        let many = (0..500).map(|_| Problem { field: String::new(), reason: String::new() });
        let refused = Refused { name: "a".to_owned(), problems: many.collect() };
        assert_eq!(read(&status("", vec![refused])).len(), REFUSALS_MAX);
    }
}
