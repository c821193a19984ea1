//! The real Helm, by its SDK: `helm.py` in the Python environment that `scripts/install-tools.sh` makes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use outrigger_xds_api::json;
use serde_json::{Value, json};

use crate::tools::{repository, require_tool};

/// Helm and the chart of the repository.
#[derive(Debug)]
pub struct Helm {
    python: PathBuf,
}

/// A release: its name, where it goes, and the values that the user gives.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The user's values.
    pub values: Value,
}

impl Release {
    /// The release `mesh` in `outrigger-system`.
    pub fn new(values: Value) -> Self {
        Release { name: "mesh".into(), namespace: "outrigger-system".into(), values }
    }
}

/// What a release renders to.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Every object of every template, hooks too.
    pub objects: Vec<Value>,
    /// NOTES.txt.
    pub notes: String,
    /// The objects as Helm wrote them, a document each.
    pub manifest: String,
}

impl Helm {
    /// `None` when the SDK is not installed.
    #[track_caller]
    pub fn find() -> Option<Self> {
        Some(Helm { python: require_tool("helm-python")? })
    }

    /// What `helm lint --strict` finds, beside what it only wishes for.
    ///
    /// # Panics
    /// When the chart cannot be linted.
    pub fn lint(&self, release: &Release) -> Vec<String> {
        let findings = self.act("lint", release, json!({})).unwrap_or_else(|error| panic!("{error}"));
        let findings: Vec<String> = serde_json::from_value(findings).expect("a list of texts");
        findings.into_iter().filter(|finding| !finding.starts_with("info:")).collect()
    }

    /// Renders releases, as `helm template` does.
    pub fn render_all<'a>(
        &self,
        releases: impl IntoIterator<Item = &'a Release>,
    ) -> Vec<Result<Rendered, String>> {
        let requests: Vec<Value> =
            releases.into_iter().map(|release| request("render", release, json!({}))).collect();
        self.ask(&requests).into_iter().map(|answer| Ok(Rendered::read(answer?))).collect()
    }

    /// Renders one release.
    ///
    /// # Panics
    /// When its values are refused.
    #[track_caller]
    pub fn render(&self, release: &Release) -> Rendered {
        let mut rendered = self.render_all([release]);
        rendered.pop().expect("an answer").unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a Helm that keeps its releases, for a cluster.
    pub fn session(&self, kubeconfig: &Path) -> Session {
        let mut child = self.start();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let input = child.stdin.take();
        Session { child, input, output, kubeconfig: kubeconfig.to_owned() }
    }

    fn act(&self, action: &str, release: &Release, more: Value) -> Result<Value, String> {
        self.ask(&[request(action, release, more)]).pop().expect("an answer")
    }

    fn start(&self) -> Child {
        Command::new(&self.python)
            .arg(repository().join("tests/support/helm.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start helm.py")
    }

    fn ask(&self, requests: &[Value]) -> Vec<Result<Value, String>> {
        let mut child = self.start();
        let mut input = child.stdin.take().expect("its input");
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        // At the side: a pipe that nobody reads yet holds only so many answers.
        let writer = thread::spawn(move || input.write_all(lines.as_bytes()));
        let output = child.wait_with_output().expect("helm.py ends");
        writer.join().expect("the writer").expect("write to helm.py");
        assert!(output.status.success(), "helm.py failed");
        let answers: Vec<_> = output.stdout.lines().map(|line| answer(&line.expect("text"))).collect();
        assert_eq!(answers.len(), requests.len(), "an answer to each request");
        answers
    }
}

/// A Helm that works on a cluster; its releases end with it.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    kubeconfig: PathBuf,
}

impl Session {
    /// `install`, `upgrade`, `rollback` (to `revision` in `more`), `history` or `uninstall`.
    ///
    /// # Errors
    /// What Helm says.
    pub fn act(&mut self, action: &str, release: &Release, mut more: Value) -> Result<Value, String> {
        more["kubeconfig"] = json!(self.kubeconfig);
        let mut input = self.input.as_ref().expect("its input");
        writeln!(input, "{}", request(action, release, more)).expect("write to helm.py");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("read from helm.py");
        answer(&line)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.input = None;
        let _ = self.child.wait();
    }
}

fn answer(line: &str) -> Result<Value, String> {
    let mut answer: BTreeMap<String, Value> = serde_json::from_str(line).expect("helm.py answers with JSON");
    match answer.remove("error") {
        Some(error) => Err(error.as_str().unwrap_or_default().to_owned()),
        None => Ok(answer.remove("ok").unwrap_or_default()),
    }
}

fn request(action: &str, release: &Release, more: Value) -> Value {
    let mut request = json!({
        "action": action,
        "chart": repository().join("charts/outrigger"),
        "release": release.name,
        "namespace": release.namespace,
        "values": release.values,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    request
}

impl Rendered {
    fn read(templates: Value) -> Self {
        let templates: BTreeMap<String, String> =
            serde_json::from_value(templates).expect("a text for each template");
        let mut rendered = Rendered { objects: Vec::new(), notes: String::new(), manifest: String::new() };
        for (path, text) in templates {
            if path.ends_with("/NOTES.txt") {
                rendered.notes = text;
                continue;
            }
            let documents = json::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}:\n{text}"));
            rendered
                .objects
                .extend(documents.iter().map(json::Node::to_json).filter(|object| !object.is_null()));
            rendered.manifest.push_str(&format!("---\n# {path}\n{text}\n"));
        }
        rendered
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The one object of a kind.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[track_caller]
    pub fn the(&self, kind: &str) -> &Value {
        let mut all = self.objects.iter().filter(|object| object["kind"] == kind);
        match (all.next(), all.next()) {
            (Some(object), None) => object,
            (None, _) => panic!("no object of kind {kind}"),
            _ => panic!("more than one object of kind {kind}"),
        }
    }
}
