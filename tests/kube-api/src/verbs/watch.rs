//! Watches: the events of a collection from a version on, for as long as the client asked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::read::parse_version;
use crate::cluster::Cluster;
use crate::dispatch::Call;
use crate::http::accept::Form;
use crate::http::respond::{Answer, Reply, WatchBody, metadata_only};
use crate::kinds::Resource;
use crate::object;
use crate::selector::{Selector, in_namespace};
use crate::status::{Cause, Result, Status};
use crate::store::Change;
use crate::switches::{Cut, WatchOrder};
use crate::table;

/// How often an idle watch gets a bookmark.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Shorter watches end without a bookmark.
const SHORTEST_WITH_BOOKMARK: Duration = Duration::from_secs(4);
/// How long a watch lasts whose client does not say; a real server takes a random time up to twice this.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

struct Watch {
    cluster: Arc<Cluster>,
    resource: Arc<Resource>,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    bookmarks: bool,
    deadline: Instant,
    timeout: Duration,
    /// All changes up to this version were sent.
    sent: u64,
    body: mpsc::Sender<io::Result<Frame<Bytes>>>,
    is_first_table: bool,
}

/// The client went away.
struct Gone;

fn check_options(call: &Call) -> Result<()> {
    let query = &call.query;
    let matching = query.get("resourceVersionMatch");
    let mut causes = Vec::new();
    if query.has("sendInitialEvents") {
        if matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden("resourceVersionMatch", why));
            if !matching.is_empty() {
                let supported = ["NotOlderThan"];
                causes.push(Cause::unsupported("resourceVersionMatch", &matching.into(), &supported));
            }
        }
    } else if !matching.is_empty() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        causes.push(Cause::forbidden("resourceVersionMatch", why));
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &causes)) }
}

pub(crate) fn start(call: &Call) -> Result<Reply> {
    check_options(call)?;
    let query = &call.query;
    let mut selector =
        Selector::parse(&call.resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    if let Some(name) = &call.target.name {
        selector = selector.and_name(name);
    }
    let asked = parse_version(query.get("resourceVersion")).map_err(|why| Status::new(500, "", why))?;
    let timeout = match query.get("timeoutSeconds").parse() {
        Ok(0) | Err(_) => DEFAULT_TIMEOUT.mul_f64(1.0 + fastrand::f64()),
        Ok(seconds) => Duration::from_secs(seconds),
    };
    let (body, frames) = mpsc::channel(64);
    let mut watch = Watch {
        cluster: call.cluster.clone(),
        resource: call.resource.clone(),
        namespace: call.target.namespace.clone(),
        selector,
        form: call.accept.form,
        bookmarks: query.flag("allowWatchBookmarks"),
        deadline: Instant::now() + timeout,
        timeout,
        sent: asked,
        body,
        is_first_table: true,
    };
    let begin = if query.has("sendInitialEvents") {
        match (query.flag("sendInitialEvents"), asked) {
            (true, _) => Begin::WithState { tell_end: true },
            (false, 0) => Begin::Now,
            (false, _) => Begin::After,
        }
    } else if asked == 0 {
        Begin::WithState { tell_end: false }
    } else {
        Begin::After
    };
    // Taken now, so that an order that is given after the response has begun reaches this watch.
    let orders = call.cluster.switches.orders.subscribe();
    tokio::spawn(async move {
        let cluster = watch.cluster.clone();
        let _counted = cluster.switches.start_watch();
        let _ = watch.run(begin, orders).await;
    });
    let body = StreamBody::new(ReceiverStream::new(frames)).boxed();
    Ok(Answer::Watch(WatchBody(body)).into())
}

/// Where a watch begins.
enum Begin {
    /// With the present objects as `ADDED`; `tell_end`: and a bookmark after them.
    WithState { tell_end: bool },
    /// With what happens from now on.
    Now,
    /// With what happened after the version that was asked for.
    After,
}

impl Watch {
    async fn run(
        &mut self,
        begin: Begin,
        mut orders: broadcast::Receiver<WatchOrder>,
    ) -> std::result::Result<(), Gone> {
        let mut versions = self.cluster.versions();
        match begin {
            Begin::WithState { tell_end } => {
                let collection = self.resource.collection();
                let (version, objects) =
                    self.cluster.read(|store| (store.version(), store.list(&collection)));
                self.sent = version;
                for object in objects.into_values() {
                    if self.picks(&object) {
                        self.event("ADDED", &object).await?;
                    }
                }
                if tell_end && self.bookmarks {
                    self.bookmark(true).await?;
                }
            }
            Begin::Now => self.sent = self.cluster.read(|store| store.version()),
            Begin::After => {
                let compacted = self.cluster.read(|store| store.compacted());
                if self.sent < compacted {
                    return self.too_old(compacted).await;
                }
            }
        }
        let mut next_bookmark = self.first_bookmark();
        loop {
            versions.mark_unchanged();
            if !self.catch_up().await? || !self.is_served() {
                return Ok(());
            }
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Ok(WatchOrder::End { plural, how })
                        if plural.as_ref().is_none_or(|plural| *plural == self.resource.plural) =>
                    {
                        return self.end(how).await;
                    }
                    Ok(WatchOrder::Bookmark) if self.bookmarks => self.bookmark(false).await?,
                    _ => {}
                },
                () = self.body.closed() => return Err(Gone),
                _ = versions.changed() => {}
                () = tokio::time::sleep_until(self.deadline) => return Ok(()),
                () = tokio::time::sleep_until(next_bookmark), if self.bookmarks => {
                    self.bookmark(false).await?;
                    next_bookmark = self.bookmark_after(next_bookmark);
                }
            }
        }
    }

    fn is_served(&self) -> bool {
        self.cluster.kinds(|kinds| kinds.serves(&self.resource.collection()))
    }

    fn first_bookmark(&self) -> Instant {
        if self.timeout < SHORTEST_WITH_BOOKMARK {
            return self.deadline + BOOKMARK_INTERVAL;
        }
        (Instant::now() + BOOKMARK_INTERVAL).min(self.deadline - LAST_BOOKMARK)
    }

    fn bookmark_after(&self, bookmark: Instant) -> Instant {
        let last = self.deadline - LAST_BOOKMARK;
        if bookmark >= last {
            self.deadline + BOOKMARK_INTERVAL
        } else {
            (bookmark + BOOKMARK_INTERVAL).min(last)
        }
    }

    fn picks(&self, object: &Value) -> bool {
        in_namespace(object, self.namespace.as_deref()) && self.selector.matches(object)
    }

    /// Sends what happened since; `false` ends the watch.
    async fn catch_up(&mut self) -> std::result::Result<bool, Gone> {
        let collection = self.resource.collection();
        let from = self.sent;
        let (version, changes) =
            self.cluster.read(|store| (store.version(), store.changes(&collection, from)));
        let Some(changes) = changes else {
            let compacted = self.cluster.read(|store| store.compacted());
            self.too_old(compacted).await?;
            return Ok(false);
        };
        for change in changes {
            self.change(&change).await?;
        }
        // A version of the future that was asked for stays.
        self.sent = self.sent.max(version);
        Ok(true)
    }

    async fn change(&mut self, change: &Change) -> std::result::Result<(), Gone> {
        let before = change.before.as_ref().filter(|object| self.picks(object));
        let after = change.after.as_ref().filter(|object| self.picks(object));
        match (before, after) {
            (None, Some(object)) => self.event("ADDED", object).await,
            (Some(_), Some(object)) => self.event("MODIFIED", object).await,
            (Some(object), None) => {
                let mut last = (**object).clone();
                object::set_version(&mut last, change.version);
                self.event("DELETED", &last).await
            }
            (None, None) => Ok(()),
        }
    }

    async fn event(&mut self, event: &str, stored: &Value) -> std::result::Result<(), Gone> {
        let object = match self.form {
            Form::Plain => self.resource.present(stored),
            Form::Metadata => metadata_only(stored),
            Form::Table => {
                let with_columns = std::mem::take(&mut self.is_first_table);
                let metadata = json!({"resourceVersion": object::meta(stored, "resourceVersion")});
                table::table(&self.resource, &metadata, &[stored], with_columns)
            }
        };
        self.send(event, &object).await
    }

    async fn bookmark(&mut self, is_end_of_state: bool) -> std::result::Result<(), Gone> {
        let mut object = self.resource.empty();
        object::set_version(&mut object, self.sent);
        if is_end_of_state {
            object::set_meta(&mut object, "annotations", json!({"k8s.io/initial-events-end": "true"}));
        }
        match self.form {
            Form::Plain => self.send("BOOKMARK", &object).await,
            Form::Metadata => self.send("BOOKMARK", &metadata_only(&object)).await,
            Form::Table => {
                let with_columns = std::mem::take(&mut self.is_first_table);
                let metadata = object["metadata"].clone();
                let table = table::table(&self.resource, &metadata, &[&object], with_columns);
                self.send("BOOKMARK", &table).await
            }
        }
    }

    async fn too_old(&mut self, oldest: u64) -> std::result::Result<(), Gone> {
        let status = Status::expired(format!("too old resource version: {} ({oldest})", self.sent));
        self.send("ERROR", &status.to_json()).await
    }

    async fn send(&mut self, event: &str, object: &Value) -> std::result::Result<(), Gone> {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        self.body.send(Ok(Frame::data(line.into()))).await.map_err(|_| Gone)
    }

    async fn end(&mut self, how: Cut) -> std::result::Result<(), Gone> {
        match how {
            Cut::Clean => Ok(()),
            Cut::Reset => self.body.send(Err(io::Error::other("cut by the test"))).await.map_err(|_| Gone),
        }
    }
}
