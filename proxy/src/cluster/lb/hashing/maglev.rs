//! A Maglev table ("Maglev: A Fast and Reliable Software Network Load Balancer", section 3.4): hosts take turns in claiming
//! entries, each in an order of its own.

use twox_hash::XxHash64;

use super::Entry;

/// Whose entry it is. Without hosts there are no entries.
#[derive(Debug)]
pub(super) struct Maglev {
    hosts: Vec<u32>,
}

/// A host while the table is filled.
struct Claimant {
    host: u32,
    share: f64,
    /// Its order: `offset`, then every `skip` entries.
    offset: u64,
    skip: u64,
    next: u64,
    /// It has had its part until this much weight was given out.
    served: f64,
}

impl Maglev {
    /// A table of `size` entries; `size` is a prime.
    pub(super) fn build(entries: &[Entry<'_>], size: u64) -> Self {
        if entries.is_empty() {
            return Self { hosts: Vec::new() };
        }
        let largest = entries.iter().map(|entry| entry.share).fold(0.0, f64::max);
        let mut order: Vec<(u32, &Entry<'_>)> = (0..).zip(entries).collect();
        // Who claims first makes a difference, so the order must not depend on that of the endpoints.
        order.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        let mut claimants: Vec<Claimant> = order
            .into_iter()
            .map(|(host, entry)| Claimant {
                host,
                share: entry.share,
                offset: XxHash64::oneshot(0, entry.key.as_bytes()) % size,
                skip: XxHash64::oneshot(1, entry.key.as_bytes()) % (size - 1) + 1,
                next: 0,
                served: 0.0,
            })
            .collect();
        const FREE: u32 = u32::MAX;
        let mut hosts = vec![FREE; size as usize];
        let mut left = hosts.len();
        for round in 1u64.. {
            for claimant in &mut claimants {
                if left == 0 {
                    return Self { hosts };
                }
                // The host of the largest share has a turn in every round, one of half that share in every second.
                if (round as f64) * claimant.share < claimant.served {
                    continue;
                }
                claimant.served += largest;
                let mut at = claimant.claim(size);
                while hosts[at] != FREE {
                    at = claimant.claim(size);
                }
                hosts[at] = claimant.host;
                left -= 1;
            }
        }
        Self { hosts }
    }

    /// The host of the entry for this hash, or with an `attempt` of one far from it.
    pub(super) fn host(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = if attempt == 0 { hash } else { hash ^ u64::from(attempt).wrapping_neg() };
        let at = hash.checked_rem(self.hosts.len() as u64)?;
        self.hosts.get(at as usize).map(|&host| host as usize)
    }
}

impl Claimant {
    /// The next entry in its order.
    fn claim(&mut self, size: u64) -> usize {
        let at = (self.offset + self.skip * self.next) % size;
        self.next += 1;
        at as usize
    }
}
