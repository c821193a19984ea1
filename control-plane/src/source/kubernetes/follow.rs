//! One kind, followed for ever: listed, then watched from there.
//!
//! `kube`'s watcher does the protocol: pages, bookmarks, resuming at the last resource version, a new list after 410.
//! Here a failure becomes news and a pause (with backoff and jitter), and objects are cut down as they come. A list is
//! told as a whole, when its last page is read.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::{Api, Client};

use crate::source::kubernetes::backoff::Backoff;
use crate::source::kubernetes::kinds::Kind;
use crate::source::kubernetes::prune::prune;
use crate::source::{Object, ObjectKey, Origin, without_nulls};

/// How long one watch lasts before it is renewed, in seconds. Nothing is lost in between; it bounds how long a connection
/// that died without a word goes unnoticed.
pub(super) const WATCH_S: u32 = 60;

/// What happens to a kind.
#[derive(Debug)]
pub(super) enum News {
    /// All objects that exist.
    Listed(Vec<Object>),
    /// An object appeared or changed.
    Changed(Object),
    /// An object is gone.
    Gone(ObjectKey),
    /// Listing or watching failed; it is tried again.
    Failed(String),
}

/// The watch of one kind.
pub(super) struct Follow {
    api: Api<DynamicObject>,
    kind: &'static Kind,
    resource: ApiResource,
    events: BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>>,
    /// The list that is being read.
    listing: Vec<Object>,
    backoff: Backoff,
    /// How long to wait before the next attempt.
    pause: Option<Duration>,
}

impl Follow {
    /// A watch of all objects of `kind` in `version`, in all namespaces.
    pub(super) fn new(client: Client, kind: &'static Kind, version: &str) -> Self {
        let resource = kind.resource(version);
        let api = Api::all_with(client, &resource);
        Self {
            events: watch(&api, kind),
            api,
            kind,
            resource,
            listing: Vec::new(),
            backoff: Backoff::default(),
            pause: None,
        }
    }

    /// The news, without end.
    pub(super) fn into_stream(self) -> BoxStream<'static, News> {
        stream::unfold(self, |mut follow| async move { Some((follow.next().await, follow)) }).boxed()
    }

    async fn next(&mut self) -> News {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        loop {
            match self.events.next().await {
                Some(Ok(watcher::Event::Init)) => self.listing.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => self.listing.push(self.object(object)),
                Some(Ok(watcher::Event::InitDone)) => {
                    self.backoff.reset();
                    return News::Listed(std::mem::take(&mut self.listing));
                }
                Some(Ok(watcher::Event::Apply(object))) => {
                    self.backoff.reset();
                    return News::Changed(self.object(object));
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    self.backoff.reset();
                    return News::Gone(self.key(&object));
                }
                Some(Err(error)) => {
                    self.pause = Some(self.backoff.next());
                    if is_expired(&error) {
                        self.events = watch(&self.api, self.kind);
                    }
                    return News::Failed(explain(&error));
                }
                // It does not end by itself.
                None => self.events = watch(&self.api, self.kind),
            }
        }
    }

    fn key(&self, object: &DynamicObject) -> ObjectKey {
        ObjectKey {
            group: self.kind.group.to_owned(),
            kind: self.kind.kind.to_owned(),
            // As for a document of a file that names none: this is how objects of the cluster are known.
            namespace: object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: object.metadata.name.clone().unwrap_or_default(),
        }
    }

    fn object(&self, mut object: DynamicObject) -> Object {
        let key = self.key(&object);
        let generation = object.metadata.generation.unwrap_or_default();
        object.metadata.managed_fields = None;
        // The items of a list say neither version nor kind.
        let mut document = serde_json::Map::new();
        document.insert("apiVersion".to_owned(), self.resource.api_version.clone().into());
        document.insert("kind".to_owned(), self.kind.kind.into());
        document.insert("metadata".to_owned(), serde_json::to_value(object.metadata).unwrap_or_default());
        if let serde_json::Value::Object(fields) = object.data {
            document.extend(fields);
        }
        let document = without_nulls(prune(document.into(), self.kind.keep));
        Object {
            api_version: self.resource.api_version.clone(),
            origin: Origin { generation, ..Origin::in_cluster(key) }.into(),
            document: document.into(),
        }
    }
}

fn watch(
    api: &Api<DynamicObject>,
    kind: &Kind,
) -> BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>> {
    let config = watcher::Config::default().timeout(WATCH_S).page_size(kind.page);
    watcher::watcher(api.clone(), config).boxed()
}

/// Whether the resource version to resume from is too old (410). The watcher lists anew when an event says so, but not
/// when the answer to its request does.
fn is_expired(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.code == 410,
        WatchError(status) => status.code == 410,
        _ => false,
    }
}

/// The error with its causes in one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}
