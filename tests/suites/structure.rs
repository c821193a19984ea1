//! The dependency rule of the proxy as a table: which room may name which. It scans the sources for `crate::` paths, so
//! a shortcut through a wall fails here and not in review. And what else is said of the sources and must stay true.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use outrigger_tests::tools::repository;

/// A room of the proxy and the rooms, or single names in them, that it may name. `config::live` is what workers see of
/// `config`, and a `config::watch::Watch` says that a name is wanted as long as what has it lives; `worker` in a row means the handle of the worker that the room's code runs on (its timers,
/// its executor, its log buffers).
///
/// `config/compile` builds everything, and `server` and `worker` put everything together, so they may name everything.
const RULES: &[(&str, &[&str])] = &[
    ("capture", &[]),
    ("net", &[]),
    ("logging", &[]),
    ("state", &[]),
    ("metadata", &[]),
    ("on_demand", &["config::sources::SourceId"]),
    ("stream_info", &["cluster", "metadata", "net", "transport_socket"]),
    ("stats", &["stream_info"]),
    ("overload", &["stats"]),
    ("formatter", &["net", "stream_info", "transport_socket"]),
    (
        "access_log",
        &["formatter", "net", "route::HeaderMatcher", "route::RequestView", "stats", "stream_info"],
    ),
    ("transport_socket", &["config::live", "net", "route::StringMatcher", "stats"]),
    (
        "cluster",
        &["config::live", "metadata", "net", "route::ResponsePredicate", "stats", "transport_socket"],
    ),
    (
        "health_check",
        &[
            "cluster",
            "formatter::RequestLine",
            "net",
            "route::HeaderMutations",
            "route::StringMatcher",
            "stats",
            "stream_info",
            "transport_socket",
        ],
    ),
    ("mesh_peers", &["cluster", "stats", "stream_info"]),
    (
        "route",
        &[
            "cluster",
            "config::live",
            "formatter",
            "http::filters::Overrides",
            "metadata",
            "on_demand",
            "stats",
            "stream_info",
        ],
    ),
    ("http", NETWORK_FILTER),
    ("tcp", NETWORK_FILTER),
    (
        "listener",
        &[
            "access_log",
            "config::live",
            "http",
            "net",
            "overload",
            "stats",
            "stream_info",
            "tcp",
            "transport_socket",
            "worker",
        ],
    ),
];

/// What serves a connection and forwards it to a cluster.
const NETWORK_FILTER: &[&str] = &[
    "access_log",
    "cluster",
    "config::live",
    "config::watch::Watch",
    "formatter",
    "mesh_peers",
    "net",
    "on_demand",
    "overload",
    "route",
    "stats",
    "stream_info",
    "transport_socket",
    "worker",
];

/// The only rooms that may name the wire contract.
const WIRE: &[&str] = &["bootstrap", "config", "fuzzing", "identity", "sds", "state", "xds"];

/// Rooms that put the others together, turn the wire form into the compiled one, or open the others to `fuzz/`.
const FREE: &[&str] = &[
    "admin",
    "bootstrap",
    "config",
    "fuzzing",
    "identity",
    "lib",
    "main",
    "sds",
    "server",
    "sidecar",
    "worker",
    "xds",
];

#[test]
fn every_room_names_only_what_it_may() {
    let mut broken = Vec::new();
    for source in sources("proxy/src") {
        let room = source.room();
        let Some((_, allowed)) = RULES.iter().find(|(name, _)| *name == room) else { continue };
        for path in crate_paths(&source.code) {
            let named = path.split("::").next().unwrap_or_default();
            let fits = named == room
                || allowed.iter().any(|rule| path == *rule || path.starts_with(&format!("{rule}::")));
            if !fits {
                broken.push(format!("{}: crate::{path}", source.file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "not in the table of {}:\n{}", file!(), broken.join("\n"));
}

#[test]
fn config_live_stands_alone() {
    for source in sources("proxy/src").iter().filter(|source| source.file.ends_with("config/live.rs")) {
        let others: Vec<String> =
            crate_paths(&source.code).into_iter().filter(|path| !path.starts_with("config::live")).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

#[test]
fn only_the_compiler_and_its_sources_know_the_wire_form() {
    let names = ["outrigger_xds_api", "envoy_types", "prost"];
    let broken: Vec<String> = sources("proxy/src")
        .iter()
        .filter(|source| !WIRE.contains(&source.room().as_str()))
        .flat_map(|source| {
            names
                .iter()
                .filter(|name| has_path(&source.code, name))
                .map(|name| format!("{}: {name}", source.file.display()))
        })
        .collect();
    assert!(broken.is_empty(), "wire types outside {WIRE:?}:\n{}", broken.join("\n"));
}

#[test]
fn the_table_has_a_place_for_every_room() {
    let known: BTreeSet<&str> = RULES.iter().map(|(room, _)| *room).chain(FREE.iter().copied()).collect();
    let rooms: BTreeSet<String> = sources("proxy/src").iter().map(Source::room).collect();
    let unknown: Vec<&String> = rooms.iter().filter(|room| !known.contains(room.as_str())).collect();
    assert!(unknown.is_empty(), "say in {} what these may name: {unknown:?}", file!());
}

#[test]
fn the_wire_contract_and_the_programs_are_in_their_layers() {
    // (crate, names that it must not have)
    let rules = [
        ("xds-api/src", &["outrigger_proxy", "outrigger_control_plane", "tokio", "hyper"][..]),
        ("proxy/src", &["outrigger_control_plane"][..]),
        ("control-plane/src", &["outrigger_proxy"][..]),
    ];
    for (folder, names) in rules {
        for source in sources(folder) {
            for name in names {
                assert!(!has_path(&source.code, name), "{} names {name}", source.file.display());
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    const LIMIT: usize = 700;
    let long: BTreeMap<PathBuf, usize> =
        ["xds-api/src", "proxy/src", "control-plane/src", "cli/src", "fuzz", "tests"]
            .iter()
            .flat_map(|folder| rust_files(&repository().join(folder)))
            .map(|file| (file.clone(), fs::read_to_string(file).unwrap().lines().count()))
            .filter(|(_, lines)| *lines > LIMIT)
            .collect();
    assert!(long.is_empty(), "more than {LIMIT} lines: {long:#?}");
}

/// The last column of `docs/limits.md`.
#[test]
fn every_limit_names_tests_that_there_are() {
    let page = fs::read_to_string(repository().join("docs/limits.md")).unwrap();
    let files = ["proxy/src", "tests/suites"].map(|folder| rust_files(&repository().join(folder)));
    let texts: Vec<String> = files.iter().flatten().map(|file| fs::read_to_string(file).unwrap()).collect();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit"));
    let cells = rows.map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap());
    let names: Vec<&str> =
        cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
    for name in &names {
        let function = format!("fn {}()", name.rsplit("::").next().unwrap());
        assert!(texts.iter().any(|text| text.contains(&function)), "{name} is no test");
    }
    assert!(names.len() > 20, "{names:?}");
}

/// A source file without its comments and unit tests.
struct Source {
    /// Below the scanned folder.
    file: PathBuf,
    code: String,
}

impl Source {
    /// The first part of the path: `http/codec/mod.rs` → `http`, `worker.rs` → `worker`.
    fn room(&self) -> String {
        let first = self.file.iter().next().unwrap().to_string_lossy();
        first.strip_suffix(".rs").unwrap_or(&first).to_owned()
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = repository().join(folder);
    let files = rust_files(&root);
    assert!(!files.is_empty(), "no sources in {}", root.display());
    files
        .into_iter()
        .filter(|file| !file.file_stem().unwrap().to_string_lossy().ends_with("tests"))
        .filter(|file| !file.parent().unwrap().ends_with("tests"))
        .map(|file| {
            let code = code_of(&fs::read_to_string(&file).unwrap());
            Source { file: file.strip_prefix(&root).unwrap().to_owned(), code }
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The text up to the unit tests, without line comments.
fn code_of(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// All paths after `crate::`, with groups in braces opened: `a::b`, `a::c`.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|character| !character.is_alphanumeric() && character != '_' && character != ':')
        {
            expand("", &code[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path or group at the start of `text` and gives what follows it.
fn expand<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        rest = group;
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if rest.is_empty() {
                return rest;
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let next = expand(prefix, rest, paths);
            // A stray character must not stop the walk.
            rest = if next.len() == rest.len() {
                &rest[rest.chars().next().map_or(0, char::len_utf8)..]
            } else {
                next
            };
        }
    }
    let end =
        rest.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let path = if prefix.is_empty() { word.to_owned() } else { format!("{prefix}::{word}") };
    match after.strip_prefix("::") {
        Some(deeper) if deeper.starts_with('*') => {
            paths.push(path);
            &deeper[1..]
        }
        Some(deeper) if !word.is_empty() => expand(&path, deeper, paths),
        _ => {
            if !word.is_empty() {
                paths.push(path);
            }
            match after.trim_start().strip_prefix("as ") {
                Some(alias) => &alias[alias.find([',', '}', ';']).unwrap_or(alias.len())..],
                None => after,
            }
        }
    }
}

/// Whether a path begins with this crate.
fn has_path(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        code[..at]
            .chars()
            .next_back()
            .is_none_or(|character| !character.is_alphanumeric() && character != '_')
    })
}

#[test]
fn the_scanner_opens_groups_and_skips_comments_and_tests() {
    let text = "use crate::{a, b::{c, d as e}, config::live::*};\n// crate::no\nfn f() { crate::g::h() }\n#[cfg(test)]\nuse crate::tests;\n";
    assert_eq!(crate_paths(&code_of(text)), ["a", "b::c", "b::d", "config::live", "g::h"]);
    assert!(has_path("use prost::Message;", "prost"));
    assert!(!has_path("use prost_types::X;", "prost") && !has_path("use a_prost::X;", "prost"));
}
