//! What a NACK says about each resource that it refuses: `google.rpc` error details in `error_detail.details`.
//!
//! xDS has one text for a whole response. Our proxy says more beside that text, in `google/rpc/error_details.proto`'s words: for
//! each refused resource a `ResourceInfo`, then a `BadRequest` with the fields that are wrong. Who does not know these skips
//! them. A NACK without them, such as Envoy's, refuses the whole response as far as anybody can tell.

use prost::Message;

use crate::ResourceType;
use crate::wire::protobuf::Any;

const RESOURCE_INFO: &str = "type.googleapis.com/google.rpc.ResourceInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// A resource that a client refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The resource's name.
    pub name: String,
    /// What is wrong with it. Not empty when our proxy says it.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, as in `virtual_hosts[0].domains[1]`; empty for the resource as a whole.
    pub field: String,
    /// Why, without the path.
    pub reason: String,
}

/// `google.rpc.ResourceInfo`
#[derive(Clone, PartialEq, Message)]
struct ResourceInfo {
    /// A type URL.
    #[prost(string, tag = "1")]
    resource_type: String,
    #[prost(string, tag = "2")]
    resource_name: String,
}

/// `google.rpc.BadRequest`
#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

/// `google.rpc.BadRequest.FieldViolation`
#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

/// The details of a NACK that refuses these resources.
pub fn details(of: ResourceType, refused: impl IntoIterator<Item = Refused>) -> Vec<Any> {
    let any = |type_url: &str, value: Vec<u8>| Any { type_url: type_url.to_owned(), value };
    let of_one = |refused: Refused| {
        let resource = ResourceInfo { resource_type: of.type_url().to_owned(), resource_name: refused.name };
        let violations = refused.problems.into_iter();
        let violations = violations.map(|p| FieldViolation { field: p.field, description: p.reason });
        let fields = BadRequest { field_violations: violations.collect() };
        [any(RESOURCE_INFO, resource.encode_to_vec()), any(BAD_REQUEST, fields.encode_to_vec())]
    };
    refused.into_iter().flat_map(of_one).collect()
}

/// The resources of type `of` that the details of a NACK name. Empty when they name none; what is not understood is skipped,
/// for it comes from the other end.
pub fn refused(of: ResourceType, details: &[Any]) -> Vec<Refused> {
    let mut all: Vec<Refused> = Vec::new();
    // What fields are said of belongs to the resource that was named last.
    let mut is_of_type = false;
    for detail in details {
        match detail.type_url.as_str() {
            RESOURCE_INFO => {
                let Ok(info) = ResourceInfo::decode(detail.value.as_slice()) else { continue };
                is_of_type = info.resource_type == of.type_url();
                if is_of_type {
                    all.push(Refused { name: info.resource_name, problems: Vec::new() });
                }
            }
            BAD_REQUEST if is_of_type => {
                let (Some(last), Ok(fields)) = (all.last_mut(), BadRequest::decode(detail.value.as_slice()))
                else {
                    continue;
                };
                let problems = fields.field_violations.into_iter();
                last.problems
                    .extend(problems.map(|found| Problem { field: found.field, reason: found.description }));
            }
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Refused> {
        let problem =
            |field: &str, reason: &str| Problem { field: field.to_owned(), reason: reason.to_owned() };
        vec![
            Refused {
                name: "a".to_owned(),
                problems: vec![problem("x.y[0]", "no: really"), problem("", "all")],
            },
            Refused { name: "b: c".to_owned(), problems: vec![problem("z", "")] },
        ]
    }

    #[test]
    fn what_is_said_is_read() {
        let details = details(ResourceType::Cluster, sample());
        assert_eq!(refused(ResourceType::Cluster, &details), sample());
        assert_eq!(refused(ResourceType::Listener, &details), []);
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        let mut details = details(ResourceType::Cluster, sample());
        let any = |type_url: &str, value: &[u8]| Any { type_url: type_url.into(), value: value.into() };
        details.insert(1, any("type.googleapis.com/google.rpc.DebugInfo", b"\x01"));
        details.insert(2, any(BAD_REQUEST, b"\xff"));
        details.insert(3, any(RESOURCE_INFO, b"\xff"));
        assert_eq!(refused(ResourceType::Cluster, &details), sample());
        // Fields of no resource.
        assert_eq!(refused(ResourceType::Cluster, &[any(BAD_REQUEST, b"")]), []);
    }
}
