//! A listening Unix socket, and its file.
//!
//! Only the user that the process runs as (and root) may connect: the file has mode 0600 before anybody can. A file that
//! a process left behind is replaced; one that somebody listens on, or that is no socket, is not touched. The file goes
//! with the listener.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// Connections that may wait in the kernel.
const BACKLOG: u32 = 1024;

/// Listens until it is dropped.
pub(super) struct Listener {
    listener: UnixListener,
    _file: File,
}

impl Listener {
    /// Listens at `path`. Its directory has to be there.
    ///
    /// # Errors
    /// Something is there that is no socket, or one that somebody listens on; or what the system says.
    pub(super) async fn bind(path: &Path) -> io::Result<Self> {
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let file = File::at(path)?;
        // Nobody can connect before it listens.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener: socket.listen(BACKLOG)?, _file: file })
    }

    /// The next connection, with the id of its process if the system tells it.
    pub(super) async fn accept(&self) -> io::Result<(UnixStream, Option<i32>)> {
        let (stream, _) = self.listener.accept().await?;
        let process = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
        Ok((stream, process))
    }
}

/// Removes the socket of a process that is gone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is not a socket"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) => Err(error),
    }
}

/// The file of our socket, removed with it unless another one has taken its place.
struct File {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl File {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id_of(path)? })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file stays");
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
    async fn the_file_is_private_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("xds.sock");
        let listener = Listener::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_client, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert_eq!(accepted.unwrap().1, i32::try_from(std::process::id()).ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_another_ones_socket_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("xds.sock");
        // A listener whose process ended without removing it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&path).await.unwrap();
        let error = Listener::bind(&path).await.err().unwrap();
        assert_eq!(error.to_string(), "another process listens there");
        assert!(path.exists());
        // Whoever replaced the file keeps it.
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&path).await.err().unwrap();
        assert_eq!(error.to_string(), "exists and is not a socket");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(Listener::bind(&dir.path().join("missing/xds.sock")).await.is_err());
    }
}
