//! What may be done with objects, one file a verb.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod patch;
pub(crate) mod port_forward;
pub(crate) mod read;
pub(crate) mod strategic;
pub(crate) mod update;
pub(crate) mod watch;
