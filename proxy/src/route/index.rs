//! Which routes of a virtual host can match a path at all: hash maps over exact paths and prefixes, so that the first match among
//! a thousand routes costs as much as among ten.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{PathMatcher, Route};

/// Positions of routes by a path or the beginning of one.
type Positions = FxHashMap<Box<[u8]>, Vec<u32>>;

/// With fewer routes than this, trying one after the other is cheaper.
const WORTH_INDEXING: usize = 8;

/// Positions of routes by what their paths begin with.
#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    exact: Positions,
    /// By length of the prefix, shortest first.
    prefixes: Vec<(usize, Positions)>,
    /// Regexes and paths without case: they have to be tried.
    others: Vec<u32>,
}

impl RouteIndex {
    /// `None` when there are too few routes for an index to be worth it.
    pub(super) fn build(routes: &[Arc<Route>]) -> Option<Self> {
        if routes.len() < WORTH_INDEXING {
            return None;
        }
        let mut index = Self::default();
        for (position, route) in (0u32..).zip(routes) {
            let positions = match &route.matcher.path {
                _ if !route.matcher.case_sensitive => &mut index.others,
                PathMatcher::Exact(path) => index.exact.entry(path.as_bytes().into()).or_default(),
                PathMatcher::Prefix(prefix) | PathMatcher::SeparatedPrefix(prefix) => {
                    index.of_length(prefix.len()).entry(prefix.as_bytes().into()).or_default()
                }
                PathMatcher::Regex(_) => &mut index.others,
                PathMatcher::Connect => continue,
            };
            positions.push(position);
        }
        index.prefixes.sort_by_key(|(len, _)| *len);
        Some(index)
    }

    fn of_length(&mut self, len: usize) -> &mut Positions {
        let at = self.prefixes.iter().position(|(l, _)| *l == len).unwrap_or_else(|| {
            self.prefixes.push((len, FxHashMap::default()));
            self.prefixes.len() - 1
        });
        &mut self.prefixes[at].1
    }

    /// Positions of the routes whose path may match, in order.
    pub(super) fn candidates(&self, path: &str) -> SmallVec<[u32; 16]> {
        let path = path.as_bytes();
        let mut found: SmallVec<[u32; 16]> = SmallVec::from_slice(&self.others);
        if let Some(positions) = self.exact.get(path) {
            found.extend_from_slice(positions);
        }
        for (len, prefixes) in self.prefixes.iter().take_while(|(len, _)| *len <= path.len()) {
            if let Some(positions) = prefixes.get(&path[..*len]) {
                found.extend_from_slice(positions);
            }
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::route::{Action, DirectResponse, RequestView, RequireTls, RouteMatch, VirtualHost};

    fn random_route(rng: &mut fastrand::Rng) -> Arc<Route> {
        let mut text = String::from("/");
        (0..rng.usize(..4)).for_each(|_| text.push(*rng.choice(['a', 'b', '/', 'A']).as_ref().unwrap()));
        let path = match rng.u32(..5) {
            0 => PathMatcher::Exact(text.into()),
            1 => PathMatcher::Regex(outrigger_xds_api::expression::of_all(&format!("{text}.?")).unwrap()),
            2 => PathMatcher::SeparatedPrefix(text.into()),
            _ => PathMatcher::Prefix(text.into()),
        };
        let fraction_ppm = (rng.u32(..4) == 0).then_some(0);
        let action = Action::DirectResponse(DirectResponse {
            status: StatusCode::OK,
            body: Default::default(),
            headers: HeaderMap::new(),
        });
        let case_sensitive = rng.u32(..4) > 0;
        let matcher = RouteMatch { case_sensitive, fraction_ppm, ..RouteMatch::of_path(path) };
        Arc::new(Route::new(matcher, action))
    }

    /// The index finds what trying one route after the other finds.
    #[test]
    fn equals_the_naive_first_match() {
        let mut rng = fastrand::Rng::with_seed(7);
        let headers = HeaderMap::new();
        let mut hits = 0;
        for _ in 0..500 {
            let routes: Vec<_> = (0..rng.usize(1..40)).map(|_| random_route(&mut rng)).collect();
            let host = VirtualHost::new("v".into(), vec!["*".into()], routes, RequireTls::None, 0);
            for _ in 0..20 {
                let mut path = String::from("/");
                (0..rng.usize(..6))
                    .for_each(|_| path.push(*rng.choice(['a', 'b', '/', 'A']).as_ref().unwrap()));
                let request = RequestView {
                    method: "GET",
                    path: &path,
                    authority: "h",
                    scheme: "http",
                    headers: &headers,
                    random_ppm: 1,
                    peer: Default::default(),
                };
                let naive = host.routes.iter().position(|r| r.matcher.matches(&path, &request));
                let indexed = host
                    .route(&path, &request)
                    .map(|r| host.routes.iter().position(|o| Arc::ptr_eq(o, r)).unwrap());
                assert_eq!(indexed, naive, "{path}");
                hits += usize::from(naive.is_some());
            }
        }
        assert!(hits > 1000, "{hits}");
    }
}
