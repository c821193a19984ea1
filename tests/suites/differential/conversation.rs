//! A client that speaks by turns, for connections that leave HTTP.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use outrigger_tests::Response;
use outrigger_tests::differential::View;
use outrigger_tests::message::parse_head;

/// Nothing more comes after so long.
const SILENCE: Duration = Duration::from_secs(2);

pub(crate) struct Conversation(TcpStream);

impl Conversation {
    pub(crate) fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // What is not taken shows in the answer.
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// Says that nothing more will be said.
    pub(crate) fn finish(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Adds the next head, 1xx too.
    pub(crate) fn see_head(&mut self, name: &str, view: &mut View) {
        let text = self.hear("\r\n\r\n");
        let answer = parse_head(text.as_bytes()).map_err(std::io::Error::other).map(|head| {
            let [version, status, _] = head.line;
            Response { version, headers: head.headers, ..Response::new(status.parse().unwrap_or(0), "") }
        });
        view.add_answer(name, &answer);
    }

    /// Adds what comes until it ends like this.
    pub(crate) fn see(&mut self, name: &str, view: &mut View, end: &str) {
        let text = self.hear(end);
        view.add(name, format!("  {text:?}\n"));
    }

    /// What comes until it ends like this, the other side ends, or says nothing more.
    pub(crate) fn hear(&mut self, end: &str) -> String {
        let (mut heard, mut byte) = (Vec::new(), [0]);
        while !heard.ends_with(end.as_bytes()) || end.is_empty() {
            match self.0.read(&mut byte) {
                Ok(0) => return format!("{}(closed)", String::from_utf8_lossy(&heard)),
                Ok(_) => heard.push(byte[0]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return format!("{}(silence)", String::from_utf8_lossy(&heard));
                }
                Err(_) => return format!("{}(reset)", String::from_utf8_lossy(&heard)),
            }
        }
        String::from_utf8_lossy(&heard).into_owned()
    }
}
