//! Where dynamic resources come from. Compiling gives each source that a resource names a number, so that what comes from
//! different sources never meets, whatever it is called. Owned by main.

use std::sync::Arc;
use std::time::Duration;

/// A source, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(usize);

impl SourceId {
    /// The bootstrap's `static_resources`.
    pub const STATIC: SourceId = SourceId(0);
    /// The aggregated stream (`dynamic_resources.ads_config`).
    pub const ADS: SourceId = SourceId(1);
}

/// The two variants of the xDS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A response says all that there is (`GRPC`).
    StateOfTheWorld,
    /// A response says what has changed (`DELTA_GRPC`).
    Delta,
}

/// A control plane, and how it is talked to (`ApiConfigSource`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcSource {
    /// The cluster that is asked.
    pub cluster: Arc<str>,
    /// In which variant.
    pub variant: Variant,
    /// `set_node_on_first_message_only`: later requests of a stream say nothing about the node.
    pub node_once: bool,
}

/// A file that is watched (`PathConfigSource`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSource {
    /// The file: a `DiscoveryResponse` in YAML, JSON or (`.pb`) binary.
    pub path: Arc<str>,
    /// When it is read again.
    pub trigger: FileTrigger,
}

/// When a file is read again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileTrigger {
    /// Something takes its place: only that is atomic.
    Moved,
    /// Something is moved in this folder (`watched_directory`), or written too (`watch_modify`).
    Directory {
        /// The folder.
        path: Arc<str>,
        /// `watch_modify`.
        on_write: bool,
    },
    /// Again and again (`poll_interval`).
    Every(Duration),
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// The bootstrap: what it has is there from the start.
    Static,
    /// The aggregated stream.
    Ads,
    /// A stream for each resource type.
    Grpc(GrpcSource),
    /// A file.
    File(FileSource),
}

/// All sources that were named so far.
#[derive(Debug)]
pub struct Sources(Vec<SourceSpec>);

impl Default for Sources {
    fn default() -> Self {
        Self(vec![SourceSpec::Static, SourceSpec::Ads])
    }
}

impl Sources {
    /// The number of a source.
    pub fn id(&mut self, spec: SourceSpec) -> SourceId {
        let known = self.0.iter().position(|known| *known == spec);
        SourceId(known.unwrap_or_else(|| {
            self.0.push(spec);
            self.0.len() - 1
        }))
    }

    /// The numbers of all sources.
    pub fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..self.0.len()).map(SourceId)
    }

    /// What a source is.
    pub fn spec(&self, id: SourceId) -> &SourceSpec {
        &self.0[id.0]
    }
}

/// One `T` for each source.
#[derive(Debug)]
pub struct BySource<T>(Vec<T>);

impl<T> Default for BySource<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> BySource<T> {
    /// What comes from this source.
    pub fn of(&self, source: SourceId) -> Option<&T> {
        self.0.get(source.0)
    }

    /// What comes from this source, to be changed.
    pub fn of_mut(&mut self, source: SourceId) -> &mut T {
        if self.0.len() <= source.0 {
            self.0.resize_with(source.0 + 1, T::default);
        }
        &mut self.0[source.0]
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = (SourceId, &T)> {
        self.0.iter().enumerate().map(|(number, value)| (SourceId(number), value))
    }

    /// All, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SourceId, &mut T)> {
        self.0.iter_mut().enumerate().map(|(number, value)| (SourceId(number), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sources_have_one_number() {
        let file =
            |path: &str| SourceSpec::File(FileSource { path: path.into(), trigger: FileTrigger::Moved });
        let mut sources = Sources::default();
        let [a, b, c] = ["a", "b", "a"].map(|path| sources.id(file(path)));
        assert!(a == c && a != b);
        assert_eq!(sources.spec(a), &file("a"));
        assert_eq!(sources.id(SourceSpec::Ads), SourceId::ADS);
        assert_eq!(sources.spec(SourceId::STATIC), &SourceSpec::Static);
    }
}
