//! Responses by status code and by class.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Counter;

/// Status codes that have their own counter; any other one takes a lock.
const COMMON: [u16; 25] = [
    200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 413, 429, 431, 500, 501,
    502, 503, 504, 101,
];

/// Counts `_rq_1xx` to `_rq_5xx`.
#[derive(Debug, Default)]
pub struct ResponseClasses([Counter; 5]);

impl ResponseClasses {
    /// Counts a response; codes outside of 100 to 599 are not counted.
    pub fn count(&self, code: u16) {
        if let Some(class) = (code / 100).checked_sub(1).and_then(|i| self.0.get(usize::from(i))) {
            class.inc();
        }
    }

    /// (class digit, count), in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().zip(1..).map(|(c, class)| (class, c.get()))
    }
}

/// Counts `_rq_CODE`. A code has a series once it was seen.
#[derive(Debug, Default)]
pub struct ResponseCodes {
    common: [Counter; COMMON.len()],
    others: Mutex<BTreeMap<u16, u64>>,
}

impl ResponseCodes {
    /// Counts a response.
    pub fn count(&self, code: u16) {
        match COMMON.iter().position(|c| *c == code) {
            Some(i) => self.common[i].inc(),
            None => *self.others.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1,
        }
    }

    /// (code, count) of each code seen, in order.
    pub(super) fn seen(&self) -> BTreeMap<u16, u64> {
        let mut seen = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.extend(
            COMMON.into_iter().zip(&self.common).map(|(code, c)| (code, c.get())).filter(|(_, n)| *n > 0),
        );
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_classes() {
        let (codes, classes) = (ResponseCodes::default(), ResponseClasses::default());
        for code in [200, 200, 503, 418, 0, 600] {
            codes.count(code);
            classes.count(code);
        }
        assert_eq!(
            codes.seen().into_iter().collect::<Vec<_>>(),
            [(0, 1), (200, 2), (418, 1), (503, 1), (600, 1)]
        );
        assert_eq!(classes.iter().collect::<Vec<_>>(), [(1, 0), (2, 2), (3, 0), (4, 1), (5, 1)]);
    }
}
