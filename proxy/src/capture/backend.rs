//! The ways to the packet filters of the system: which there are, what each has of ours, how it is programmed and cleaned.

use std::fmt;
use std::path::{Path, PathBuf};

use super::command::{CommandLine, find};
use super::options::BackendChoice;
use super::rules::{Family, Rules};
use super::step::Step;
use super::{iptables, netlink, nftables};

/// A packet filter with what drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's nf_tables, from this process itself.
    Netlink,
    /// `nft`.
    Nftables {
        /// The program.
        nft: PathBuf,
    },
    /// One variant of `iptables`.
    Iptables {
        /// Which.
        variant: Variant,
        /// For IPv4.
        v4: Programs,
        /// For IPv6, where they are.
        v6: Option<Programs>,
    },
}

/// What is below `iptables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The kernel's nf_tables.
    Nft,
    /// The kernel's ip_tables.
    Legacy,
}

/// `iptables-save` and `iptables-restore` of one variant and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    save: PathBuf,
    restore: PathBuf,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Netlink => "netlink",
            Backend::Nftables { .. } => "nftables",
            Backend::Iptables { variant: Variant::Nft, .. } => "iptables (nft)",
            Backend::Iptables { variant: Variant::Legacy, .. } => "iptables (legacy)",
        })
    }
}

/// What was chosen, as far as its programs are there, the preferred one first.
pub fn available(choices: &[BackendChoice]) -> Vec<Backend> {
    let nftables = || find("nft").map(|nft| Backend::Nftables { nft });
    let all: [(BackendChoice, &dyn Fn() -> Option<Backend>); 4] = [
        (BackendChoice::Netlink, &|| Some(Backend::Netlink)),
        (BackendChoice::Nftables, &nftables),
        (BackendChoice::IptablesNft, &|| iptables_of(Variant::Nft)),
        (BackendChoice::IptablesLegacy, &|| iptables_of(Variant::Legacy)),
    ];
    let wanted = |one: &BackendChoice| choices.contains(&BackendChoice::Auto) || choices.contains(one);
    all.into_iter().filter(|(one, _)| wanted(one)).filter_map(|(_, find)| find()).collect()
}

fn iptables_of(variant: Variant) -> Option<Backend> {
    let v4 = programs("iptables", variant)?;
    Some(Backend::Iptables { variant, v4, v6: programs("ip6tables", variant) })
}

/// By the name of the variant, else by the plain name if that is this variant.
fn programs(family: &str, variant: Variant) -> Option<Programs> {
    let word = match variant {
        Variant::Nft => "nft",
        Variant::Legacy => "legacy",
    };
    let both = |prefix: &str| {
        let (save, restore) = (find(&format!("{prefix}-save"))?, find(&format!("{prefix}-restore"))?);
        Some(Programs { save, restore })
    };
    both(&format!("{family}-{word}")).or_else(|| {
        let plain = both(family)?;
        let version = CommandLine::new(&plain.restore, &["--version"]).run().ok()?;
        (variant_of(&version) == variant).then_some(plain)
    })
}

/// `iptables-restore v1.8.9 (nf_tables)`; versions before 1.8 know only the one and don't say it.
fn variant_of(version: &str) -> Variant {
    if version.contains("nf_tables") { Variant::Nft } else { Variant::Legacy }
}

impl Programs {
    /// The rules in the kernel; nothing where they cannot be read.
    fn saved(&self) -> String {
        CommandLine::new(&self.save, &[]).run().unwrap_or_default()
    }

    fn restore(&self, variant: Variant, input: String) -> Step {
        let command = match variant {
            Variant::Nft => CommandLine::new(&self.restore, &["--noflush"]),
            // The lock is shared with whoever else works on the tables: some seconds, as kube-proxy waits.
            Variant::Legacy if is_writable(LOCK_FOLDER) => {
                CommandLine::new(&self.restore, &["--noflush", "--wait", "5"])
            }
            // With a read-only root file system nobody else can have the lock.
            Variant::Legacy => CommandLine::new(&self.restore, &["--noflush"])
                .with_environment("XTABLES_LOCKFILE", "/dev/null"),
        };
        Step::Program(command.with_input(input))
    }
}

/// Where `iptables-legacy` has its lock, a file that it makes.
const LOCK_FOLDER: &str = "/run";

fn is_writable(folder: &str) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

impl Backend {
    /// Whether exactly these rules are in the kernel, for IPv4 and, if asked for, IPv6.
    pub fn is_current(&self, rules: &Rules, ipv6: bool) -> bool {
        match self {
            Backend::Netlink => netlink::table::is_current(rules),
            Backend::Nftables { .. } => {
                self.listing().is_some_and(|listing| nftables::is_current(&listing, rules))
            }
            Backend::Iptables { v4, v6, .. } => {
                let current =
                    |programs: &Programs, family| iptables::is_current(&programs.saved(), rules, family);
                current(v4, Family::V4)
                    && (!ipv6 || v6.as_ref().is_some_and(|programs| current(programs, Family::V6)))
            }
        }
    }

    /// What makes it so, whatever there was of ours before.
    ///
    /// # Errors
    /// A program is missing.
    pub fn programming(&self, rules: &Rules, ipv6: bool) -> Result<Vec<Step>, String> {
        match self {
            Backend::Netlink => Ok(vec![Step::Netlink(netlink::table::replacing(rules))]),
            Backend::Nftables { nft } => Ok(vec![run_nft(nft, nftables::replace(rules))]),
            Backend::Iptables { variant, v4, v6 } => {
                let step = |programs: &Programs, family| {
                    programs.restore(*variant, iptables::replace(rules, family, &programs.saved()))
                };
                let mut steps = vec![step(v4, Family::V4)];
                if ipv6 {
                    let v6 = v6.as_ref().ok_or("the pod has IPv6 addresses, but there is no ip6tables")?;
                    steps.push(step(v6, Family::V6));
                }
                Ok(steps)
            }
        }
    }

    /// What removes what is ours; nothing when nothing is.
    pub fn cleaning(&self) -> Vec<Step> {
        match self {
            Backend::Netlink if netlink::table::exists() => vec![Step::Netlink(netlink::table::removing())],
            Backend::Netlink => Vec::new(),
            Backend::Nftables { nft } => {
                self.listing().map(|_| run_nft(nft, nftables::remove())).into_iter().collect()
            }
            Backend::Iptables { variant, v4, v6 } => [Some(v4), v6.as_ref()]
                .into_iter()
                .flatten()
                .filter_map(|programs| Some(programs.restore(*variant, iptables::remove(&programs.saved())?)))
                .collect(),
        }
    }

    /// Whether both have their rules in one and the same place.
    pub fn is_same_place(&self, other: &Backend) -> bool {
        let is_our_table = |one: &Backend| matches!(one, Backend::Netlink | Backend::Nftables { .. });
        self == other || (is_our_table(self) && is_our_table(other))
    }

    /// What `nft` says of our table; `None`: there is none.
    fn listing(&self) -> Option<String> {
        let Backend::Nftables { nft } = self else { return None };
        let args: Vec<&str> = ["list", "table"].into_iter().chain(nftables::TABLE.split(' ')).collect();
        CommandLine::new(nft, &args).run().ok()
    }
}

fn run_nft(nft: &Path, input: String) -> Step {
    Step::Program(CommandLine::new(nft, &["-f", "-"]).with_input(input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_program_says_which_variant_it_is() {
        assert_eq!(variant_of("iptables-restore v1.8.9 (nf_tables)"), Variant::Nft);
        assert_eq!(variant_of("iptables-restore v1.8.9 (legacy)"), Variant::Legacy);
        assert_eq!(variant_of("iptables-restore v1.6.1"), Variant::Legacy);
    }
}
