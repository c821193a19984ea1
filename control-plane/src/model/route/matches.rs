//! Conditions on requests.

use std::collections::BTreeMap;

/// One match: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMatch {
    /// Its own name in the rule, or empty (VirtualService).
    pub name: String,
    /// The path, without the query.
    pub path: PathMatch,
    /// Whether upper and lower case of the path are the same.
    pub ignore_case: bool,
    /// The method.
    pub method: Option<StringMatch>,
    /// Headers, by lower-case name; `:authority` and `:scheme` too.
    pub headers: Vec<HeaderMatch>,
    /// Parameters of the query.
    pub query: Vec<QueryMatch>,
    /// Who calls.
    pub source: Source,
    /// The port of the Service that is called.
    pub port: Option<u16>,
    /// What Envoy calls the statistics of its requests, or empty.
    pub stat_prefix: String,
    /// Path of the field, for findings. Empty for what stands for a match that is not written.
    pub field: String,
}

impl RequestMatch {
    /// Every request.
    pub fn everything() -> Self {
        Self {
            name: String::new(),
            path: PathMatch::Prefix("/".to_owned()),
            ignore_case: false,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            source: Source::default(),
            port: None,
            stat_prefix: String::new(),
            field: String::new(),
        }
    }

    /// Whether both are for the same requests, by the same conditions.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let conditions = |of: &Self| Self {
            name: String::new(),
            stat_prefix: String::new(),
            field: String::new(),
            ..of.clone()
        };
        conditions(self) == conditions(other)
    }
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Leading path elements: `/a` matches `/a` and `/a/b`, not `/ab`. Without a trailing `/`, unless it is `/`.
    Prefix(String),
    /// Leading characters: `/a` matches `/ab` too.
    Characters(String),
    /// The whole path matches this expression (RE2 syntax).
    Regex(String),
    /// Service and method of a gRPC call; at least one.
    Grpc {
        /// Full name of the service.
        service: Option<StringMatch>,
        /// Name of the method.
        method: Option<StringMatch>,
    },
}

/// A condition on one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: String,
    /// What the value must be.
    pub value: StringMatch,
    /// The condition must not hold. It does not hold for a header that is missing.
    pub is_inverted: bool,
}

/// A condition on one parameter of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name; upper and lower case differ.
    pub name: String,
    /// What the value must be.
    pub value: StringMatch,
}

/// A condition on a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// It begins so.
    Prefix(String),
    /// The whole string matches this expression (RE2 syntax).
    Regex(String),
    /// It is there.
    Present,
}

/// A condition on the workload that calls. The default is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its namespace.
    pub namespace: Option<String>,
}
