//! A ring (ketama): each host stands at many points of the hash's range, a hash belongs to the next point above it.

use std::ops::Range;

use twox_hash::XxHash64;

use super::{Entry, HashFunction, murmur};

/// The points in order.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<u64>,
    /// Whose point it is, at the same index.
    hosts: Vec<u32>,
    sectors: Sectors,
}

/// Where on a ring to begin: it is cut into about as many parts as it has points, and as these are spread evenly, a part has few.
#[derive(Debug)]
struct Sectors {
    /// By how many bits a hash is shifted to be the number of its sector.
    shift: u32,
    /// The index of the first point that is not before each sector; one more at the end.
    begins: Vec<u32>,
}

impl Ring {
    /// The host of the least weight gets a whole number of points, the others in proportion; in all about `min_size`, or as many
    /// more as that takes, at most `max_size`.
    pub(super) fn build(entries: &[Entry<'_>], min_size: u64, max_size: u64, function: HashFunction) -> Self {
        let least = entries.iter().map(|entry| entry.share).fold(1.0, f64::min);
        let scale = ((least * min_size as f64).ceil() / least).min(max_size as f64);
        let mut ring: Vec<(u64, u32)> = Vec::with_capacity(scale.ceil() as usize);
        // Running sums over all hosts, so that fractions of points add up as they do in Envoy.
        let (mut made, mut wanted) = (0.0, 0.0);
        let mut key = String::new();
        for (host, entry) in (0..).zip(entries) {
            wanted += scale * entry.share;
            key.clear();
            key.push_str(&entry.key);
            key.push('_');
            let name = key.len();
            let mut number = 0u64;
            while made < wanted {
                key.truncate(name);
                key.push_str(itoa::Buffer::new().format(number));
                ring.push((point(&key, function), host));
                number += 1;
                made += 1.0;
            }
        }
        ring.sort_by_key(|(point, _)| *point);
        let (points, hosts): (Vec<u64>, Vec<u32>) = ring.into_iter().unzip();
        Self { sectors: Sectors::of(&points), points, hosts }
    }

    /// The host of the point for this hash, or of the point that comes `attempt` points later.
    pub(super) fn host(&self, hash: u64, attempt: u32) -> Option<usize> {
        let sector = self.sectors.of_hash(hash);
        let before = self.points.get(sector.clone())?.partition_point(|point| *point < hash);
        let at = sector.start + before + attempt as usize;
        self.hosts.get(at.checked_rem(self.hosts.len())?).map(|&host| host as usize)
    }
}

impl Sectors {
    fn of(points: &[u64]) -> Self {
        let bits = points.len().max(2).next_power_of_two().ilog2();
        let shift = u64::BITS - bits;
        let mut at = 0;
        let mut begins: Vec<u32> = Vec::with_capacity((1 << bits) + 1);
        for sector in 0..1u64 << bits {
            at += points[at..].iter().take_while(|point| **point >> shift < sector).count();
            begins.push(at as u32);
        }
        begins.push(points.len() as u32);
        Self { shift, begins }
    }

    /// The indexes of the points in the hash's sector.
    fn of_hash(&self, hash: u64) -> Range<usize> {
        let sector = (hash >> self.shift) as usize;
        let [begin, end] = [self.begins[sector], self.begins[sector + 1]];
        begin as usize..end as usize
    }
}

fn point(key: &str, function: HashFunction) -> u64 {
    match function {
        HashFunction::XxHash => XxHash64::oneshot(0, key.as_bytes()),
        HashFunction::Murmur2 => murmur::hash(key.as_bytes()),
    }
}

#[cfg(test)]
impl Ring {
    /// All points, each with its host.
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, usize)> {
        self.points.iter().copied().zip(self.hosts.iter().map(|host| *host as usize))
    }
}
