//! Certificates and trusted roots that stand in the configuration itself or are read from files.
//!
//! A TLS context that has one of its own shares a cell with all that have the same, so a thousand clusters with one certificate hold it
//! once. What is read from files follows them, in secrets as in contexts: a change in their folder is looked at, and what is new and
//! good is published; what is broken, for example a certificate whose key comes a moment later, changes nothing. Main only.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use outrigger_xds_api::wire::tls::v3 as wire;
use prost::Message;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::compile::{
    CompileCx, Compiled, Inputs, ReadFile, compile_certificate, compile_secret, compile_validation_context,
};
use super::configuration::Configuration;
use super::folder;
use super::handle::ConfigurationHandle;
use super::live::Live;
use super::sources::SourceId;
use crate::transport_socket::{TlsCertificate, ValidationContext};

/// The files that a value was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    paths: Vec<String>,
    /// `watched_directory`: the folder to look at instead of those of the files.
    watched: Option<String>,
    content: u64,
}

impl Files {
    /// Reads a file as part of the value.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&mut self, path: &str, read: &ReadFile) -> io::Result<Vec<u8>> {
        self.paths.push(path.to_owned());
        let bytes = read(path)?;
        self.content = super::compile::content_hash(&[&self.content.to_ne_bytes(), &bytes]);
        Ok(bytes)
    }

    /// Makes changes be seen in this folder (`WatchedDirectory`).
    pub fn watch(&mut self, folder: &str) {
        self.watched = Some(folder.to_owned());
    }

    /// No file was read.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Takes over what another value was made of.
    pub fn add(&mut self, other: &Files) {
        self.paths.extend_from_slice(&other.paths);
    }

    /// Where changes of the files are seen.
    fn folders(&self) -> Vec<PathBuf> {
        match &self.watched {
            Some(folder) => vec![folder.into()],
            None => self.paths.iter().map(|path| folder::of(Path::new(path)).into()).collect(),
        }
    }

    /// Whether a file in this folder has changed, or can no longer be read.
    pub(super) fn has_changed(&self, folder: &Path, read: &ReadFile) -> bool {
        if !self.folders().iter().any(|own| own == folder) {
            return false;
        }
        let mut again = Files::default();
        let unreadable = self.paths.iter().any(|path| again.read(path, read).is_err());
        unreadable || again.content != self.content
    }
}

/// The folders in which files are followed. Each is asked for once, and for good: they are few.
#[derive(Debug, Default)]
pub struct Folders {
    known: FxHashSet<PathBuf>,
    /// `None`: nobody follows files, as when a configuration is only checked.
    wanted: Option<UnboundedSender<PathBuf>>,
}

impl Folders {
    /// The folders, and the end where those come out that are to be watched from now on.
    pub fn channel() -> (Self, UnboundedReceiver<PathBuf>) {
        let (wanted, folders) = unbounded_channel();
        (Self { known: FxHashSet::default(), wanted: Some(wanted) }, folders)
    }

    pub(super) fn follow(&mut self, files: &Files) {
        let Some(wanted) = &self.wanted else { return };
        for folder in files.folders() {
            if self.known.insert(folder.clone()) {
                // Nobody listens any more when the process drains.
                let _ = wanted.send(folder);
            }
        }
    }
}

/// A kind of value that can stand in a TLS context.
pub trait Inline: Sized {
    /// Its message.
    type Wire: Message + Default;
    /// What people call it.
    const KIND: &'static str;

    /// Compiles one, at the context's present path.
    fn compile(cx: &mut CompileCx<'_>, value: &Self::Wire) -> Compiled<Self>;
    /// What `/certs` calls the place that it came from.
    fn source(value: &Self::Wire) -> &str;
    /// Those of this kind.
    fn all(inputs: &mut Inputs) -> &mut Inlined<Self>;
}

impl Inline for TlsCertificate {
    type Wire = wire::TlsCertificate;
    const KIND: &'static str = "certificate";

    fn compile(cx: &mut CompileCx<'_>, value: &Self::Wire) -> Compiled<Self> {
        compile_certificate(cx, value)
    }

    fn source(value: &Self::Wire) -> &str {
        super::compile::source_name(&value.certificate_chain)
    }

    fn all(inputs: &mut Inputs) -> &mut Inlined<Self> {
        &mut inputs.inline_certificates
    }
}

impl Inline for ValidationContext {
    type Wire = wire::CertificateValidationContext;
    const KIND: &'static str = "validation context";

    fn compile(cx: &mut CompileCx<'_>, value: &Self::Wire) -> Compiled<Self> {
        compile_validation_context(cx, value)
    }

    fn source(value: &Self::Wire) -> &str {
        super::compile::source_name(&value.trusted_ca)
    }

    fn all(inputs: &mut Inputs) -> &mut Inlined<Self> {
        &mut inputs.inline_validations
    }
}

/// All values of one kind that stand in TLS contexts, by their encoded messages, as long as they are in use.
pub struct Inlined<T>(FxHashMap<Vec<u8>, Entry<T>>);

struct Entry<T> {
    cell: Weak<Live<T>>,
    files: Files,
}

impl<T> Default for Inlined<T> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<T: Inline> Inlined<T> {
    /// Those in use, each with the file that it came from.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<str>, Arc<T>)> {
        let live = self.0.values().filter_map(|entry| entry.cell.upgrade());
        live.filter_map(|cell| Some((cell.name().clone(), cell.get()?)))
    }
}

/// Compiles a value that stands in a TLS context, at the context's present path, unless there is the same already.
pub(crate) fn compile_inline<T: Inline>(cx: &mut CompileCx<'_>, value: &T::Wire) -> Compiled<Arc<Live<T>>> {
    let key = value.encode_to_vec();
    let known = T::all(cx.inputs).0.get(&key);
    if let Some((cell, files)) = known.and_then(|known| Some((known.cell.upgrade()?, known.files.clone()))) {
        cx.files.add(&files);
        return Ok(cell);
    }
    let (compiled, files) = cx.reading(|cx| T::compile(cx, value));
    let cell = Live::with(T::source(value), Arc::new(compiled?));
    cx.inputs.folders.follow(&files);
    let all = &mut T::all(cx.inputs).0;
    // Now and then, so that it costs each entry once.
    if all.len() == all.capacity() {
        all.retain(|_, entry| entry.cell.strong_count() > 0);
    }
    all.insert(key, Entry { cell: Arc::downgrade(&cell), files });
    Ok(cell)
}

impl<T> Inlined<T> {
    /// Compiles again what was read from files in this folder that have changed since.
    fn read_again(inputs: &mut Inputs, folder: &Path)
    where
        T: Inline,
    {
        let mut all = std::mem::take(T::all(inputs));
        for (message, entry) in &mut all.0 {
            let Some(cell) = entry.cell.upgrade() else { continue };
            if !entry.files.has_changed(folder, &inputs.read_file) {
                continue;
            }
            let Ok(value) = T::Wire::decode(message.as_slice()) else { continue };
            let cx = CompileCx::new(inputs, false);
            if let Some((compiled, files)) = again(cx, T::KIND, cell.name(), |cx| T::compile(cx, &value)) {
                cell.publish(Arc::new(compiled));
                entry.files = files;
            }
        }
        *T::all(inputs) = all;
    }
}

/// Compiles a value that is there already; `None`: the one before stays.
fn again<T>(
    mut cx: CompileCx<'_>,
    kind: &'static str,
    name: &str,
    compile: impl FnOnce(&mut CompileCx<'_>) -> Compiled<T>,
) -> Option<(T, Files)> {
    let (compiled, files) = cx.reading(compile);
    match cx.finish(kind, name, compiled) {
        Ok((compiled, _)) => {
            tracing::info!(target: "config", "{kind} '{name}': its files have changed");
            Some((compiled, files))
        }
        Err(invalid) => {
            tracing::warn!(target: "config", "{invalid}; the one before stays");
            None
        }
    }
}

/// Secrets that are read from files, with the files.
#[derive(Default)]
pub struct SecretFiles(FxHashMap<(SourceId, Box<str>), (wire::Secret, Files)>);

// The messages may hold keys.
impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFiles").finish_non_exhaustive()
    }
}

impl SecretFiles {
    /// Notes the newest message of a secret and what was read for it.
    pub(super) fn keep(&mut self, source: SourceId, name: &str, message: wire::Secret, files: Files) {
        if files.is_empty() {
            self.forget(source, name);
        } else {
            self.0.insert((source, name.into()), (message, files));
        }
    }

    pub(super) fn forget(&mut self, source: SourceId, name: &str) {
        self.0.remove(&(source, name.into()));
    }
}

impl Configuration {
    /// Reads again what comes from files in this folder and has changed. What is broken changes nothing, and is told.
    pub fn read_files_again(&mut self, folder: &Path) {
        Inlined::<TlsCertificate>::read_again(&mut self.inputs, folder);
        Inlined::<ValidationContext>::read_again(&mut self.inputs, folder);
        for ((source, name), (message, files)) in &mut self.secret_files.0 {
            if !files.has_changed(folder, &self.inputs.read_file) {
                continue;
            }
            let cx = CompileCx::new(&mut self.inputs, false);
            let compiled = again(cx, "secret", name, |cx| compile_secret(message, cx));
            let leaf = self.secrets.of_mut(*source).get_mut(&**name);
            if let (Some((secret, read)), Some(leaf)) = (compiled, leaf) {
                self.inputs.registry.publish_secret(*source, name, &secret);
                leaf.value = secret;
                *files = read;
            }
        }
    }
}

/// Watches folders as they come, and reads again what changes in them. Never ends. Runs on main.
pub async fn follow(configuration: Arc<ConfigurationHandle>, mut folders: UnboundedReceiver<PathBuf>) {
    let (tell, mut changes) = unbounded_channel();
    let mut watchers = Vec::new();
    loop {
        let mut changed = FxHashSet::default();
        tokio::select! {
            Some(folder) = folders.recv() => {
                let (tell, told) = (tell.clone(), folder.clone());
                let watcher = folder::watch(&folder, |event| is_whole(event.kind), move || {
                    let _ = tell.send(told.clone());
                });
                watchers.extend(watcher);
                // What changed between reading and watching.
                changed.insert(folder);
            }
            Some(folder) = changes.recv() => {
                changed.insert(folder);
                while let Ok(folder) = changes.try_recv() {
                    changed.insert(folder);
                }
            }
        }
        configuration.update(|c| changed.iter().for_each(|folder| c.read_files_again(folder)));
    }
}

/// A file was moved into place, or closed after it was written: nobody is still at it.
fn is_whole(event: EventKind) -> bool {
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    event == written || matches!(event, EventKind::Modify(ModifyKind::Name(_)))
}
