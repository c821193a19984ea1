//! Which routes of a virtual host may match a path: so that the cost of a request does not grow with the number of routes.
//!
//! Invariant: the candidates for a path are a superset of the routes that match it, in their order. Routes are still asked
//! themselves, so the index only has to leave out what cannot match.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{PathMatcher, Route};

/// Up to this number of routes asking each of them is cheaper than looking up.
const MIN_ROUTES: usize = 8;

/// Text → positions in `routes`.
type Positions = FxHashMap<Box<str>, Vec<u32>>;

/// Positions of routes by what their paths begin with. Built once, when the virtual host is compiled.
#[derive(Debug, Default)]
pub struct RouteIndex {
    /// `false`: too few routes, all are candidates.
    in_use: bool,
    /// `path`.
    exact: Positions,
    /// `prefix` and `path_separated_prefix`, by their length.
    prefixes: Vec<(usize, Positions)>,
    /// Everything else: regexes, and paths that match in any case.
    others: Vec<u32>,
}

impl RouteIndex {
    /// Indexes routes by their paths.
    pub fn build(routes: &[Arc<Route>]) -> Self {
        let mut index = Self::default();
        if routes.len() < MIN_ROUTES || u32::try_from(routes.len()).is_err() {
            return index;
        }
        index.in_use = true;
        for (i, route) in routes.iter().enumerate() {
            let (path, case_sensitive) = (&route.matcher.path, route.matcher.case_sensitive);
            let list = match path {
                PathMatcher::Exact(path) if case_sensitive => index.exact.entry(path.clone()).or_default(),
                PathMatcher::Prefix(prefix) | PathMatcher::SeparatedPrefix(prefix) if case_sensitive => {
                    of_length(&mut index.prefixes, prefix.len()).entry(prefix.clone()).or_default()
                }
                _ => &mut index.others,
            };
            list.push(i as u32);
        }
        index
    }

    /// The first of `routes` for which `matches` holds; `path` is what they are matched with.
    pub(super) fn find<'r>(
        &self,
        routes: &'r [Arc<Route>],
        path: &str,
        matches: impl Fn(&Route) -> bool,
    ) -> Option<&'r Arc<Route>> {
        if !self.in_use {
            return routes.iter().find(|route| matches(route));
        }
        let mut candidates: SmallVec<[u32; 16]> = SmallVec::new();
        candidates.extend(self.exact.get(path).into_iter().flatten().copied());
        for (len, prefixes) in &self.prefixes {
            if let Some(list) = path.get(..*len).and_then(|start| prefixes.get(start)) {
                candidates.extend_from_slice(list);
            }
        }
        candidates.extend_from_slice(&self.others);
        candidates.sort_unstable();
        candidates.into_iter().map(|i| &routes[i as usize]).find(|route| matches(route))
    }
}

fn of_length(prefixes: &mut Vec<(usize, Positions)>, len: usize) -> &mut Positions {
    let at = prefixes.iter().position(|(l, _)| *l == len).unwrap_or_else(|| {
        prefixes.push((len, Positions::default()));
        prefixes.len() - 1
    });
    &mut prefixes[at].1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::route::{Action, DirectResponse, RequestView, RouteMatch, full_match_regex};

    fn route(path: PathMatcher, case_sensitive: bool) -> Arc<Route> {
        let matcher = RouteMatch { path, case_sensitive, headers: Vec::new(), fraction_ppm: None };
        let answer = DirectResponse { status: StatusCode::OK, body: Bytes::new(), headers: HeaderMap::new() };
        Arc::new(Route { name: None, matcher, action: Action::DirectResponse(answer) })
    }

    /// A short path over few letters, so that paths often have something in common. `é` is two bytes long.
    fn text(random: &mut fastrand::Rng) -> Box<str> {
        let parts = ["/", "a", "B", "b", "é"];
        let mut text = String::from("/");
        for _ in 0..random.usize(..5) {
            text.push_str(parts[random.usize(..parts.len())]);
        }
        text.into()
    }

    #[test]
    fn finds_what_asking_every_route_finds() {
        let mut random = fastrand::Rng::with_seed(2);
        let headers = HeaderMap::new();
        for _ in 0..300 {
            let routes: Vec<Arc<Route>> = (0..random.usize(..40))
                .map(|_| {
                    let path = match random.u8(..8) {
                        0..3 => PathMatcher::Prefix(text(&mut random)),
                        3..5 => PathMatcher::Exact(text(&mut random)),
                        5..7 => PathMatcher::SeparatedPrefix(text(&mut random)),
                        _ => {
                            PathMatcher::Regex(full_match_regex(&format!("{}.*", text(&mut random))).unwrap())
                        }
                    };
                    route(path, random.u8(..5) > 0)
                })
                .collect();
            let index = RouteIndex::build(&routes);
            for _ in 0..50 {
                let path = text(&mut random);
                let view = RequestView {
                    method: "GET",
                    path: &path,
                    authority: "h",
                    scheme: "http",
                    headers: &headers,
                    random_ppm: 0,
                };
                let naive = routes.iter().find(|r| r.matcher.matches(&path, &view));
                let found = index.find(&routes, &path, |r| r.matcher.matches(&path, &view));
                assert_eq!(naive.map(Arc::as_ptr), found.map(Arc::as_ptr), "{path} in {routes:?}");
            }
        }
    }

    #[test]
    fn asks_few_of_many_routes() {
        let routes: Vec<Arc<Route>> =
            (0..1000).map(|i| route(PathMatcher::Prefix(format!("/svc-{i}/").into()), true)).collect();
        let asked = std::cell::Cell::new(0);
        let found = RouteIndex::build(&routes).find(&routes, "/svc-999/x", |_| {
            asked.set(asked.get() + 1);
            true
        });
        assert!(Arc::ptr_eq(found.unwrap(), &routes[999]));
        assert_eq!(asked.get(), 1);
    }
}
