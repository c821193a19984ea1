//! How far the process is: starting, serving, stopping.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The source is not read yet.
    Starting,
    Serving,
    Stopping,
}

/// Moves the process on; it never goes back.
#[derive(Clone, Debug)]
pub(super) struct Switch(Arc<watch::Sender<Phase>>);

/// Tells how far the process is.
#[derive(Clone, Debug)]
pub struct Lifecycle(watch::Receiver<Phase>);

/// A process that is starting.
pub(super) fn start() -> (Switch, Lifecycle) {
    let (sender, receiver) = watch::channel(Phase::Starting);
    (Switch(Arc::new(sender)), Lifecycle(receiver))
}

impl Switch {
    /// The source is read. Returns whether that is news.
    pub(super) fn serve(&self) -> bool {
        self.0.send_if_modified(|phase| {
            let is_news = *phase == Phase::Starting;
            if is_news {
                *phase = Phase::Serving;
            }
            is_news
        })
    }

    pub(super) fn stop(&self) {
        self.0.send_replace(Phase::Stopping);
    }
}

impl Lifecycle {
    /// Whether the source is read and the process is not stopping.
    pub fn is_serving(&self) -> bool {
        *self.0.borrow() == Phase::Serving
    }

    /// Whether the process is stopping.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() == Phase::Stopping
    }

    /// Waits until the source is read, so that every pod of it can authenticate; `Unavailable` when the process stops
    /// first.
    pub async fn serving(&self) -> Result<(), Status> {
        let mut phase = self.0.clone();
        match phase.wait_for(|phase| *phase != Phase::Starting).await.as_deref() {
            Ok(Phase::Serving) => Ok(()),
            _ => Err(shutting_down()),
        }
    }

    /// Waits until the process stops.
    pub async fn stopping(&self) {
        // A closed channel means that it is going down, too.
        let _ = self.0.clone().wait_for(|phase| *phase == Phase::Stopping).await;
    }
}

/// What callers are told when the process stops.
pub(crate) fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}
