//! The listening Unix socket, and its file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;

use crate::net::{Address, ListenOptions, ListenSocket, bind_listeners};

/// Listens at `path`, whose directory has to be there. The file of a process that is gone is taken over. The second value
/// removes the file when it is dropped.
///
/// # Errors
/// Somebody listens there, something else is there, or what the system says.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let options = ListenOptions { mode: Some(mode), ..ListenOptions::default() };
    let sockets = bind_listeners(&Address::Pipe(Arc::new(path.to_owned())), &options, 1)?;
    let mut sockets = sockets.into_iter().filter_map(|socket| match socket {
        ListenSocket::Unix(socket) => Some(socket),
        ListenSocket::Tcp(_) => None,
    });
    let socket = sockets.next().ok_or(io::ErrorKind::Unsupported)?;
    let file = SocketFile { path: path.to_owned(), id: id_of(path)? };
    Ok((UnixListener::from_std(socket)?, file))
}

/// The file of our socket. It goes with this value, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(target: "secret", "the socket's file '{}' stays: {error}", self.path.display());
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn the_file_goes_with_the_socket_unless_it_is_another_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sds.sock");
        let bound = bind(&path, 0o600).unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!path.exists());
        let (_listener, file) = bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
