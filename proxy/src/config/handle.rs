//! The configuration as the tasks of main share it: every change is followed by what it means for the workers and for the sources.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::configuration::Configuration;
use super::listeners::Change;
use super::watch::WatchChange;

/// Tells the workers.
pub type Dispatch = Box<dyn Fn(Change) + Send + Sync>;

/// A shared [`Configuration`]. Locked for short, never across an await.
pub struct ConfigurationHandle {
    configuration: Mutex<Configuration>,
    dispatch: Dispatch,
    watches: UnboundedSender<WatchChange>,
    changed: Notify,
}

impl std::fmt::Debug for ConfigurationHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigurationHandle").finish_non_exhaustive()
    }
}

impl ConfigurationHandle {
    /// Shares a configuration whose changes go to `dispatch`; what it wants of the sources goes to `watches`.
    pub fn new(
        configuration: Configuration,
        dispatch: Dispatch,
        watches: UnboundedSender<WatchChange>,
    ) -> Self {
        Self { configuration: Mutex::new(configuration), dispatch, watches, changed: Notify::new() }
    }

    /// Looks at the configuration.
    pub fn read<R>(&self, f: impl FnOnce(&Configuration) -> R) -> R {
        f(&self.configuration.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the configuration, tells the workers and the sources, and wakes who waits for a change.
    pub fn update<R>(&self, f: impl FnOnce(&mut Configuration) -> R) -> R {
        let mut configuration = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut configuration);
        // Under the lock, so that the workers hear of changes in their order.
        for change in configuration.take_changes() {
            (self.dispatch)(change);
        }
        for change in configuration.take_watch_changes() {
            // Without sources, as when draining, nobody hears of it.
            let _ = self.watches.send(change);
        }
        drop(configuration);
        self.changed.notify_waiters();
        result
    }

    /// Keeps deadlines: ends never.
    pub async fn keep_deadlines(&self) {
        loop {
            let changed = self.changed.notified();
            let deadline = self.read(Configuration::next_deadline);
            let expired = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = expired => self.update(|configuration| configuration.settle(Instant::now())),
            }
        }
    }

    /// Ends when everything that the process waits for at its start is there, or the time for it is over.
    pub async fn initialized(&self) {
        loop {
            let changed = self.changed.notified();
            if self.read(Configuration::is_initialized) {
                return;
            }
            changed.await;
        }
    }
}
