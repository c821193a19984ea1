//! How many downstream connections the process may have: counted where they come, not measured from time to time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of connections that all workers share.
#[derive(Debug)]
pub struct ConnectionLimit {
    maximum: u64,
    open: AtomicU64,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<ConnectionLimit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionLimit {
    /// At most `maximum` at a time.
    pub fn new(maximum: u64) -> Arc<Self> {
        Arc::new(Self { maximum, open: AtomicU64::new(0) })
    }

    /// A place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let one_more = |open| (open < self.maximum).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(self.clone()))
    }

    /// A place whether there is one or not: for listeners that the limit is not for, whose connections count all the same.
    pub fn take_anyway(self: &Arc<Self>) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }

    /// The share of the places that are taken.
    pub fn pressure(&self) -> f64 {
        self.open.load(Ordering::Relaxed) as f64 / self.maximum as f64
    }
}
