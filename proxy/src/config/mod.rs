//! Wire → compiled → live. Everything here but `live` runs on the main runtime only.

pub mod live;
