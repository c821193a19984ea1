//! Who waits for whom: versions of resources between their compilation and their publication.
//!
//! A resource has at most two versions: the *active* one, which is published, and a newer one that *waits* until what it refers
//! to is there. Three rules make every order of arrival end in the same state without showing a half-applied one:
//!
//! * a waiting version becomes active when nothing that it needs is missing;
//! * at the warming deadline a first version becomes active all the same (a request then learns what is missing), while an
//!   update goes on waiting and the version before it goes on serving;
//! * a removed resource stays active as long as something active refers to it.
//!
//! Pure: no I/O and no clock of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::compile::References;

/// How long a resource waits for clusters that it refers to, and the default of `initial_fetch_timeout` for what comes from a source.
pub const WARMING_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a version waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Until then.
    At(Instant),
    /// As long as it takes.
    Never,
    /// It has waited.
    Passed,
}

impl Deadline {
    /// In this time from `now`.
    pub fn after(now: Instant, timeout: Duration) -> Self {
        now.checked_add(timeout).map_or(Deadline::Never, Deadline::At)
    }
}

/// What happens to a version that still misses something at its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtDeadline {
    /// It becomes active.
    Activate,
    /// It becomes active if it is the first; an update goes on waiting.
    ActivateFirst,
}

/// The versions of one resource.
#[derive(Debug)]
pub struct Slot<T> {
    active: Option<T>,
    /// The active version, encoded; for people who ask what is configured.
    active_wire: Wire,
    waiting: Option<Waiting<T>>,
    removed: bool,
    /// Hash of the newest version's wire form.
    hash: u64,
    /// The newest version, as its sender calls it.
    version: Arc<str>,
    /// When the newest version arrived.
    updated: SystemTime,
    is_static: bool,
}

/// An encoded resource: a tenth of the decoded one.
type Wire = Box<[u8]>;

#[derive(Debug)]
struct Waiting<T> {
    value: T,
    wire: Wire,
    deadline: Deadline,
}

impl<T> Slot<T> {
    /// The published version.
    pub fn active(&self) -> Option<&T> {
        self.active.as_ref()
    }

    /// The version that waits.
    pub fn waiting(&self) -> Option<&T> {
        self.waiting.as_ref().map(|w| &w.value)
    }

    /// The newest version.
    pub fn newest(&self) -> Option<&T> {
        self.waiting().or(self.active())
    }

    /// Both versions.
    pub fn versions(&self) -> impl Iterator<Item = &T> {
        self.active().into_iter().chain(self.waiting())
    }

    /// The published version, encoded.
    pub fn active_wire(&self) -> Option<&[u8]> {
        self.active.as_ref().map(|_| &*self.active_wire)
    }

    /// The version that waits, encoded.
    pub fn waiting_wire(&self) -> Option<&[u8]> {
        self.waiting.as_ref().map(|w| &*w.wire)
    }

    /// The newest version, encoded.
    pub fn newest_wire(&self) -> Option<&[u8]> {
        self.waiting_wire().or(self.active_wire())
    }

    /// Its sender has removed it, but something still refers to it.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// It stands in the bootstrap.
    pub fn is_static(&self) -> bool {
        self.is_static
    }

    /// The newest version, as its sender calls it.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// When the newest version arrived.
    pub fn updated(&self) -> SystemTime {
        self.updated
    }
}

/// What is said about a version when it is offered.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its wire form.
    pub wire: Box<[u8]>,
    /// Hash of its wire form.
    pub hash: u64,
    /// Its version, as its sender calls it.
    pub version: Arc<str>,
    /// It stands in the bootstrap.
    pub is_static: bool,
    /// When it stops waiting.
    pub deadline: Deadline,
}

impl Offer {
    /// Waits as long as the sources of what it refers to may take.
    pub(super) fn wait_for(&mut self, references: &References, now: Instant) {
        if !references.watches.is_empty() {
            self.deadline = Deadline::after(now, references.fetch_timeout);
        }
    }
}

/// A version that has become active.
#[derive(Debug)]
pub struct Activated<T> {
    /// The resource.
    pub name: Arc<str>,
    /// What was active before.
    pub replaced: Option<T>,
}

/// All resources of one type.
#[derive(Debug)]
pub struct Slots<T> {
    /// Boxed: a table has spare room, and these are large.
    slots: FxHashMap<Arc<str>, Box<Slot<T>>>,
    /// Names that have a waiting version.
    waiting: BTreeSet<Arc<str>>,
    /// Names that are removed and still active.
    removed: BTreeSet<Arc<str>>,
    /// How many have a published version.
    active: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: FxHashMap::default(), waiting: BTreeSet::new(), removed: BTreeSet::new(), active: 0 }
    }
}

impl<T> Slots<T> {
    /// One resource.
    pub fn get(&self, name: &str) -> Option<&Slot<T>> {
        self.slots.get(name).map(Box::as_ref)
    }

    /// The published version of one resource.
    pub fn active(&self, name: &str) -> Option<&T> {
        self.get(name)?.active()
    }

    /// The published version of one resource, to note something in it.
    pub fn active_mut(&mut self, name: &str) -> Option<&mut T> {
        self.slots.get_mut(name)?.active.as_mut()
    }

    /// Names of those that have no published version yet, but one that waits.
    pub fn waiting_first(&self) -> Vec<Arc<str>> {
        self.waiting.iter().filter(|name| self.active(name).is_none()).cloned().collect()
    }

    /// The version that waits, to note something in it.
    pub fn waiting_mut(&mut self, name: &str) -> Option<&mut T> {
        self.slots.get_mut(name)?.waiting.as_mut().map(|waiting| &mut waiting.value)
    }

    /// All resources, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Slot<T>)> {
        self.slots.iter().map(|(name, slot)| (name, slot.as_ref()))
    }

    /// How many have a published version.
    pub fn active_count(&self) -> usize {
        self.active
    }

    /// How many have a version that waits.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether this is what the newest version was made of. If it had been removed, it is back.
    pub fn is_unchanged(&mut self, name: &str, hash: u64) -> bool {
        match self.slots.get_mut(name) {
            Some(slot) if slot.hash == hash && slot.versions().next().is_some() => {
                // A removal dropped what was waiting; the hash then belongs to no version.
                slot.removed = false;
                self.removed.remove(name);
                true
            }
            _ => false,
        }
    }

    /// Takes in a new version, and gives back the one that it replaces when that was still waiting.
    pub fn offer(&mut self, name: &Arc<str>, value: T, offer: Offer) -> Option<T> {
        let Offer { wire, hash, version, is_static, deadline } = offer;
        let waiting = Some(Waiting { value, wire, deadline });
        let updated = SystemTime::now();
        let mut slot = Slot {
            active: None,
            active_wire: Box::default(),
            waiting,
            removed: false,
            hash,
            version,
            updated,
            is_static,
        };
        let mut replaced = None;
        if let Some(old) = self.slots.remove(name) {
            (slot.active, slot.active_wire) = (old.active, old.active_wire);
            replaced = old.waiting.map(|waiting| waiting.value);
        }
        self.slots.insert(name.clone(), Box::new(slot));
        self.removed.remove(name);
        self.waiting.insert(name.clone());
        replaced
    }

    /// Activates every waiting version that misses nothing, or whose deadline lets it.
    pub fn activate(
        &mut self,
        now: Instant,
        at_deadline: AtDeadline,
        mut misses: impl FnMut(&T) -> bool,
    ) -> Vec<Activated<T>> {
        let mut activated = Vec::new();
        let (slots, active) = (&mut self.slots, &mut self.active);
        self.waiting.retain(|name| {
            let Some(slot) = slots.get_mut(name) else { return false };
            let Some(waiting) = &mut slot.waiting else { return false };
            if matches!(waiting.deadline, Deadline::At(deadline) if deadline <= now) {
                waiting.deadline = Deadline::Passed;
            }
            let is_late = waiting.deadline == Deadline::Passed;
            let may_miss = is_late && (at_deadline == AtDeadline::Activate || slot.active.is_none());
            if !may_miss && misses(&waiting.value) {
                return true;
            }
            let Some(Waiting { value, wire, .. }) = slot.waiting.take() else { return false };
            slot.active_wire = wire;
            let replaced = slot.active.replace(value);
            *active += usize::from(replaced.is_none());
            activated.push(Activated { name: name.clone(), replaced });
            false
        });
        activated
    }

    /// The sender removed the resource: nothing waits any more, and what did is given back; what is active stays until `withdraw`.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        let (name, _) = self.slots.get_key_value(name)?;
        let name = name.clone();
        let slot = self.slots.get_mut(&name)?;
        let waiting = slot.waiting.take();
        if waiting.is_some() {
            // The active version, if any, is older than what the hash stands for.
            slot.hash = 0;
        }
        self.waiting.remove(&name);
        if slot.active.is_some() {
            slot.removed = true;
            self.removed.insert(name);
        } else {
            self.slots.remove(&name);
        }
        waiting.map(|waiting| waiting.value)
    }

    /// Names that are removed and still active.
    pub fn removed(&self) -> Vec<Arc<str>> {
        self.removed.iter().cloned().collect()
    }

    /// Forgets a resource and gives back what was active.
    pub fn withdraw(&mut self, name: &str) -> Option<T> {
        self.waiting.remove(name);
        self.removed.remove(name);
        let active = self.slots.remove(name)?.active;
        self.active -= usize::from(active.is_some());
        active
    }

    /// When the next waiting version reaches its deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter_map(|name| self.slots.get(name)?.waiting.as_ref());
        let deadlines = waiting.filter_map(|waiting| match waiting.deadline {
            Deadline::At(deadline) => Some(deadline),
            Deadline::Never | Deadline::Passed => None,
        });
        deadlines.min()
    }

    /// Whether a version waits whose deadline has not passed.
    pub fn is_warming(&self) -> bool {
        let waiting = self.waiting.iter().filter_map(|name| self.slots.get(name)?.waiting.as_ref());
        waiting.into_iter().any(|waiting| waiting.deadline != Deadline::Passed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn offer(hash: u64, deadline: Instant) -> Offer {
        let deadline = Deadline::At(deadline);
        Offer { wire: Box::default(), hash, version: "v".into(), is_static: false, deadline }
    }

    /// The resource `a` with the active version 1, whose hash is 1, and the time.
    fn active() -> (Slots<u32>, Arc<str>, Instant) {
        let (mut slots, name, now) = (Slots::default(), Arc::from("a"), Instant::now());
        slots.offer(&name, 1, offer(1, now));
        slots.activate(now, AtDeadline::Activate, |_| false);
        (slots, name, now)
    }

    #[test]
    fn waits_for_what_is_missing() {
        let now = Instant::now();
        let later = now + WARMING_TIMEOUT;
        let mut slots = Slots::default();
        let name: Arc<str> = "a".into();
        slots.offer(&name, 1, offer(1, later));
        assert!(slots.activate(now, AtDeadline::Activate, |_| true).is_empty());
        assert_eq!(slots.next_deadline(), Some(later));
        let activated = slots.activate(now, AtDeadline::Activate, |_| false);
        assert_eq!(activated.len(), 1);
        assert_eq!(slots.active("a"), Some(&1));
        assert_eq!(slots.next_deadline(), None);
    }

    #[test]
    fn at_the_deadline_a_first_version_goes_active_and_an_update_waits_on() {
        let now = Instant::now();
        let mut slots = Slots::default();
        let name: Arc<str> = "a".into();
        slots.offer(&name, 1, offer(1, now));
        assert_eq!(slots.activate(now, AtDeadline::ActivateFirst, |_| true).len(), 1);
        slots.offer(&name, 2, offer(2, now));
        assert!(slots.activate(now, AtDeadline::ActivateFirst, |_| true).is_empty());
        assert_eq!(slots.active("a"), Some(&1));
        assert_eq!(slots.next_deadline(), None, "a deadline passes once");
        let activated = slots.activate(now, AtDeadline::ActivateFirst, |_| false);
        assert_eq!(activated[0].replaced, Some(1));
        assert_eq!(slots.active("a"), Some(&2));
    }

    #[test]
    fn without_a_deadline_it_waits_for_ever() {
        let now = Instant::now();
        let mut slots = Slots::default();
        slots.offer(&"a".into(), 1, Offer { deadline: Deadline::after(now, Duration::MAX), ..offer(1, now) });
        let in_a_year = now + Duration::from_secs(365 * 86_400);
        assert!(slots.activate(in_a_year, AtDeadline::Activate, |_| true).is_empty());
        assert!(slots.next_deadline().is_none() && slots.is_warming());
        assert_eq!(slots.activate(in_a_year, AtDeadline::Activate, |_| false).len(), 1);
        assert!(!slots.is_warming());
        assert_eq!(slots.active_count(), 1);
    }

    #[test]
    fn an_update_is_activated_at_the_deadline_where_that_is_the_rule() {
        let (mut slots, name, now) = active();
        slots.offer(&name, 2, offer(2, now));
        assert_eq!(slots.activate(now, AtDeadline::Activate, |_| true).len(), 1);
    }

    #[test]
    fn a_removal_keeps_what_is_active_and_drops_what_waits() {
        let (mut slots, name, now) = active();
        slots.offer(&name, 2, offer(2, now));
        slots.remove("a");
        assert_eq!(slots.removed(), vec![name.clone()]);
        assert_eq!(slots.active("a"), Some(&1));
        assert!(!slots.is_unchanged("a", 2), "the dropped version must be compiled again");
        assert_eq!(slots.withdraw("a"), Some(1));
        assert!(slots.get("a").is_none());
    }

    #[test]
    fn the_same_resource_again_takes_a_removal_back() {
        let (mut slots, ..) = active();
        slots.remove("a");
        assert!(slots.is_unchanged("a", 1));
        assert!(slots.removed().is_empty());
    }

    #[test]
    fn a_newer_version_replaces_one_that_waits() {
        let now = Instant::now();
        let mut slots = Slots::default();
        let name: Arc<str> = "a".into();
        slots.offer(&name, 1, offer(1, now + WARMING_TIMEOUT));
        slots.offer(&name, 2, offer(2, now + WARMING_TIMEOUT));
        assert_eq!(slots.activate(now, AtDeadline::Activate, |_| false).len(), 1);
        assert_eq!(slots.active("a"), Some(&2));
    }
}
