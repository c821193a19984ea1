//! Where access logs go: files with a writer thread each, and the buffers of a worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::formatter::Clock;
use crate::stats::Stats;

/// A worker's buffer goes to the writer when it has this many bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that may wait for a writer; with a full one each, 16 MiB. More are dropped and counted: a full disk or a reader that
/// stands still must not stop traffic or eat memory.
const QUEUE_BUFFERS: usize = 256;
/// Written buffers that are kept for use again.
const SPARE_BUFFERS: usize = 4;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to. Made when it does not exist.
    File(PathBuf),
}

impl Sink {
    /// `FileAccessLog.path`; `/dev/stdout` and `/dev/stderr` work also where they cannot be opened (sockets).
    pub fn path(path: &str) -> Self {
        match path {
            "/dev/stdout" => Sink::Stdout,
            "/dev/stderr" => Sink::Stderr,
            path => Sink::File(path.into()),
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::Stdout => f.write_str("stdout"),
            Sink::Stderr => f.write_str("stderr"),
            Sink::File(path) => path.display().fmt(f),
        }
    }
}

/// All open log files of the process, shared by sink. Lives on main.
#[derive(Debug)]
pub struct LogFiles {
    stats: Arc<Stats>,
    /// Opens a file, and makes it when it does not exist.
    append_to: fn(&Path) -> io::Result<File>,
    open: Mutex<HashMap<Sink, OpenFile>>,
    /// Writers of closed files, while they write what is left.
    closing: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct OpenFile {
    file: Weak<LogFile>,
    writer: JoinHandle<()>,
}

impl LogFiles {
    /// No file yet. Failures are counted in `stats`.
    pub fn new(stats: Arc<Stats>) -> Arc<Self> {
        Self::opened_by(stats, append_to)
    }

    /// The same with another way to open files.
    pub(crate) fn opened_by(stats: Arc<Stats>, append_to: fn(&Path) -> io::Result<File>) -> Arc<Self> {
        Arc::new(Self { stats, append_to, open: Mutex::default(), closing: Mutex::default() })
    }

    /// Opens a sink and starts its writer, or gives the one that is open already. It closes when nobody refers to it any more.
    ///
    /// # Errors
    /// The file's path and why it cannot be opened.
    pub fn open(&self, sink: Sink) -> Result<Arc<LogFile>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&sink).and_then(|open| open.file.upgrade()) {
            return Ok(file);
        }
        self.sweep(&mut open);
        let output = match &sink {
            Sink::Stdout => Output::Stdout,
            Sink::Stderr => Output::Stderr,
            Sink::File(path) => {
                let file = (self.append_to)(path)
                    .map_err(|error| format!("unable to open file '{}': {error}", path.display()))?;
                Output::File(file, path.clone())
            }
        };
        let (queue, orders) = sync_channel(QUEUE_BUFFERS);
        let spare = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer { output, spare: spare.clone(), stats: self.stats.clone() };
        let writer = thread::Builder::new()
            .name("access_log".into())
            .spawn(move || writer.run(&orders))
            .map_err(|error| format!("cannot start the writer of '{sink}': {error}"))?;
        let file = Arc::new(LogFile { sink: sink.clone(), queue, spare, stats: self.stats.clone() });
        open.insert(sink, OpenFile { file: Arc::downgrade(&file), writer });
        Ok(file)
    }

    /// Lets go of files that are closed and of writers that have ended.
    fn sweep(&self, open: &mut HashMap<Sink, OpenFile>) {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        closing.retain(|writer| !writer.is_finished());
        closing.extend(open.extract_if(|_, open| open.file.strong_count() == 0).map(|(_, open)| open.writer));
    }

    /// Opens all files anew by their paths, after rotation (`SIGUSR1`, `/reopen_logs`). What was queued before goes to the old
    /// file. A file that cannot be opened keeps its old one.
    pub fn reopen(&self) {
        for file in self.files() {
            // Waits while the queue is full: this order must not be lost.
            let _ = file.queue.send(Order::Reopen);
        }
    }

    /// Waits until everything that was handed over is written, but no longer than `timeout`. Blocks the thread: call it at exit,
    /// after the workers have flushed their buffers.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        for file in self.files() {
            let (done, finished) = sync_channel(1);
            // A writer that has a full queue gets its time too.
            while let Err(TrySendError::Full(_)) = file.queue.try_send(Order::Flush(done.clone())) {
                if !pause_until(deadline) {
                    return;
                }
            }
            // If the writer is gone, nobody has the other end any more and this returns at once.
            drop(done);
            let _ = finished.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        self.sweep(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let closing = std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        while closing.iter().any(|writer| !writer.is_finished()) && pause_until(deadline) {}
    }

    fn files(&self) -> Vec<Arc<LogFile>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter_map(|open| open.file.upgrade()).collect()
    }
}

/// A short pause; false when the deadline has passed.
fn pause_until(deadline: Instant) -> bool {
    thread::sleep(Duration::from_millis(5));
    Instant::now() < deadline
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// One open sink. Its writer thread ends when the last reference goes, after it has written what is queued.
pub struct LogFile {
    sink: Sink,
    queue: SyncSender<Order>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    stats: Arc<Stats>,
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFile").field(&self.sink).finish()
    }
}

impl LogFile {
    /// Hands lines over that are not a worker's: rare, and written at once. Never waits.
    pub fn write(&self, mut lines: Vec<u8>) {
        self.take(&mut lines);
    }

    /// Hands `buffer` over and leaves an empty one. Never waits.
    fn take(&self, buffer: &mut Vec<u8>) {
        let empty = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let full = std::mem::replace(buffer, empty);
        match self.queue.try_send(Order::Write(full)) {
            Ok(()) => {}
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                self.stats.server().access_log_write_failures_total.inc();
                if let Order::Write(mut dropped) = order {
                    dropped.clear();
                    *buffer = dropped;
                }
            }
        }
    }
}

enum Order {
    Write(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

enum Output {
    Stdout,
    Stderr,
    File(File, PathBuf),
}

/// The thread of one sink.
struct Writer {
    output: Output,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    stats: Arc<Stats>,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Write(mut buffer) => {
                    if let Err(error) = self.write(&buffer) {
                        self.failed("cannot write an access log", &error);
                    }
                    buffer.clear();
                    let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
                    if spare.len() < SPARE_BUFFERS {
                        spare.push(buffer);
                    }
                }
                Order::Reopen => self.reopen(),
                // Orders are done in their order, so everything before this one is written.
                Order::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.output {
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Output::Stderr => io::stderr().lock().write_all(bytes),
            Output::File(file, _) => file.write_all(bytes),
        }
    }

    fn reopen(&mut self) {
        if let Output::File(file, path) = &mut self.output {
            match append_to(path) {
                Ok(new) => *file = new,
                Err(error) => {
                    let path = path.display().to_string();
                    self.failed(&format!("cannot reopen the access log '{path}'"), &error);
                }
            }
        }
    }

    fn failed(&self, what: &str, error: &io::Error) {
        // The first one is said, all are counted: a full disk must not fill the process log.
        if self.stats.server().access_log_write_failures_total.get() == 0 {
            tracing::warn!(target: "file", "{what}: {error}");
        }
        self.stats.server().access_log_write_failures_total.inc();
    }
}

/// The access log buffers of one worker.
#[derive(Debug, Default)]
pub struct LogBuffers {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    clock: Clock,
    /// A worker has few files: a search through them is shorter than a hash.
    buffers: Vec<(Arc<LogFile>, Vec<u8>)>,
}

impl LogBuffers {
    /// No buffer yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn append(&self, file: &Arc<LogFile>, write: impl FnOnce(&mut Vec<u8>, &mut Clock)) {
        let inner = &mut *self.inner.borrow_mut();
        let at = inner.buffers.iter().position(|(f, _)| Arc::ptr_eq(f, file)).unwrap_or_else(|| {
            inner.buffers.push((file.clone(), Vec::new()));
            inner.buffers.len() - 1
        });
        let buffer = &mut inner.buffers[at].1;
        write(buffer, &mut inner.clock);
        if buffer.len() >= BUFFER_BYTES {
            file.take(buffer);
        }
    }

    /// Hands everything to the writers. Call it at the worker's tick and at its end.
    pub fn flush(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.buffers.retain_mut(|(file, buffer)| {
            if buffer.is_empty() {
                // Nothing for a whole tick: a file that only buffers refer to is let go.
                return Arc::strong_count(file) > 1;
            }
            file.take(buffer);
            true
        });
    }
}

impl Drop for LogBuffers {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::fs;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn write(buffers: &LogBuffers, file: &Arc<LogFile>, text: &str) {
        buffers.append(file, |out, _| out.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn lines_arrive_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        fs::write(&path, "before\n").unwrap();
        let files = LogFiles::new(Stats::new());
        let file = files.open(Sink::File(path.clone())).unwrap();
        let again = files.open(Sink::File(path.clone())).unwrap();
        assert!(Arc::ptr_eq(&file, &again));
        let buffers = LogBuffers::new();
        write(&buffers, &file, "one\n");
        write(&buffers, &file, "two\n");
        files.flush(LONG);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
        buffers.flush();
        files.flush(LONG);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\none\ntwo\n");
    }

    #[test]
    fn a_full_buffer_goes_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let files = LogFiles::new(Stats::new());
        let file = files.open(Sink::File(path.clone())).unwrap();
        let buffers = LogBuffers::new();
        write(&buffers, &file, &"x".repeat(BUFFER_BYTES - 1));
        files.flush(LONG);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        write(&buffers, &file, "y");
        files.flush(LONG);
        assert_eq!(fs::metadata(&path).unwrap().len(), BUFFER_BYTES as u64);
    }

    #[test]
    fn reopening_follows_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let files = LogFiles::new(Stats::new());
        let file = files.open(Sink::File(path.clone())).unwrap();
        let buffers = LogBuffers::new();
        write(&buffers, &file, "old\n");
        buffers.flush();
        files.flush(LONG);
        fs::rename(&path, &old).unwrap();
        files.reopen();
        write(&buffers, &file, "new\n");
        drop(buffers);
        files.flush(LONG);
        assert_eq!(fs::read_to_string(&old).unwrap(), "old\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/such/dir.log");
        let error = LogFiles::new(Stats::new()).open(Sink::File(path.clone())).unwrap_err();
        assert_eq!(
            error,
            format!("unable to open file '{}': No such file or directory (os error 2)", path.display())
        );
    }

    #[test]
    fn failed_writes_are_counted() {
        let stats = Stats::new();
        let files = LogFiles::new(stats.clone());
        let file = files.open(Sink::File("/dev/full".into())).unwrap();
        let buffers = LogBuffers::new();
        write(&buffers, &file, "lost\n");
        buffers.flush();
        files.flush(LONG);
        assert_eq!(stats.server().access_log_write_failures_total.get(), 1);
    }

    #[test]
    fn a_writer_that_stands_still_costs_neither_time_nor_memory() {
        let stats = Stats::new();
        // A file without a thread: nobody takes from the queue.
        let (queue, orders) = sync_channel(QUEUE_BUFFERS);
        let file =
            Arc::new(LogFile { sink: Sink::Stdout, queue, spare: Arc::default(), stats: stats.clone() });
        let buffers = LogBuffers::new();
        for _ in 0..QUEUE_BUFFERS + 3 {
            write(&buffers, &file, "line\n");
            buffers.flush();
        }
        assert_eq!(stats.server().access_log_write_failures_total.get(), 3);
        assert_eq!(orders.try_iter().count(), QUEUE_BUFFERS);
    }

    #[test]
    fn a_flush_waits_for_closed_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let files = LogFiles::new(Stats::new());
        let buffers = LogBuffers::new();
        write(&buffers, &files.open(Sink::File(path.clone())).unwrap(), "last words\n");
        drop(buffers);
        assert!(files.files().is_empty());
        files.flush(LONG);
        assert_eq!(fs::read_to_string(&path).unwrap(), "last words\n");
    }

    #[test]
    fn a_file_closes_when_nobody_refers_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let files = LogFiles::new(Stats::new());
        let file = files.open(Sink::File(path)).unwrap();
        let buffers = LogBuffers::new();
        write(&buffers, &file, "x");
        buffers.flush();
        let weak = Arc::downgrade(&file);
        drop(file);
        assert!(weak.upgrade().is_some());
        buffers.flush();
        assert!(weak.upgrade().is_none());
    }
}
