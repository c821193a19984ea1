//! The flags of `outrigger-proxy sds`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::identity::IdentityFlags;
use crate::net::HostPort;

/// Flags of a server of secrets. Each is also an environment variable.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("outputs").required(true).multiple(true)))]
pub struct SdsFlags {
    /// HOST:PORT of the certificate service: an address, or a DNS name that its certificate must have
    #[arg(long, env = "CA_ADDR", value_name = "HOST:PORT")]
    pub ca_address: HostPort,
    /// Unix socket to serve the secrets on
    #[arg(long, env = "OUTRIGGER_SDS_UDS", value_name = "PATH", group = "outputs")]
    pub uds: Option<PathBuf>,
    /// Directory to keep cert-chain.pem, key.pem and root-cert.pem in, for programs that read files
    #[arg(long, env = "OUTPUT_CERTS", value_name = "DIR", group = "outputs")]
    pub output_certs: Option<PathBuf>,
    /// Let the group of the socket and of the files in, for a program of another user; else they are for this user only
    #[arg(long, env = "OUTRIGGER_SDS_SHARE_WITH_GROUP")]
    pub share_with_group: bool,
    /// Who the workload is, and how to prove it
    #[command(flatten)]
    pub identity: IdentityFlags,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: SdsFlags,
    }

    fn parse(more: &[&str]) -> Result<SdsFlags, String> {
        let line = ["sds", "--ca-address=127.0.0.1:15012", "--pod-namespace=shop", "--service-account=web"];
        let line = line.iter().chain(more);
        Line::try_parse_from(line).map(|line| line.flags).map_err(|error| error.to_string())
    }

    #[test]
    fn the_identity_is_a_sidecars() {
        let flags = parse(&["--uds=/run/sds.sock"]).unwrap();
        assert!(!flags.share_with_group && flags.output_certs.is_none());
        assert_eq!(flags.identity.principal(), "spiffe://cluster.local/ns/shop/sa/web");
    }

    #[test]
    fn there_must_be_something_to_do() {
        assert!(parse(&[]).unwrap_err().contains("--uds"), "nothing asked for");
        assert!(parse(&["--output-certs=certs"]).unwrap().uds.is_none());
        assert!(parse(&["--uds=s", "--output-certs=certs"]).is_ok());
    }
}
