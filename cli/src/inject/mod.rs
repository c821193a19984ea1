//! `outrigger inject`: what the injection webhook would do, on files, without a cluster.
//!
//! Whoever names a file has chosen it: every workload in it is injected that does not say no itself, whatever its
//! namespace's labels. What is not injected comes out byte for byte as it went in; what is keeps its place, its unknown
//! fields, their order and the comments above it, but loses the comments inside. If anything is wrong nothing is written.

mod documents;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use outrigger_control_plane::api::Refusal;
use outrigger_control_plane::inject::decision::{Namespace, NamespacePolicy};
use outrigger_control_plane::inject::settings::InjectionSettings;
use outrigger_control_plane::inject::{self, Outcome};
use outrigger_xds_api::json::{self, Node};
use serde_json::Value;

use documents::Document;

/// Flags of `outrigger inject`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kubernetes YAML or JSON, also of many documents; `-` is the standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// Settings of injection, the same document as the control plane's --injection-settings; default: the defaults
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Writes the injected documents to the standard output.
///
/// # Errors
/// A file that cannot be read, or an object that cannot be injected; nothing is written then.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let settings = match &options.settings {
        None => InjectionSettings::default(),
        Some(file) => {
            let text = read(file)?;
            InjectionSettings::parse(&text).map_err(|refusal| described(&refusal)).context(name(file))?
        }
    };
    let text = read(&options.file)?;
    let injected = inject_text(&text, &name(&options.file), &settings)?;
    warn(&injected.warnings);
    let mut out = io::stdout().lock();
    out.write_all(injected.text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}

/// A whole file, injected.
#[derive(Debug)]
pub(crate) struct Injected {
    pub(crate) text: String,
    warnings: Vec<String>,
}

/// Injects every workload of a text; `file` is its name in messages.
pub(crate) fn inject_text(text: &str, file: &str, settings: &InjectionSettings) -> anyhow::Result<Injected> {
    let mut injected = Injected { text: String::with_capacity(text.len()), warnings: Vec::new() };
    for document in documents::split(text) {
        let place = |line: u32| format!("{file}:{}", line + document.lines_before);
        let nodes = match json::parse(document.text) {
            Ok(nodes) => nodes,
            Err(error) => bail!("{}:{}: {}", place(error.line), error.column, error.reason),
        };
        let node = match nodes.as_slice() {
            [] => {
                injected.text.push_str(document.text);
                continue;
            }
            [node] => node,
            [_, second, ..] => bail!("{}: documents must be separated by `---`", place(second.line)),
        };
        let after = inject_object(&node.to_json(), settings, &mut |object, warning| {
            injected.warnings.push(format!("{}: {object}: {warning}", place(node.line)));
        });
        match after {
            Ok(None) => injected.text.push_str(document.text),
            Ok(Some(object)) => write(&document, &object, &mut injected.text),
            Err(wrong) => bail!("{}: {wrong}", place(line_of(node, &wrong.refusal.field))),
        }
    }
    Ok(injected)
}

/// An object that cannot be injected.
#[derive(Debug)]
struct Wrong {
    object: String,
    refusal: Refusal,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, described(&self.refusal))
    }
}

/// Injects an object, or each object of a List. `None`: nothing changes.
fn inject_object(
    object: &Value,
    settings: &InjectionSettings,
    warn: &mut dyn FnMut(&str, &str),
) -> Result<Option<Value>, Wrong> {
    if let Some(items) = list_items(object) {
        let mut list = object.clone();
        let mut is_changed = false;
        for (index, item) in items.iter().enumerate() {
            let injected = inject_object(item, settings, warn).map_err(|wrong| {
                let field = format!("items[{index}].{}", wrong.refusal.field);
                Wrong { refusal: Refusal { field, ..wrong.refusal }, ..wrong }
            })?;
            if let Some(injected) = injected {
                list["items"][index] = injected;
                is_changed = true;
            }
        }
        return Ok(is_changed.then_some(list));
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or("default").to_owned();
    let title =
        || format!("{} {}", text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or_default());
    let namespace = Namespace { name: namespace, policy: NamespacePolicy::Selected };
    match inject::inject(object, &namespace, settings) {
        Ok(Outcome::Injected { object, warnings }) => {
            for warning in &warnings {
                warn(&title(), warning);
            }
            Ok(Some(object))
        }
        Ok(Outcome::Skipped(reason)) => {
            warn(&title(), &format!("not injected: {reason}"));
            Ok(None)
        }
        Ok(Outcome::NotAWorkload) => Ok(None),
        Err(refusal) => Err(Wrong { object: title(), refusal }),
    }
}

/// The objects of a `List`.
fn list_items(object: &Value) -> Option<&Vec<Value>> {
    let is_list = object.get("kind")? == "List" && object.get("apiVersion")? == "v1";
    object.get("items").filter(|_| is_list)?.as_array()
}

/// Writes an injected object in the notation of its document.
fn write(document: &Document<'_>, object: &Value, out: &mut String) {
    out.push_str(&document.head());
    if document.is_json() {
        out.push_str(&format!("{object:#}\n"));
    } else {
        json::write_yaml(object, out);
    }
}

fn line_of(node: &Node, field: &str) -> u32 {
    node.locate(field).0
}

fn described(refusal: &Refusal) -> anyhow::Error {
    match refusal.field.as_str() {
        "" => anyhow::anyhow!("{}", refusal.reason),
        field => anyhow::anyhow!("{field}: {}", refusal.reason),
    }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

#[allow(clippy::print_stderr, reason = "what a person should know beside the output")]
fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("outrigger: {warning}");
    }
}

#[cfg(test)]
mod tests;
