//! A host with several addresses (RFC 8305): which is tried when, and who wins. As Envoy does it: the next one after 300 ms without a
//! connection, or at once when one fails; the first connection is taken, the others are given up.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// Envoy's pause between two attempts.
const PAUSE: Duration = Duration::from_millis(300);

/// `upstream_connection_options.happy_eyeballs_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// `first_address_family_version`: whether IPv4 is tried first. `None`: the version of the first address is.
    pub ipv4_first: Option<bool>,
    /// `first_address_family_count`: so many of that version are tried before one of the other; at least 1.
    pub count: u32,
}

impl Default for HappyEyeballs {
    fn default() -> Self {
        Self { ipv4_first: None, count: 1 }
    }
}

impl HappyEyeballs {
    /// The order in which the addresses are tried.
    pub fn order(self, first: SocketAddr, more: &[SocketAddr]) -> Vec<SocketAddr> {
        let all = || [first].into_iter().chain(more.iter().copied());
        let ipv4_first = self.ipv4_first.unwrap_or(first.is_ipv4());
        let mut preferred = all().filter(|address| address.is_ipv4() == ipv4_first).peekable();
        let mut other = all().filter(|address| address.is_ipv4() != ipv4_first).peekable();
        let mut order = Vec::with_capacity(more.len() + 1);
        while preferred.peek().is_some() || other.peek().is_some() {
            order.extend(preferred.by_ref().take(self.count.max(1) as usize));
            order.extend(other.next());
        }
        order
    }
}

/// Tries `addresses`, of which there is at least one, until there is a connection.
///
/// # Errors
/// The last attempt's, when all have failed.
pub(super) async fn race<T, E, F>(
    addresses: Vec<SocketAddr>,
    mut attempt: impl FnMut(SocketAddr) -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempts = FuturesUnordered::new();
    let mut addresses = addresses.into_iter().peekable();
    loop {
        attempts.extend(addresses.next().map(&mut attempt));
        let has_more = addresses.peek().is_some();
        let pause = sleep(PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                Some(outcome) = attempts.next() => match outcome {
                    Ok(connected) => return Ok(connected),
                    Err(error) if attempts.is_empty() && !has_more => return Err(error),
                    Err(_) if has_more => break,
                    Err(_) => {}
                },
                () = &mut pause, if has_more => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        let port = text[1..].parse().unwrap();
        match text.starts_with('4') {
            true => ([127, 0, 0, 1], port).into(),
            false => (std::net::Ipv6Addr::LOCALHOST, port).into(),
        }
    }

    #[test]
    fn versions_take_turns() {
        for (addresses, ipv4_first, count, expected) in [
            ("41", None, 1, "41"),
            ("41 42 43", None, 1, "41 42 43"),
            ("41 42 61 62", None, 1, "41 61 42 62"),
            ("61 41 42 62", None, 1, "61 41 62 42"),
            ("41 42 43 61", None, 1, "41 61 42 43"),
            ("41 61 62", Some(false), 1, "61 41 62"),
            ("61 41 42", Some(true), 1, "41 61 42"),
            ("41 42 61 62 63 64", Some(false), 3, "61 62 63 41 64 42"),
            ("41 42", Some(false), 2, "41 42"),
            ("41 42 61", None, 0, "41 61 42"),
        ] {
            let all: Vec<SocketAddr> = addresses.split(' ').map(address).collect();
            let order = HappyEyeballs { ipv4_first, count }.order(all[0], &all[1..]);
            let expected: Vec<SocketAddr> = expected.split(' ').map(address).collect();
            assert_eq!(order, expected, "{addresses} {ipv4_first:?} {count}");
        }
    }

    /// What becomes of attempts: milliseconds until the outcome, and whether it is a connection.
    async fn run(rows: &[(u64, bool)]) -> (Result<u16, u16>, u128, Vec<u128>) {
        let start = Instant::now();
        let began = RefCell::new(Vec::new());
        let addresses = (1..=rows.len()).map(|port| address(&format!("4{port}"))).collect();
        let outcome = race(addresses, |address| {
            began.borrow_mut().push(start.elapsed().as_millis());
            let (after, connects) = rows[usize::from(address.port()) - 1];
            async move {
                sleep(Duration::from_millis(after)).await;
                if connects { Ok(address.port()) } else { Err(address.port()) }
            }
        });
        let outcome = outcome.await;
        (outcome, start.elapsed().as_millis(), began.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_connection_wins() {
        const NEVER: u64 = 100_000;
        for (rows, outcome, after, began) in [
            (&[(10, true), (0, true)][..], Ok(1), 10, &[0][..]),
            // The next one after the pause; the one before may still win.
            (&[(350, true), (100, true)], Ok(1), 350, &[0, 300]),
            (&[(NEVER, true), (20, true)], Ok(2), 320, &[0, 300]),
            (&[(NEVER, true), (NEVER, true), (5, true)], Ok(3), 605, &[0, 300, 600]),
            // At once where one fails.
            (&[(0, false), (20, true)], Ok(2), 20, &[0, 0]),
            (&[(100, false), (0, false), (7, true)], Ok(3), 107, &[0, 100, 100]),
            // An earlier one that fails late brings the next one forward too.
            (&[(400, false), (NEVER, true), (1, true)], Ok(3), 401, &[0, 300, 400]),
            // All fail, the last of them counts.
            (&[(5, false), (6, false)], Err(2), 11, &[0, 5]),
            (&[(500, false), (10, false)], Err(1), 500, &[0, 300]),
        ] {
            assert_eq!(run(rows).await, (outcome, after, began.to_vec()), "{rows:?}");
        }
    }
}
