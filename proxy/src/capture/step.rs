//! One step of what the capture does to the system, shown before or taken.

use std::fmt;

use super::command::CommandLine;
use super::netlink::Transaction;

/// Not yet taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A program does it.
    Program(CommandLine),
    /// This process does it.
    Netlink(Transaction),
}

impl Step {
    /// Takes it.
    ///
    /// # Errors
    /// What the program or the kernel complained of.
    pub fn run(&self) -> Result<(), String> {
        match self {
            Step::Program(command) => command.run().map(drop),
            Step::Netlink(transaction) => transaction.run(),
        }
    }
}

impl fmt::Display for Step {
    /// As a shell takes it; for what this process does, what a program would do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Program(command) => command.fmt(f),
            Step::Netlink(transaction) => transaction.fmt(f),
        }
    }
}
