//! What a scope is: a struct of metrics under one name, with a table of its families.
//!
//! Scopes of one kind are shared by name while somebody holds them. When the last holder lets go, the series are gone: series
//! follow configuration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Counter, Gauge, Histogram, OptionalGauge, ResponseClasses, ResponseCodes};

/// A struct of metrics that all carry the same labels.
pub(super) trait Scope: Sized + 'static {
    /// First part of the dotted names (`cluster`), empty when the families' names say it themselves.
    const GROUP: &'static str;
    /// Dotted names begin with the labels and not with the group.
    const LABELS_FIRST: bool = false;
    /// Names of the labels; the values are `labels()`.
    const LABELS: &'static [&'static str];
    /// All metrics but those by response code.
    const FAMILIES: &'static [Family<Self>];

    /// A scope with all metrics at zero; `labels` has as many values as `LABELS`.
    fn new(labels: Box<[Arc<str>]>) -> Self;

    /// Values of the labels.
    fn labels(&self) -> &[Arc<str>];

    /// What the dotted names begin with: `GROUP.LABEL.LABEL.`.
    fn push_prefix(&self, dotted: &mut String) {
        let group = || [Self::GROUP].into_iter().filter(|group| !group.is_empty());
        let (before, after) = if Self::LABELS_FIRST { (None, Some(group())) } else { (Some(group()), None) };
        let labels = self.labels().iter().map(|label| &**label);
        for part in before.into_iter().flatten().chain(labels).chain(after.into_iter().flatten()) {
            dotted.push_str(part);
            dotted.push('.');
        }
    }

    /// `(prefix, classes, codes)`: `upstream_rq`, `downstream_rq`.
    fn responses(&self) -> Option<(&'static str, &ResponseClasses, Option<&ResponseCodes>)> {
        None
    }
}

/// One metric of a kind of scope.
pub(super) struct Family<S> {
    /// Name within the scope, with Envoy's dots.
    pub(super) name: &'static str,
    /// One sentence for people.
    pub(super) help: &'static str,
    /// Finds it; `None`: this scope does without it.
    pub(super) get: for<'a> fn(&'a S) -> Option<Metric<'a>>,
}

/// Any metric, borrowed.
#[derive(Clone, Copy)]
pub(super) enum Metric<'a> {
    Counter(&'a Counter),
    Gauge(&'a Gauge),
    Histogram(&'a Histogram),
}

impl Metric<'_> {
    /// Whether it was ever touched.
    pub(super) fn used(self) -> bool {
        match self {
            Metric::Counter(c) => c.get() != 0,
            Metric::Gauge(g) => g.used(),
            Metric::Histogram(h) => h.count() != 0,
        }
    }
}

/// What a field of a scope may be.
pub(super) trait Field {
    /// The metric, if it is kept.
    fn metric(&self) -> Option<Metric<'_>>;
}

impl Field for Counter {
    fn metric(&self) -> Option<Metric<'_>> {
        Some(Metric::Counter(self))
    }
}

impl Field for Gauge {
    fn metric(&self) -> Option<Metric<'_>> {
        Some(Metric::Gauge(self))
    }
}

impl Field for OptionalGauge {
    fn metric(&self) -> Option<Metric<'_>> {
        self.get().map(Metric::Gauge)
    }
}

impl Field for Histogram {
    fn metric(&self) -> Option<Metric<'_>> {
        Some(Metric::Histogram(self))
    }
}

/// Declares a scope. A metric is one line, `kind field "help";`, with `as "dotted.name"` before the help text where Envoy's name is
/// not the field's. Metrics inside nested structs are listed in `nested` as `path as "dotted.name" "help";`.
macro_rules! scope {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    (
        $(#[$doc:meta])*
        $scope:ident in $group:literal [$($label:literal),*] {
            $($kind:ident $field:ident $(as $name:literal)? $help:literal;)*
        }
        with { $($(#[$with_doc:meta])* $with:ident: $with_type:ty,)* }
        nested { $($path:ident $([$index:literal])? . $leaf:ident as $nested_name:literal $nested_help:literal;)* }
        $(responses $prefix:literal { $classes:ident $(, $codes:ident)? })?
        $(labels_first $labels_first:literal)?
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $scope {
            labels: Box<[std::sync::Arc<str>]>,
            $(#[doc = $help] pub $field: $crate::stats::$kind,)*
            $($(#[$with_doc])* pub $with: $with_type,)*
        }

        impl $crate::stats::scope::Scope for $scope {
            const GROUP: &'static str = $group;
            $(const LABELS_FIRST: bool = $labels_first;)?
            const LABELS: &'static [&'static str] = &[$($label),*];
            const FAMILIES: &'static [$crate::stats::scope::Family<Self>] = &[
                $($crate::stats::scope::Family {
                    name: scope!(@name $field $($name)?),
                    help: $help,
                    get: |scope| $crate::stats::scope::Field::metric(&scope.$field),
                },)*
                $($crate::stats::scope::Family {
                    name: $nested_name,
                    help: $nested_help,
                    get: |scope| $crate::stats::scope::Field::metric(&scope.$path$([$index])?.$leaf),
                },)*
            ];

            fn new(labels: Box<[std::sync::Arc<str>]>) -> Self {
                Self { labels, $($field: Default::default(),)* $($with: Default::default(),)* }
            }

            fn labels(&self) -> &[std::sync::Arc<str>] {
                &self.labels
            }

            $(fn responses(
                &self,
            ) -> Option<(&'static str, &$crate::stats::ResponseClasses, Option<&$crate::stats::ResponseCodes>)> {
                #[allow(unused_mut, unused_assignments)]
                let mut codes = None;
                $(codes = Some(&self.$codes);)?
                Some(($prefix, &self.$classes, codes))
            })?
        }
    };
}
pub(super) use scope;

/// The live scopes of one kind, by their labels.
#[derive(Debug)]
pub(super) struct Scopes<S> {
    by_labels: Mutex<Index<S>>,
}

#[derive(Debug)]
struct Index<S> {
    map: BTreeMap<Box<[Arc<str>]>, Weak<S>>,
    /// At this size dead entries are swept out: twice what was alive after the last sweep.
    sweep_at: usize,
}

impl<S: Scope> Scopes<S> {
    pub(super) fn new() -> Self {
        Self { by_labels: Mutex::new(Index { map: BTreeMap::new(), sweep_at: 64 }) }
    }

    /// The scope with these label values, made when nobody holds one.
    pub(super) fn get(&self, labels: Box<[Arc<str>]>) -> Arc<S> {
        let mut index = self.by_labels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = index.map.get(&labels).and_then(Weak::upgrade) {
            return scope;
        }
        let scope = Arc::new(S::new(labels.clone()));
        index.map.insert(labels, Arc::downgrade(&scope));
        if index.map.len() >= index.sweep_at {
            index.map.retain(|_, weak| weak.strong_count() > 0);
            index.sweep_at = (index.map.len() * 2).max(64);
        }
        scope
    }

    /// All that are alive, in the order of their labels.
    pub(super) fn alive(&self) -> Vec<Arc<S>> {
        let mut index = self.by_labels.lock().unwrap_or_else(PoisonError::into_inner);
        index.map.retain(|_, weak| weak.strong_count() > 0);
        index.map.values().filter_map(Weak::upgrade).collect()
    }
}
