//! Where plaintext xDS is served: on loopback, or on a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `IP:PORT`, or `unix:PATH` as gRPC writes it; also `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum XdsAddress {
    /// TCP; port 0 picks a free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for XdsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for XdsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| {
                format!("`{text}` is not an address; write IP:PORT or unix:PATH, for example unix:/run/outrigger/xds.sock")
            });
        };
        let path = match path.strip_prefix("//") {
            Some(absolute) if !absolute.starts_with('/') => {
                return Err(format!("`{text}`: a path follows, not a host; write unix:PATH or unix:///PATH"));
            }
            Some(absolute) => absolute,
            None => path,
        };
        match path {
            "" => Err("`unix:` needs a path, for example unix:/run/outrigger/xds.sock".to_owned()),
            // Whoever is on the machine could connect to it.
            _ if path.starts_with('@') => {
                Err(format!("`{text}`: an abstract socket has no permissions; use a path"))
            }
            _ => Ok(Self::Unix(path.into())),
        }
    }
}

impl From<XdsAddress> for String {
    fn from(address: XdsAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for XdsAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, expected) in [
            ("127.0.0.1:15010", XdsAddress::Tcp(([127, 0, 0, 1], 15010).into())),
            ("unix:/run/x.sock", XdsAddress::Unix("/run/x.sock".into())),
            ("unix:x.sock", XdsAddress::Unix("x.sock".into())),
        ] {
            let address: XdsAddress = text.parse().unwrap();
            assert_eq!(address, expected);
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<XdsAddress>(&json).unwrap(), address);
        }
        assert_eq!("unix:///run/x.sock".parse(), Ok(XdsAddress::Unix("/run/x.sock".into())));
    }

    #[test]
    fn wrong_addresses_are_explained() {
        for (text, expected) in [
            ("localhost", "write IP:PORT or unix:PATH"),
            ("unix:", "needs a path"),
            ("unix://host/x", "not a host"),
            ("unix:@xds", "no permissions"),
        ] {
            let error = text.parse::<XdsAddress>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
