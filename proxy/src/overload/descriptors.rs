//! File descriptors of this process: how many are open, how many there may be.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of file descriptors to the hard one, as programs that open many do: the soft one is low for the sake of those
/// that use `select`. Says what holds now.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused, it stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// The share of the descriptors that is in use; 0 without a limit. `folder` is `/proc/self/fd`.
pub(super) fn pressure(folder: &Path) -> io::Result<f64> {
    let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit > 0) else { return Ok(0.0) };
    Ok(open(folder)? as f64 / limit as f64)
}

/// Linux tells the number as the folder's size since 6.2; before, it is counted.
fn open(folder: &Path) -> io::Result<u64> {
    match fs::metadata(folder)?.len() {
        // The one that reads the folder is among them.
        0 => Ok((fs::read_dir(folder)?.count() as u64).saturating_sub(1)),
        known => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn open_descriptors_are_counted() {
        let folder = Path::new("/proc/self/fd");
        let before = open(folder).unwrap();
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close some too.
        assert!(open(folder).unwrap() >= before + 100);
        assert!(pressure(folder).unwrap() > 0.0);
        drop(files);
        assert!(open(Path::new("/nowhere")).is_err());
    }
}
