//! A proxy under callgrind, which counts each thread by itself.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::proxy::{Launch, Proxy};
use crate::wait;

/// Counts instructions of one proxy.
#[derive(Debug)]
pub struct Counted {
    valgrind: PathBuf,
    options: Vec<String>,
    folder: TempDir,
    parts: Cell<usize>,
}

/// What the threads did since the last time, in instructions.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// The main thread.
    pub main: f64,
    /// The workers, and all else.
    pub others: f64,
}

impl Counted {
    /// With these options of callgrind.
    ///
    /// # Panics
    /// When there is no room for its reports.
    pub fn new(valgrind: PathBuf, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self { valgrind, options, folder: tempfile::tempdir().expect("a folder"), parts: Cell::new(0) }
    }

    /// The same launch, under callgrind.
    pub fn launch(&self, launch: Launch) -> Launch {
        let output = format!("--callgrind-out-file={}", self.folder.path().join("counts").display());
        let mut words =
            vec![self.valgrind.as_os_str(), "--tool=callgrind".as_ref(), "--separate-threads=yes".as_ref()];
        words.push(output.as_ref());
        words.extend(self.options.iter().map(|option| std::ffi::OsStr::new(option.as_str())));
        launch.under(&words)
    }

    /// What was counted since this was asked last.
    ///
    /// # Panics
    /// When callgrind does not answer.
    #[track_caller]
    pub fn take(&self, proxy: &Proxy) -> Count {
        let part = self.parts.get() + 1;
        self.parts.set(part);
        let vgdb = self.valgrind.with_file_name("vgdb");
        let told =
            Command::new(vgdb).arg(format!("--pid={}", proxy.pid())).arg("dump").output().expect("vgdb");
        assert!(told.status.success(), "{told:?}");
        let of = |thread: usize| {
            let text =
                fs::read_to_string(self.folder.path().join(format!("counts.{part}-{thread:02}"))).ok()?;
            let total =
                text.lines().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
            total?.trim().parse::<f64>().ok()
        };
        let main = wait::eventually("a report", || of(1));
        Count { main, others: (2..100).filter_map(of).sum() }
    }
}
