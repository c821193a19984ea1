//! Content negotiation: the first form of the `Accept` header that the server has.

use crate::status::{Result, Status};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Plain,
    /// `meta.k8s.io/v1 Table`: rows to print.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`, alone or in a list.
    Metadata,
}

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) form: Form,
    /// As `application/yaml`; otherwise JSON.
    pub(crate) yaml: bool,
}

/// One entry of the header.
struct Range<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Range<'_> {
    fn parameter(&self, key: &str) -> &str {
        self.parameters.iter().find(|(name, _)| *name == key).map(|(_, value)| *value).unwrap_or_default()
    }
}

fn ranges(header: &str) -> impl Iterator<Item = Range<'_>> {
    header.split(',').map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('=')).collect();
        Range { media_type, parameters }
    })
}

/// Chooses the form of objects. No header means JSON.
pub(crate) fn negotiate(header: &str) -> Result<Accept> {
    const NONE_OF_THESE: &str = "406: Not Acceptable\n\nAvailable representations: application/json, \
        application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, \
        application/vnd.kubernetes.protobuf;stream=watch";
    const NO_SUCH_TYPE: &str = "only the following media types are accepted: application/json, application/yaml, \
        application/vnd.kubernetes.protobuf";
    if header.is_empty() {
        return Ok(Accept { form: Form::Plain, yaml: false });
    }
    let mut known_type = false;
    for range in ranges(header) {
        let yaml = match range.media_type {
            "application/json" | "application/*" | "*/*" => false,
            "application/yaml" => true,
            _ => continue,
        };
        known_type = true;
        let of_meta = range.parameter("g") == "meta.k8s.io" && range.parameter("v") == "v1";
        let form = match range.parameter("as") {
            "" => Form::Plain,
            "Table" if of_meta => Form::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if of_meta => Form::Metadata,
            _ => continue,
        };
        return Ok(Accept { form, yaml });
    }
    let mut status = Status::new(406, "NotAcceptable", if known_type { NO_SUCH_TYPE } else { NONE_OF_THESE });
    if !known_type {
        status.details = Some(Box::new(serde_json::json!({})));
    }
    Err(status)
}

/// Does the client want discovery in one document?
pub(crate) fn aggregated_discovery(header: &str) -> bool {
    ranges(header)
        .find(|range| matches!(range.media_type, "application/json" | "*/*"))
        .is_some_and(|range| range.parameter("as") == "APIGroupDiscoveryList" && range.parameter("v") == "v2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_wins() {
        let form = |header: &str| negotiate(header).map(|accept| accept.form).map_err(|status| status.code);
        assert_eq!(form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Ok(Form::Table));
        assert_eq!(form("application/json;as=Table,application/json"), Ok(Form::Plain));
        assert_eq!(form("application/json;as=Table"), Err(406));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Plain));
        assert_eq!(form("text/html"), Err(406));
        assert_eq!(form("*/*"), Ok(Form::Plain));
    }
}
