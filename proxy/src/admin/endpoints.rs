//! The endpoints: a request in, a response out. Pure but for what [`AdminView`] does.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::query::Query;
use super::{AdminState, Drain, ServerState, certs, clusters, config_dump};
use crate::logging::{LogLevel, parse_component_levels};
use crate::stats::{Memory, Selection};

pub(super) type Reply = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";
/// What Prometheus asks for: without the version newer ones refuse the page.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn text(body: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, TEXT, body)
}

fn bad_request(body: impl Into<Bytes>) -> Reply {
    reply(StatusCode::BAD_REQUEST, TEXT, body)
}

fn json_reply(value: &Value) -> Reply {
    // A `Value` always has a text.
    reply(StatusCode::OK, JSON, serde_json::to_string_pretty(value).unwrap_or_default() + "\n")
}

struct Endpoint {
    path: &'static str,
    /// Changes something, so it wants POST: a link must not do that.
    post: bool,
    help: &'static str,
    run: fn(&AdminState, &Query) -> Reply,
}

const fn get(path: &'static str, help: &'static str, run: fn(&AdminState, &Query) -> Reply) -> Endpoint {
    Endpoint { path, post: false, help, run }
}

const fn post(path: &'static str, help: &'static str, run: fn(&AdminState, &Query) -> Reply) -> Endpoint {
    Endpoint { path, post: true, help, run }
}

static ENDPOINTS: [Endpoint; 19] = [
    get("/", "Admin home page", |_, _| home()),
    get("/certs", "print certs on machine", |s, _| {
        json_reply(&certs::json(&s.view.certs(), SystemTime::now()))
    }),
    get("/clusters", "upstream cluster status (format=json|text)", show_clusters),
    get("/config_dump", "dump current configuration (resource=, name_regex=, include_eds)", show_config),
    post("/drain_listeners", "drain listeners (graceful, inboundonly, skip_exit)", drain_listeners),
    post("/healthcheck/fail", "cause the server to fail health checks", |s, _| {
        s.view.set_healthy(false);
        text("OK\n")
    }),
    post("/healthcheck/ok", "cause the server to pass health checks", |s, _| {
        s.view.set_healthy(true);
        text("OK\n")
    }),
    get("/help", "print out list of admin commands", |_, _| text(help())),
    get("/listeners", "print listener info (format=json|text)", show_listeners),
    post("/logging", "query/change logging levels (level=, paths=, <name>=<level>)", set_logging),
    get("/memory", "print current memory usage", |_, _| json_reply(&memory())),
    post("/quitquitquit", "exit the server", |s, _| {
        s.view.quit();
        text("OK\n")
    }),
    get("/ready", "print server state, return 200 if LIVE, otherwise return 503", |s, _| ready(s)),
    post("/reopen_logs", "reopen access logs", |s, _| {
        s.log_files.reopen();
        text("OK\n")
    }),
    get("/server_info", "print server version/status information", |s, _| json_reply(&server_info(s))),
    get("/stats", "print server stats (usedonly, filter=, format=json|prometheus|text)", |s, q| {
        show_stats(s, q)
    }),
    get("/stats/prometheus", "print server stats in prometheus format (usedonly, filter=)", |s, q| {
        prometheus(s, q)
    }),
    // What the kubelet asks for on its own port works here too.
    get("/healthz/ready", "the same as /ready", |s, _| ready(s)),
    get("/favicon.ico", "nothing", |_, _| reply(StatusCode::NOT_FOUND, TEXT, "")),
];

/// Answers an admin request.
pub(super) fn respond(state: &AdminState, method: &Method, path: &str, query: Option<&str>) -> Reply {
    let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) else {
        return reply(StatusCode::NOT_FOUND, TEXT, format!("invalid path. {}", help()));
    };
    if endpoint.post && *method != Method::POST {
        let body = format!("Method {method} not allowed, POST required.");
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, body);
    }
    (endpoint.run)(state, &Query::parse(query))
}

/// Answers on the port for scrapers.
pub(super) fn respond_prometheus(state: &AdminState, path: &str, query: Option<&str>) -> Reply {
    match path {
        "/stats/prometheus" => prometheus(state, &Query::parse(query)),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "the metrics are at /stats/prometheus\n"),
    }
}

/// Answers on the port for the kubelet.
pub(super) fn respond_readiness(state: &AdminState, path: &str) -> Reply {
    match path {
        "/healthz/ready" => ready(state),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "readiness is at /healthz/ready\n"),
    }
}

fn listed() -> impl Iterator<Item = &'static Endpoint> {
    ENDPOINTS.iter().filter(|endpoint| !matches!(endpoint.path, "/healthz/ready" | "/favicon.ico"))
}

fn help() -> String {
    listed().fold("admin commands are:\n".to_owned(), |mut out, endpoint| {
        let method = if endpoint.post { " (POST)" } else { "" };
        let _ = writeln!(out, "  {}{method}: {}", endpoint.path, endpoint.help);
        out
    })
}

fn home() -> Reply {
    let rows: String = listed().filter(|endpoint| endpoint.path != "/").fold(String::new(), |mut out, Endpoint { path, post, help, .. }| {
        let _ = if *post {
            writeln!(out, "<tr><td><form method=post action=\"{path}\"><button>{path}</button></form></td><td>{help}</td></tr>")
        } else {
            writeln!(out, "<tr><td><a href=\"{path}\">{path}</a></td><td>{help}</td></tr>")
        };
        out
    });
    let page = format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>Outrigger admin</title></head>\n<body>\
         <h1>Outrigger admin</h1>\n<table>\n{rows}</table></body></html>\n"
    );
    reply(StatusCode::OK, "text/html; charset=UTF-8", page)
}

/// The state of the process, or why it should get no traffic.
pub(crate) fn ready(state: &AdminState) -> Reply {
    match (state.view.state(), state.view.unready_reason()) {
        (ServerState::Live, None) => {
            let mut page = format!("{}\n", ServerState::Live.as_str());
            // It is ready all the same: what it refuses would come to others, until they refuse it too.
            for (name, percent) in state.view.shedding() {
                page += &format!("overload: {name} {percent} %\n");
            }
            reply(StatusCode::OK, TEXT, page)
        }
        (ServerState::Live, Some(reason)) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, reason + "\n"),
        (state, _) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", state.as_str())),
    }
}

fn regex(query: &Query, name: &str) -> Result<Option<regex::Regex>, String> {
    let Some(pattern) = query.get(name) else { return Ok(None) };
    regex::Regex::new(pattern).map(Some).map_err(|error| format!("Invalid regex: {error}\n"))
}

fn selection(query: &Query) -> Result<Selection, String> {
    Ok(Selection { used_only: query.has("usedonly"), filter: regex(query, "filter")? })
}

fn show_stats(state: &AdminState, query: &Query) -> Reply {
    let selection = match selection(query) {
        Ok(selection) => selection,
        Err(error) => return bad_request(error),
    };
    state.refresh_stats();
    match query.get("format") {
        None | Some("text") => text(state.stats.text(&selection)),
        Some("json") => reply(StatusCode::OK, JSON, state.stats.json(&selection).to_string()),
        Some("prometheus") => prometheus(state, query),
        Some(_) => bad_request("usage: /stats?format=(json|prometheus|text)\n"),
    }
}

fn prometheus(state: &AdminState, query: &Query) -> Reply {
    match prometheus_page(state, query) {
        Ok(page) => reply(StatusCode::OK, PROMETHEUS, page),
        Err(error) => bad_request(error),
    }
}

/// The metrics in Prometheus' text format, or what is wrong with the query.
pub(super) fn prometheus_page(state: &AdminState, query: &Query) -> Result<String, String> {
    state.refresh_stats();
    selection(query).map(|selection| state.stats.prometheus(&selection))
}

fn show_clusters(state: &AdminState, query: &Query) -> Reply {
    let mut entries = state.view.clusters();
    match regex(query, "filter") {
        Ok(Some(filter)) => entries.retain(|entry| filter.is_match(&entry.cluster.name)),
        Ok(None) => {}
        Err(error) => return bad_request(error),
    }
    if query.get("format") == Some("json") {
        json_reply(&clusters::json(&entries))
    } else {
        text(clusters::text(&entries))
    }
}

fn show_listeners(state: &AdminState, query: &Query) -> Reply {
    let listeners = state.view.listeners();
    if query.get("format") == Some("json") {
        let statuses: Vec<Value> = listeners
            .iter()
            .map(|listener| {
                let mut addresses = listener.addresses.iter().map(clusters::address_json);
                let mut status = json!({"name": &*listener.name, "local_address": addresses.next()});
                let additional: Vec<Value> = addresses.collect();
                if !additional.is_empty() {
                    status["additional_local_addresses"] = additional.into();
                }
                status
            })
            .collect();
        return json_reply(&json!({ "listener_statuses": statuses }));
    }
    let mut out = String::new();
    for listener in &listeners {
        for address in &listener.addresses {
            let _ = writeln!(out, "{}::{address}", listener.name);
        }
    }
    text(out)
}

fn show_config(state: &AdminState, query: &Query) -> Reply {
    if query.has("mask") {
        return bad_request("mask is not supported; use resource and name_regex\n");
    }
    let mut dump = state.view.config_dump(query.has("include_eds"));
    config_dump::redact(&mut dump);
    if let Some(resource) = query.get("resource") {
        match config_dump::resource(&dump, resource) {
            Ok(selected) => dump = selected,
            Err(error) => return reply(StatusCode::NOT_FOUND, TEXT, error + "\n"),
        }
    }
    match regex(query, "name_regex") {
        Ok(Some(name)) => config_dump::retain_names(&mut dump, &name),
        Ok(None) => {}
        Err(error) => return bad_request(error),
    }
    json_reply(&dump)
}

fn drain_listeners(state: &AdminState, query: &Query) -> Reply {
    state.view.drain(Drain {
        inbound_only: query.has("inboundonly"),
        graceful: query.has("graceful"),
        skip_exit: query.has("skip_exit"),
    });
    text("OK\n")
}

fn set_logging(state: &AdminState, query: &Query) -> Reply {
    let mut active = "active loggers:\n".to_owned();
    match change_levels(state, query) {
        Ok(()) => {
            for (name, level) in state.logging.levels() {
                let _ = writeln!(active, "  {name}: {}", level.as_str());
            }
            text(active + "\n")
        }
        Err(error) => bad_request(format!(
            "error: {error}\n\n\
             usage: /logging?<name>=<level> (change single level)\n\
             usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
             usage: /logging?level=<level> (change all levels)\n\
             levels: trace debug info warning error critical off\n"
        )),
    }
}

fn change_levels(state: &AdminState, query: &Query) -> Result<(), String> {
    match query.pairs() {
        [] => Ok(()),
        [(name, level)] if name == "level" => {
            state.logging.set_all(level.parse()?);
            Ok(())
        }
        [(name, levels)] if name == "paths" => state.logging.set(&parse_component_levels(levels)?),
        [(name, level)] => state.logging.set(&[(name, level.parse::<LogLevel>()?)]),
        _ => Err("invalid number of parameters".into()),
    }
}

fn memory() -> Value {
    let (resident, data) = Memory::read().map_or((0, 0), |m| (m.resident_bytes, m.data_bytes));
    json!({
        "allocated": resident.to_string(),
        "heap_size": data.to_string(),
        "total_physical_bytes": resident.to_string(),
    })
}

fn server_info(state: &AdminState) -> Value {
    let uptime = format!("{}s", state.stats.server().uptime_s());
    json!({
        "version": concat!("outrigger/", env!("CARGO_PKG_VERSION")),
        "state": state.view.state().as_str(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": state.view.command_line_options(),
        "node": state.view.node(),
    })
}
