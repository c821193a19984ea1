//! ECDS: who waits for a filter's configuration, what a change or removal does, and which types are taken.

use std::time::Duration;

use outrigger_xds_api::ResourceType::{ExtensionConfig, Listener};
use tokio::time::Instant;

use super::compile_tests::{ROUTER, manager};
use super::configuration::Configuration;
use super::testing::{apply, configuration, problems, remove};

const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";

/// A listener whose only filter is configured by the extension `e`, of one of these types.
fn listener(types: &[&str], fields: &str) -> String {
    let urls: Vec<String> = types.iter().map(|name| format!("type.googleapis.com/{name}")).collect();
    manager(&format!(
        "http_filters: [{{name: e, config_discovery: {{config_source: {{ads: {{}}, initial_fetch_timeout: 5s}}, \
         type_urls: [{}], {fields}}}}}, {ROUTER}], route_config: {{name: r}}",
        urls.join(", ")
    ))
}

fn extension(message: &str, fields: &str) -> String {
    format!("{{name: e, typed_config: {{'@type': type.googleapis.com/{message}, {fields}}}}}")
}

fn buffer(bytes: u32) -> String {
    extension(BUFFER, &format!("max_request_bytes: {bytes}"))
}

fn is_active(configuration: &Configuration) -> bool {
    configuration.listeners().get("l").is_some_and(|slot| slot.active().is_some())
}

/// The filter of the active listener: what its source has.
fn filter(configuration: &Configuration) -> Option<String> {
    use crate::http::filters::SlotFilter;
    use crate::listener::NetworkFilter;
    let listener = configuration.inputs().registry.listeners.get("l")?;
    let NetworkFilter::Http(live) = &listener.filter_chains.iter().next()?.filter else { return None };
    let manager = live.get();
    let SlotFilter::Discovered(filter) = &manager.filters.slots().first()?.filter else { return None };
    filter.get().map(|filter| format!("{filter:?}"))
}

#[test]
fn a_listener_waits_for_its_filters_and_follows_them() {
    let (mut configuration, now) = (configuration(), Instant::now());
    assert_eq!(apply(&mut configuration, Listener, "l", &listener(&[BUFFER], ""), now), []);
    assert!(!is_active(&configuration));
    assert_eq!(apply(&mut configuration, ExtensionConfig, "e", &buffer(10), now), []);
    assert!(is_active(&configuration));
    assert_eq!(filter(&configuration).as_deref(), Some("Buffer(Buffer { max_bytes: 10 })"));
    configuration.take_changes();
    assert_eq!(apply(&mut configuration, ExtensionConfig, "e", &buffer(20), now), []);
    assert_eq!(filter(&configuration).as_deref(), Some("Buffer(Buffer { max_bytes: 20 })"));
    assert!(configuration.take_changes().is_empty(), "the workers notice nothing");
}

#[test]
fn what_is_bad_leaves_the_last_good_one() {
    let (mut configuration, now) = (configuration(), Instant::now());
    apply(&mut configuration, Listener, "l", &listener(&[BUFFER], ""), now);
    apply(&mut configuration, ExtensionConfig, "e", &buffer(10), now);
    for (bad, expected) in [
        (buffer(0), "typed_config.max_request_bytes: value must be greater than 0"),
        (
            extension(FAULT, ""),
            "typed_config.@type: filter config has type URL envoy.extensions.filters.http.fault.v3.HTTPFault but expect \
             envoy.extensions.filters.http.buffer.v3.Buffer",
        ),
        (
            extension("envoy.extensions.filters.http.router.v3.Router", ""),
            "typed_config.@type: the terminal filter is not taken from a source",
        ),
        ("{name: e}".into(), "typed_config: value is required"),
    ] {
        let invalid = apply(&mut configuration, ExtensionConfig, "e", &bad, now);
        let problems: Vec<_> = invalid.iter().flat_map(|i| &i.problems).map(ToString::to_string).collect();
        assert!(problems.iter().any(|problem| problem == expected), "{problems:?}");
        assert_eq!(filter(&configuration).as_deref(), Some("Buffer(Buffer { max_bytes: 10 })"));
    }
}

#[test]
fn a_default_is_good_enough_when_it_says_so() {
    let default = format!("default_config: {{'@type': type.googleapis.com/{BUFFER}, max_request_bytes: 1}}");
    let at_once = format!("{default}, apply_default_config_without_warming: true");
    let (mut configuration, now) = (configuration(), Instant::now());
    apply(&mut configuration, Listener, "l", &listener(&[BUFFER], &default), now);
    assert!(!is_active(&configuration), "it waits for better");
    apply(&mut configuration, Listener, "l", &listener(&[BUFFER], &at_once), now);
    assert!(is_active(&configuration));
    assert_eq!(filter(&configuration).as_deref(), Some("Buffer(Buffer { max_bytes: 1 })"));
    apply(&mut configuration, ExtensionConfig, "e", &buffer(2), now);
    assert_eq!(filter(&configuration).as_deref(), Some("Buffer(Buffer { max_bytes: 2 })"));
    // The source takes it away.
    remove(&mut configuration, ExtensionConfig, "e", now);
    assert_eq!(filter(&configuration).as_deref(), Some("Buffer(Buffer { max_bytes: 1 })"));
}

#[test]
fn nobody_waits_for_ever() {
    let (mut configuration, now) = (configuration(), Instant::now());
    apply(&mut configuration, Listener, "l", &listener(&[BUFFER], ""), now);
    configuration.settle(now + Duration::from_secs(6));
    assert!(is_active(&configuration));
    assert_eq!(filter(&configuration), None);
    apply(&mut configuration, ExtensionConfig, "e", &buffer(2), now);
    assert!(filter(&configuration).is_some());
    remove(&mut configuration, ExtensionConfig, "e", now);
    assert_eq!(filter(&configuration), None);
}

/// The type of a filter changes in two resources. Whichever comes first, no request meets a filter that its chain does not take.
#[test]
fn a_type_changes_with_the_listener() {
    let fault = extension(FAULT, "");
    let active = |configuration: &Configuration| filter(configuration).unwrap_or_default();
    for listener_first in [true, false] {
        let (mut configuration, now) = (configuration(), Instant::now());
        apply(&mut configuration, Listener, "l", &listener(&[BUFFER], ""), now);
        apply(&mut configuration, ExtensionConfig, "e", &buffer(10), now);
        if !listener_first {
            // It is refused for what the listener takes now, and so may come again.
            assert_eq!(apply(&mut configuration, ExtensionConfig, "e", &fault, now).len(), 1);
        }
        assert_eq!(apply(&mut configuration, Listener, "l", &listener(&[FAULT], ""), now), []);
        assert!(active(&configuration).starts_with("Buffer"), "{}", active(&configuration));
        assert_eq!(apply(&mut configuration, ExtensionConfig, "e", &fault, now), []);
        assert!(active(&configuration).starts_with("Fault"), "{}", active(&configuration));
    }
}

#[test]
fn what_nobody_takes_is_forgotten() {
    let (mut configuration, now) = (configuration(), Instant::now());
    apply(&mut configuration, Listener, "l", &listener(&[BUFFER], ""), now);
    apply(&mut configuration, ExtensionConfig, "e", &buffer(10), now);
    let known = |configuration: &Configuration| {
        configuration.inputs().registry.extensions.iter().flat_map(|(_, all)| all.iter()).count()
    };
    configuration.take_watch_changes();
    assert_eq!(known(&configuration), 1);
    remove(&mut configuration, Listener, "l", now);
    // Until the workers have heard of it, connections may have the filter.
    configuration.take_changes();
    configuration.take_watch_changes();
    assert_eq!(known(&configuration), 0);
}

#[test]
fn discovery_is_checked() {
    let at = "filter_chains[0].filters[0].typed_config.http_filters[0].config_discovery";
    let fault = format!("default_config: {{'@type': type.googleapis.com/{FAULT}}}");
    for (listener, expected) in [
        (
            listener(&[BUFFER], &fault),
            format!("{at}.default_config.@type: filter config has type URL {FAULT} but expect {BUFFER}"),
        ),
        (
            listener(&[BUFFER], "apply_default_config_without_warming: true"),
            format!(
                "{at}.apply_default_config_without_warming: filter config e applied without warming but has no default \
                 config"
            ),
        ),
    ] {
        assert_eq!(problems(Listener, &listener), [expected]);
    }
}
