//! A live value: a name and a swappable pointer to the compiled value that currently has it.
//!
//! Main publishes, workers load. A reference to a name that nobody has defined yet is an empty cell which a later
//! publication fills, so publishing never touches those that refer to it. Loading takes no lock and never waits.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

/// One named cell. Handed out once per name by the registry on main; everything that refers to the name shares it.
#[derive(Debug)]
pub struct Live<T> {
    name: Arc<str>,
    cell: ArcSwapOption<T>,
}

impl<T> Live<T> {
    /// An empty cell: the name is referenced but nothing is published under it.
    pub fn empty(name: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), cell: ArcSwapOption::empty() })
    }

    /// A cell that already holds a value.
    pub fn with(name: impl Into<Arc<str>>, value: Arc<T>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), cell: ArcSwapOption::new(Some(value)) })
    }

    /// The resource name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The current value for a short look; does not touch the reference count.
    pub fn peek(&self) -> Guard<Option<Arc<T>>> {
        self.cell.load()
    }

    /// The current value, pinned.
    pub fn get(&self) -> Option<Arc<T>> {
        self.cell.load_full()
    }

    /// Replaces the value for all readers at once.
    pub fn publish(&self, value: Arc<T>) {
        self.cell.store(Some(value));
    }

    /// Empties the cell.
    pub fn withdraw(&self) {
        self.cell.store(None);
    }
}
