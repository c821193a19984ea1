//! Token buckets, and which of them a request takes from. Lock-free: all workers share them.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;

use crate::route::{Descriptor, DescriptorEntry};

/// `envoy.type.v3.TokenBucket`.
#[derive(Debug, Clone, Copy)]
pub struct BucketSize {
    /// `max_tokens`: full at first.
    pub max_tokens: u32,
    /// `tokens_per_fill`, spread evenly over the interval.
    pub tokens: u32,
    /// `fill_interval`.
    pub interval: Duration,
}

/// A bucket. Its whole state is the moment at which it was empty.
#[derive(Debug)]
pub struct TokenBucket {
    start: Instant,
    /// Nanoseconds after `start` at which no token was left.
    empty_at_ns: AtomicU64,
    max_tokens: u64,
    ns_per_token: u64,
    /// `shadow_mode`: who finds it empty passes all the same.
    pub(super) shadow: bool,
}

/// So far before `start` a bucket may have been empty, so that a full one can be told by a number that is not negative.
const HEAD_START_NS: u64 = 1 << 62;

const NS_PER_SECOND: u64 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket.
    pub fn new(size: BucketSize, shadow: bool, start: Instant) -> Self {
        let interval_ns = u64::try_from(size.interval.as_nanos()).unwrap_or(u64::MAX);
        let ns_per_token = (interval_ns / u64::from(size.tokens.max(1))).max(1);
        let max_tokens = size.max_tokens.into();
        Self { start, empty_at_ns: AtomicU64::new(0), max_tokens, ns_per_token, shadow }
    }

    /// Takes one token, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let now_ns = self.at(now);
        let took = self.empty_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            let after = self.no_fuller(empty_at, now_ns).saturating_add(self.ns_per_token);
            (after <= now_ns).then_some(after)
        });
        took.is_ok()
    }

    /// `max_tokens`.
    pub(super) fn limit(&self) -> u64 {
        self.max_tokens
    }

    /// Whole tokens that are left, and the seconds until there is one, begun ones counted.
    pub(super) fn left(&self, now: Instant) -> (u64, u64) {
        let now_ns = self.at(now);
        let empty_at = self.no_fuller(self.empty_at_ns.load(Ordering::Relaxed), now_ns);
        let left = now_ns.saturating_sub(empty_at) / self.ns_per_token;
        let next = empty_at.saturating_add(self.ns_per_token).saturating_sub(now_ns);
        (left, if left > 0 { 0 } else { next.div_ceil(NS_PER_SECOND) })
    }

    fn at(&self, now: Instant) -> u64 {
        let since = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        HEAD_START_NS.saturating_add(since)
    }

    /// More than a full bucket does not fit.
    fn no_fuller(&self, empty_at: u64, now_ns: u64) -> u64 {
        empty_at.max(now_ns.saturating_sub(self.max_tokens.saturating_mul(self.ns_per_token)))
    }
}

/// `LocalRateLimitDescriptor`, compiled.
#[derive(Debug)]
pub struct LimitedDescriptor {
    /// `entries`: key and value; an empty value stands for any.
    pub entries: Box<[(Box<str>, Box<str>)]>,
    /// `token_bucket`.
    pub size: BucketSize,
    /// `shadow_mode`.
    pub shadow: bool,
}

/// What a limiter is made of.
#[derive(Debug, Default)]
pub struct LimiterPlan {
    /// `token_bucket`.
    pub default: Option<BucketSize>,
    /// `descriptors`, each once.
    pub descriptors: Vec<LimitedDescriptor>,
    /// `always_consume_default_token_bucket`, default true.
    pub always_takes_default: bool,
    /// `max_dynamic_descriptors`, default 20: so many values of each descriptor with any value have a bucket at once.
    pub max_values: u32,
}

/// All buckets of a filter, or of a filter for one connection.
#[derive(Debug)]
pub struct Limiter {
    plan: Arc<LimiterPlan>,
    default: Option<Arc<TokenBucket>>,
    /// Descriptors whose values are all known, by their hash.
    known: FxHashMap<u64, Vec<(usize, Arc<TokenBucket>)>>,
    /// Those with any value, in their order.
    any: Vec<(usize, RecentBuckets)>,
}

/// Whether a request may pass.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// The bucket that decided, and the number of the request's descriptor that it is for.
    pub(super) bucket: Option<(Arc<TokenBucket>, Option<usize>)>,
}

impl Limiter {
    /// With full buckets.
    pub fn new(plan: &Arc<LimiterPlan>, start: Instant) -> Self {
        let (mut known, mut any) = (FxHashMap::<u64, Vec<_>>::default(), Vec::new());
        for (i, descriptor) in plan.descriptors.iter().enumerate() {
            let entries = || descriptor.entries.iter().map(|(key, value)| (&**key, &**value));
            if entries().any(|(_, value)| value.is_empty()) {
                any.push((i, RecentBuckets::new(plan.max_values, start)));
            } else {
                let bucket = TokenBucket::new(descriptor.size, descriptor.shadow, start);
                known.entry(hash(entries())).or_default().push((i, Arc::new(bucket)));
            }
        }
        Self {
            default: plan.default.map(|size| Arc::new(TokenBucket::new(size, false, start))),
            known,
            any,
            plan: plan.clone(),
        }
    }

    /// Takes a token from each bucket that the request's descriptors match, the slowest first, and from the default one.
    pub(super) fn take(&self, descriptors: &[Descriptor<'_>], now: Instant) -> Verdict {
        let mut matched: SmallVec<[(Arc<TokenBucket>, usize); 4]> = descriptors
            .iter()
            .enumerate()
            .filter_map(|(i, descriptor)| Some((self.bucket(descriptor, now)?, i)))
            .collect();
        // Stable, and by what comes in a second.
        matched.sort_by_key(|(bucket, _)| Reverse(bucket.ns_per_token));
        for (bucket, at) in &matched {
            if !bucket.take(now) {
                return Verdict { allowed: false, bucket: Some((bucket.clone(), Some(*at))) };
            }
        }
        let first = matched.first().map(|(bucket, at)| (bucket.clone(), Some(*at)));
        if let Some(default) = &self.default
            && (matched.is_empty() || self.plan.always_takes_default)
        {
            let allowed = default.take(now);
            let own = || Some((default.clone(), None));
            return Verdict { allowed, bucket: if allowed { first.or_else(own) } else { own() } };
        }
        Verdict { allowed: true, bucket: first }
    }

    fn bucket(&self, descriptor: &[DescriptorEntry<'_>], now: Instant) -> Option<Arc<TokenBucket>> {
        if descriptor.is_empty() {
            return None;
        }
        let matches = |i: usize| {
            let entries = &self.plan.descriptors[i].entries;
            entries.len() == descriptor.len()
                && entries.iter().zip(descriptor).all(|((key, value), (own_key, own_value))| {
                    **key == **own_key && (value.is_empty() || **value == **own_value)
                })
        };
        let hash = hash(descriptor.iter().map(|(key, value)| (*key, &**value)));
        let known = self.known.get(&hash).and_then(|all| all.iter().find(|(i, _)| matches(*i)));
        if let Some((_, bucket)) = known {
            return Some(bucket.clone());
        }
        let (i, recent) = self.any.iter().find(|(i, _)| matches(*i))?;
        Some(recent.bucket(hash, descriptor, &self.plan.descriptors[*i], now))
    }
}

fn hash<'e>(entries: impl Iterator<Item = (&'e str, &'e str)>) -> u64 {
    let mut hasher = FxHasher::default();
    entries.for_each(|entry| entry.hash(&mut hasher));
    hasher.finish()
}

/// Buckets of the values that came last, up to a limit. A value has its place in one set of slots; where a set is full, the value that
/// was not seen for longest goes. Limits up to [`ONE_SET`] have one set, so that this is exact.
#[derive(Debug)]
struct RecentBuckets {
    slots: Box<[ArcSwapOption<RecentBucket>]>,
    set: usize,
    uses: AtomicU64,
    start: Instant,
}

#[derive(Debug)]
struct RecentBucket {
    values: Box<[Box<str>]>,
    bucket: Arc<TokenBucket>,
    last_use: AtomicU64,
}

/// Slots that are looked through at the most.
const ONE_SET: usize = 64;

/// Slots of a set when there are several.
const SET: usize = 16;

impl RecentBuckets {
    fn new(limit: u32, start: Instant) -> Self {
        let limit = (limit as usize).max(1);
        let (slots, set) = if limit <= ONE_SET { (limit, limit) } else { (limit / SET * SET, SET) };
        let slots = (0..slots).map(|_| ArcSwapOption::empty()).collect();
        Self { slots, set, uses: AtomicU64::new(0), start }
    }

    /// The bucket of these values; a full one for values that have none.
    fn bucket(
        &self,
        hash: u64,
        descriptor: &[DescriptorEntry<'_>],
        plan: &LimitedDescriptor,
        now: Instant,
    ) -> Arc<TokenBucket> {
        let sets = self.slots.len() / self.set;
        // The upper half of a multiplicative hash is the better one.
        let set = (hash >> 32) as usize % sets * self.set;
        let set = &self.slots[set..set + self.set];
        let used = self.uses.fetch_add(1, Ordering::Relaxed) + 1;
        let is_it = |recent: &RecentBucket| {
            recent.values.iter().zip(descriptor).all(|(value, (_, own))| **value == **own)
        };
        let mut made: Option<Arc<RecentBucket>> = None;
        loop {
            let mut oldest: Option<(u64, usize)> = None;
            for (i, slot) in set.iter().enumerate() {
                let last_use = match &*slot.load() {
                    Some(recent) if is_it(recent) => {
                        recent.last_use.store(used, Ordering::Relaxed);
                        return recent.bucket.clone();
                    }
                    Some(recent) => recent.last_use.load(Ordering::Relaxed),
                    None => 0,
                };
                if oldest.is_none_or(|(before, _)| last_use < before) {
                    oldest = Some((last_use, i));
                }
            }
            let made = made.get_or_insert_with(|| {
                // It may begin later than the others; its own start is where its time counts from.
                let start = now.max(self.start);
                Arc::new(RecentBucket {
                    values: descriptor.iter().map(|(_, value)| (&**value).into()).collect(),
                    bucket: Arc::new(TokenBucket::new(plan.size, plan.shadow, start)),
                    last_use: AtomicU64::new(used),
                })
            });
            let Some((_, i)) = oldest else { return made.bucket.clone() };
            let before = set[i].load_full();
            let swapped = set[i].compare_and_swap(&before, Some(made.clone()));
            let was_there = |present: &Option<Arc<RecentBucket>>| match (present, &before) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            if was_there(&swapped) {
                return made.bucket.clone();
            }
            // Another worker changed the slot: look again.
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::slice;

    use smallvec::smallvec;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn size(max_tokens: u32, tokens: u32) -> BucketSize {
        BucketSize { max_tokens, tokens, interval: SECOND }
    }

    #[test]
    fn a_bucket_is_full_at_first_and_fills_evenly() {
        let start = Instant::now();
        let bucket = TokenBucket::new(size(3, 2), false, start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let takes = |ms: u64| bucket.take(at(ms));
        assert_eq!(bucket.left(at(0)), (3, 0));
        assert_eq!([takes(0), takes(0), takes(0), takes(0)], [true, true, true, false]);
        assert_eq!(bucket.left(at(0)), (0, 1));
        assert_eq!([takes(499), takes(500), takes(501)], [false, true, false]);
        // Never more than it holds.
        assert_eq!(bucket.left(at(60_000)), (3, 0));
        assert_eq!([takes(60_000), takes(60_000), takes(60_000), takes(60_000)], [true, true, true, false]);
    }

    fn plan(descriptors: &[(&[(&str, &str)], u32)], max_values: u32) -> Arc<LimiterPlan> {
        let descriptors = descriptors.iter().map(|(entries, tokens)| LimitedDescriptor {
            entries: entries.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            size: size(*tokens, 1),
            shadow: false,
        });
        Arc::new(LimiterPlan {
            default: None,
            descriptors: descriptors.collect(),
            always_takes_default: true,
            max_values,
        })
    }

    fn allows(limiter: &Limiter, entries: &[(&'static str, &'static str)], now: Instant) -> bool {
        let descriptor: Descriptor<'_> = entries.iter().map(|(k, v)| (*k, (*v).into())).collect();
        limiter.take(&[descriptor], now).allowed
    }

    #[test]
    fn descriptors_have_buckets_of_their_own() {
        let now = Instant::now();
        let limiter = Limiter::new(&plan(&[(&[("a", "1"), ("b", "2")], 1), (&[("a", "1")], 1)], 20), now);
        assert!(allows(&limiter, &[("a", "1"), ("b", "2")], now));
        assert!(!allows(&limiter, &[("a", "1"), ("b", "2")], now));
        assert!(allows(&limiter, &[("a", "1")], now));
        assert!(allows(&limiter, &[("a", "3")], now), "no bucket, no limit");
        let none: Descriptor<'_> = smallvec![];
        assert!(limiter.take(&[none], now).bucket.is_none());
    }

    #[test]
    fn the_value_that_was_not_seen_for_longest_goes() {
        let now = Instant::now();
        let limiter = Limiter::new(&plan(&[(&[("a", "")], 1)], 2), now);
        let take = |value| allows(&limiter, &[("a", value)], now);
        assert_eq!([take("1"), take("2"), take("1"), take("2")], [true, true, false, false]);
        assert_eq!([take("1"), take("3"), take("1"), take("2")], [false, true, false, true]);
    }

    #[test]
    fn many_values_have_no_more_buckets_than_the_limit() {
        let now = Instant::now();
        let recent = RecentBuckets::new(1_000, now);
        assert!(recent.slots.len() <= 1_000);
        let limiter = Limiter::new(&plan(&[(&[("a", "")], 1)], 1_000), now);
        for number in 0..5_000 {
            let descriptor: Descriptor<'_> = smallvec![("a", number.to_string().into())];
            assert!(limiter.take(slice::from_ref(&descriptor), now).allowed);
            assert!(!limiter.take(&[descriptor], now).allowed, "the last one has its bucket");
        }
        let kept = limiter.any[0].1.slots.iter().filter(|slot| slot.load().is_some()).count();
        assert!((900..=1_000).contains(&kept), "{kept}");
    }
}
