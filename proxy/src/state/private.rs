//! Files that only this user may read: written beside and moved into place, so that a reader never sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory that is ours alone (0700).
///
/// # Errors
/// It cannot be made, or is somebody else's.
pub fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Replaces a file by one with this content, which is given back open for appending.
///
/// # Errors
/// What the kernel says; the old file is still there then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<File> {
    let beside = beside(path);
    // One that a crash left behind may have been written by halves.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    fs::rename(beside, path)?;
    Ok(file)
}

/// Where a file is written before it is moved into its place.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("part")
}
