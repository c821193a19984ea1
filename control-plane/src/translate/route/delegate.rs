//! Rules that one VirtualService leaves to another one.
//!
//! The other one's rules apply to what both match. What they say counts; what they do not say is what the first one says
//! (Istio).

use std::sync::Arc;

use crate::model::{
    DelegateRule, HeaderChanges, HeaderMatch, HeaderOperations, Name, PathMatch, RequestMatch, RouteAction,
    RouteRule, Source, VirtualService,
};
use crate::translate::InputView;

/// The VirtualService that `root` of the one called `from` delegates to: one without hosts, which sees it.
pub(in crate::translate) fn find<'a>(
    view: &InputView<'a>,
    from: &Name,
    root: &DelegateRule,
) -> Option<&'a Arc<VirtualService>> {
    let leaf = view.virtual_service(&root.to)?;
    (leaf.hosts.is_empty() && leaf.visibility.includes(&from.namespace)).then_some(leaf)
}

/// A rule of the other VirtualService as it applies. Without a match when it is for no request that `root` is for.
pub(in crate::translate) fn merged(root: &DelegateRule, leaf: &RouteRule) -> RouteRule {
    let mut rule = leaf.clone();
    let pairs = root.matches.iter().flat_map(|root| leaf.matches.iter().map(move |leaf| (root, leaf)));
    rule.matches = pairs.filter_map(|(root, leaf)| both(root, leaf)).collect();
    rule.name = match (root.name.as_str(), leaf.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (root, leaf) => format!("{root}-{leaf}"),
    };
    if let RouteAction::Forward(forward) = &mut rule.action {
        let defaults = &root.defaults;
        forward.timeout = forward.timeout.or(defaults.timeout);
        forward.retry = forward.retry.take().or_else(|| defaults.retry.clone());
        if forward.path.is_none() && forward.host.is_none() {
            (forward.path, forward.host) = (defaults.path.clone(), defaults.host.clone());
        }
        if forward.mirrors.is_empty() {
            forward.mirrors.clone_from(&defaults.mirrors);
        }
    }
    rule.headers = together(&root.headers, &leaf.headers);
    rule.fault = leaf.fault.clone().or_else(|| root.fault.clone());
    rule.cors = leaf.cors.clone().or_else(|| root.cors.clone());
    rule
}

fn together(root: &HeaderChanges, leaf: &HeaderChanges) -> HeaderChanges {
    let operations = |root: &HeaderOperations, leaf: &HeaderOperations| {
        let named = |root: &[(String, String)], leaf: &[(String, String)]| -> Vec<(String, String)> {
            let is_said = |name: &String| leaf.iter().any(|(other, _)| other == name);
            let unsaid = root.iter().filter(|(name, _)| !is_said(name));
            unsaid.chain(leaf).cloned().collect()
        };
        let more = root.remove.iter().filter(|name| !leaf.remove.contains(name));
        HeaderOperations {
            set: named(&root.set, &leaf.set),
            add: named(&root.add, &leaf.add),
            remove: more.chain(&leaf.remove).cloned().collect(),
        }
    };
    HeaderChanges {
        request: operations(&root.request, &leaf.request),
        response: operations(&root.response, &leaf.response),
    }
}

/// The requests that both match. `None` when there are none, or when it cannot be told: two conditions on one thing must be
/// equal, or that of `leaf` the narrower one of a path.
fn both(root: &RequestMatch, leaf: &RequestMatch) -> Option<RequestMatch> {
    let path = match (&root.path, &leaf.path) {
        (PathMatch::Prefix(all), leaf) if all == "/" => leaf.clone(),
        (root, PathMatch::Prefix(all)) if all == "/" => root.clone(),
        (root, leaf) if root == leaf => leaf.clone(),
        (PathMatch::Characters(start), leaf @ (PathMatch::Characters(path) | PathMatch::Exact(path)))
            if path.starts_with(start.as_str()) =>
        {
            leaf.clone()
        }
        _ => return None,
    };
    Some(RequestMatch {
        name: match (root.name.as_str(), leaf.name.as_str()) {
            ("", name) | (name, "") => name.to_owned(),
            (root, leaf) => format!("{root}-{leaf}"),
        },
        path,
        ignore_case: root.ignore_case || leaf.ignore_case,
        method: either(&root.method, &leaf.method)?,
        headers: union(&root.headers, &leaf.headers, |a: &HeaderMatch, b| {
            (&a.name, a.is_inverted) == (&b.name, b.is_inverted)
        })?,
        query: union(&root.query, &leaf.query, |a, b| a.name == b.name)?,
        source: sources(&root.source, &leaf.source)?,
        port: either(&root.port, &leaf.port)?,
        stat_prefix: if leaf.stat_prefix.is_empty() { &root.stat_prefix } else { &leaf.stat_prefix }.clone(),
        field: leaf.field.clone(),
    })
}

/// What one of them says; `None` when they say different things.
#[allow(clippy::option_option)]
fn either<T: Clone + PartialEq>(root: &Option<T>, leaf: &Option<T>) -> Option<Option<T>> {
    match (root, leaf) {
        (Some(root), Some(leaf)) if root != leaf => None,
        (root, leaf) => Some(leaf.clone().or_else(|| root.clone())),
    }
}

/// All conditions of both; `None` when two are about the same thing and differ.
fn union<T: Clone + PartialEq>(
    root: &[T],
    leaf: &[T],
    is_about_the_same: fn(&T, &T) -> bool,
) -> Option<Vec<T>> {
    let mut all = root.to_vec();
    for condition in leaf {
        match root.iter().find(|other| is_about_the_same(other, condition)) {
            None => all.push(condition.clone()),
            Some(other) if other == condition => {}
            Some(_) => return None,
        }
    }
    Some(all)
}

fn sources(root: &Source, leaf: &Source) -> Option<Source> {
    let mut labels = root.labels.clone();
    for (key, value) in &leaf.labels {
        if labels.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
            return None;
        }
    }
    Some(Source { labels, namespace: either(&root.namespace, &leaf.namespace)? })
}
