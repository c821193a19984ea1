//! The process log: Envoy's line format and levels on standard error, changed while the process runs.
//!
//! Levels are set for *components*, with Envoy's names where the component exists (`upstream`, `router`, `connection`); a component
//! is one or more `tracing` targets.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

/// Components and the targets that belong to them.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("admin", &["admin", "outrigger_proxy::admin"]),
    ("config", &["config", "outrigger_proxy::config", "outrigger_proxy::xds", "outrigger_xds_api"]),
    ("conn_handler", &["conn_handler", "outrigger_proxy::listener"]),
    (
        "connection",
        &[
            "connection",
            "outrigger_proxy::net",
            "outrigger_proxy::transport_socket",
            "rustls",
            "tokio_rustls",
        ],
    ),
    ("file", &["file", "outrigger_proxy::access_log"]),
    ("filter", &["filter", "outrigger_proxy::tcp"]),
    ("grpc", &["grpc", "tonic"]),
    ("http", &["http", "outrigger_proxy::http", "outrigger_proxy::route", "hyper", "hyper_util"]),
    ("http2", &["http2", "h2"]),
    ("main", &["main", "outrigger_proxy"]),
    ("pool", &["pool", "outrigger_proxy::http::pool"]),
    ("router", &["router", "outrigger_proxy::http::router"]),
    ("secret", &["secret", "outrigger_proxy::identity", "outrigger_proxy::sds"]),
    ("stats", &["stats", "outrigger_proxy::stats"]),
    ("upstream", &["upstream", "outrigger_proxy::cluster"]),
];

/// The component of a target: the one with the longest target that is a prefix of it.
fn component(target: &str) -> &str {
    let matches = |prefix: &str| {
        target
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            .then_some(prefix.len())
    };
    COMPONENTS
        .iter()
        .filter_map(|(name, targets)| Some((targets.iter().filter_map(|t| matches(t)).max()?, *name)))
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| target.split("::").next().unwrap_or(target), |(_, name)| name)
}

/// Envoy's log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// What an operator wants to know.
    Info,
    /// `warning`, also `warn`.
    Warning,
    /// What went wrong.
    Error,
    /// What ends the process. There is no such level inside; it shows errors.
    Critical,
    /// Nothing.
    Off,
}

impl LogLevel {
    /// Envoy's name.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
            LogLevel::Off => "off",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Trace => LevelFilter::TRACE,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Error | LogLevel::Critical => LevelFilter::ERROR,
            LogLevel::Off => LevelFilter::OFF,
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "warning" | "warn" => LogLevel::Warning,
            "error" => LogLevel::Error,
            "critical" => LogLevel::Critical,
            "off" => LogLevel::Off,
            _ => return Err("unknown logger level".into()),
        })
    }
}

/// `component:level,component:level`, as `--component-log-level` and `/logging?paths=` have it.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_component_levels(text: &str) -> Result<Vec<(&str, LogLevel)>, String> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, level) =
                pair.split_once(':').ok_or_else(|| format!("not a <component>:<level> pair: '{pair}'"))?;
            Ok((name, level.parse()?))
        })
        .collect()
}

/// The levels of all components, and the way to change them.
#[derive(Debug)]
pub struct Logging {
    levels: Mutex<Vec<(&'static str, LogLevel)>>,
    filter: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Levels, and a subscriber that follows them and writes lines with `writer`.
    fn build<W>(level: LogLevel, writer: W) -> (Self, impl Subscriber + Send + Sync)
    where
        W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
    {
        let levels: Vec<_> = COMPONENTS.iter().map(|(name, _)| (*name, level)).collect();
        let (filter, handle) = reload::Layer::new(targets(&levels));
        let lines = tracing_subscriber::fmt::layer().event_format(EnvoyLines).with_writer(writer);
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        (Self { levels: Mutex::new(levels), filter: handle }, subscriber)
    }

    /// Starts the process log on standard error. `component_levels` is the text of `--component-log-level`.
    ///
    /// # Errors
    /// A component or level that does not exist, or a process log that was started before.
    pub fn start(level: LogLevel, component_levels: &str) -> Result<Self, String> {
        let (logging, subscriber) = Self::build(level, io::stderr);
        logging.set(&parse_component_levels(component_levels)?)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())?;
        Ok(logging)
    }

    /// Sets the level of all components.
    pub fn set_all(&self, level: LogLevel) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        levels.iter_mut().for_each(|(_, l)| *l = level);
        self.apply(&levels);
    }

    /// Sets the levels of some components: all of them, or none when one does not exist.
    ///
    /// # Errors
    /// `unknown logger name`.
    pub fn set(&self, changes: &[(&str, LogLevel)]) -> Result<(), String> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = levels.clone();
        for (name, level) in changes {
            match changed.iter_mut().find(|(n, _)| n == name) {
                Some((_, l)) => *l = *level,
                None => return Err("unknown logger name".into()),
            }
        }
        *levels = changed;
        self.apply(&levels);
        Ok(())
    }

    /// All components with their levels, by name.
    pub fn levels(&self) -> Vec<(&'static str, LogLevel)> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn apply(&self, levels: &[(&'static str, LogLevel)]) {
        // Fails only when the subscriber is gone, and then there is nothing to filter.
        let _ = self.filter.reload(targets(levels));
    }
}

fn targets(levels: &[(&'static str, LogLevel)]) -> Targets {
    let targets_of = |component| {
        COMPONENTS.iter().filter(move |(name, _)| *name == component).flat_map(|(_, targets)| *targets)
    };
    let main = levels
        .iter()
        .find(|(name, _)| *name == "main")
        .map_or(LevelFilter::INFO, |(_, level)| level.filter());
    levels
        .iter()
        .flat_map(|(name, level)| targets_of(*name).map(|target| (*target, level.filter())))
        .fold(Targets::new().with_default(main), |targets, (target, level)| {
            targets.with_target(target, level)
        })
}

/// `[2026-11-21 05:00:00.000][thread][level][component] message key=value`.
struct EnvoyLines;

impl<S, N> FormatEvent<S, N> for EnvoyLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = OffsetDateTime::now_utc()
            .format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"))
            .map_err(|_| fmt::Error)?;
        let thread = std::thread::current();
        let level = match *event.metadata().level() {
            tracing::Level::TRACE => "trace",
            tracing::Level::DEBUG => "debug",
            tracing::Level::INFO => "info",
            tracing::Level::WARN => "warning",
            tracing::Level::ERROR => "error",
        };
        let (thread, component) = (thread.name().unwrap_or("-"), component(event.metadata().target()));
        write!(writer, "[{now}][{thread}][{level}][{component}] ")?;
        cx.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
impl Logging {
    /// Levels that nothing follows.
    pub(crate) fn detached() -> Self {
        let (logging, _subscriber) = Self::build(LogLevel::Info, io::sink);
        logging
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn lines_levels_and_components() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (logging, subscriber) = Logging::build(LogLevel::Info, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let emit = || {
                tracing::debug!(target: "outrigger_proxy::cluster::outlier", "ejected");
                tracing::warn!(target: "outrigger_proxy::http::router", attempt = 2, "retrying");
            };
            emit();
            let text = lines.take();
            let (time, rest) = text.split_at(25);
            assert!(time.starts_with('[') && time.ends_with(']') && time.as_bytes()[20] == b'.', "{time}");
            let thread = std::thread::current().name().unwrap().to_owned();
            assert_eq!(rest, format!("[{thread}][warning][router] retrying attempt=2\n"));

            logging.set(&[("upstream", LogLevel::Debug), ("router", LogLevel::Error)]).unwrap();
            emit();
            assert!(lines.take().ends_with("[debug][upstream] ejected\n"));

            logging.set_all(LogLevel::Off);
            emit();
            assert_eq!(lines.take(), "");
        });
        assert!(logging.levels().iter().all(|(_, level)| *level == LogLevel::Off));
    }

    #[test]
    fn components_of_targets() {
        for (target, name) in [
            ("outrigger_proxy", "main"),
            ("outrigger_proxy::server", "main"),
            ("outrigger_proxy::http::connection_manager", "http"),
            ("outrigger_proxy::http::pool", "pool"),
            ("outrigger_proxy::httpx", "main"),
            ("h2::client", "http2"),
            ("file", "file"),
            ("mio::poll", "mio"),
        ] {
            assert_eq!(component(target), name, "{target}");
        }
    }

    #[test]
    fn bad_levels_change_nothing() {
        let logging = Logging::detached();
        let before = logging.levels();
        assert_eq!(
            logging.set(&[("upstream", LogLevel::Debug), ("nope", LogLevel::Debug)]),
            Err("unknown logger name".into())
        );
        assert_eq!(logging.levels(), before);
        assert_eq!(parse_component_levels("upstream:loud"), Err("unknown logger level".into()));
        assert_eq!(
            parse_component_levels("upstream"),
            Err("not a <component>:<level> pair: 'upstream'".into())
        );
        assert_eq!(
            parse_component_levels("a:warn,b:off").unwrap(),
            [("a", LogLevel::Warning), ("b", LogLevel::Off)]
        );
    }
}
