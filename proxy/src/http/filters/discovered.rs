//! A filter whose configuration is a resource of its own (`config_discovery`, ECDS).
//!
//! Main publishes, workers load. A request pins what it finds when its chain begins, so that it meets one version on its way there
//! and back. What comes later is for later requests; neither listener nor connections notice.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};

use super::{FilterReply, HttpFilter};
use crate::config::watch::Watch;
use crate::stream_info::{ResponseFlags, details};

/// `ExtensionConfigSource` in the place of a filter's configuration.
#[derive(Debug)]
pub struct DiscoveredFilter {
    /// `type_urls`, as message names.
    pub accepts: Box<[Box<str>]>,
    /// `default_config`: as long as the source has nothing.
    default: Option<Arc<HttpFilter>>,
    /// The name that is wanted of the source as long as this lives.
    _watch: Watch,
    current: ArcSwapOption<HttpFilter>,
}

impl DiscoveredFilter {
    /// Nothing has come from the source yet.
    pub fn new(accepts: Box<[Box<str>]>, default: Option<Arc<HttpFilter>>, watch: Watch) -> Self {
        Self { accepts, default, _watch: watch, current: ArcSwapOption::empty() }
    }

    /// Whether it takes configurations of this message.
    pub fn accepts(&self, message: &str) -> bool {
        self.accepts.iter().any(|accepted| **accepted == *message)
    }

    /// Whether something has come from the source.
    pub fn is_there(&self) -> bool {
        self.current.load().is_some()
    }

    /// For the next request. `None`: from now on the default holds.
    pub fn publish(&self, filter: Option<Arc<HttpFilter>>) {
        self.current.store(filter);
    }

    /// The present filter; `None`: requests cannot pass.
    pub fn get(&self) -> Option<Arc<HttpFilter>> {
        self.current.load_full().or_else(|| self.default.clone())
    }
}

/// What a request is told when there is neither a configuration nor a default. Envoy has no word for the reason.
pub(super) fn missing() -> Box<FilterReply> {
    Box::new(FilterReply {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        grpc_status: None,
        body: Default::default(),
        headers: HeaderMap::new(),
        takes_route_headers: true,
        flag: ResponseFlags::NO_FILTER_CONFIG_FOUND,
        details: details::FILTER_CONFIG_NOT_FOUND,
    })
}
