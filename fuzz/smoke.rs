//! Each target over its seeds and over random changes of them, the same in every run. It finds no new paths, as `scripts/fuzz` does, but
//! what once was found, and what is broken plainly. Without instrumentation, so it is built with everything else.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_fuzz::{TARGETS, Target};

/// Changes of seeds for each target, or as many as there is time for.
const CHANGES: usize = 20_000;
const TIME: Duration = Duration::from_millis(700);
/// An input that grows beyond this is cut.
const LONGEST: usize = 4096;

#[test]
fn no_seed_and_no_change_of_one_is_a_finding() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let findings: Vec<String> = std::thread::scope(|scope| {
        let shares = TARGETS.chunks(TARGETS.len().div_ceil(threads));
        let find = |share: &'static [(&str, Target)]| {
            let findings = share.iter().filter_map(|(name, target)| smoke(name, *target).err());
            findings.collect::<Vec<_>>()
        };
        let running: Vec<_> = shares.map(|share| scope.spawn(move || find(share))).collect();
        running.into_iter().flat_map(|share| share.join().unwrap()).collect()
    });
    assert!(findings.is_empty(), "findings, told above; each is to become a seed:\n{}", findings.join("\n"));
}

#[test]
fn each_target_has_its_seeds() {
    let in_folder = |folder: &str, suffix: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(in_folder("seeds", ""), targets);
    let mut files = in_folder("fuzz_targets", ".rs");
    ["lib", "input", "resources"].iter().for_each(|shared| assert!(files.remove(*shared)));
    assert_eq!(files, targets);
}

/// Gives the first finding.
fn smoke(name: &str, target: Target) -> Result<(), String> {
    let seeds = seeds(name);
    for seed in &seeds {
        run(name, target, seed)?;
    }
    let mut random = Rng::with_seed(7);
    let begin = Instant::now();
    for _ in 0..CHANGES {
        if begin.elapsed() > TIME {
            break;
        }
        run(name, target, &changed(&seeds, &mut random))?;
    }
    Ok(())
}

fn run(name: &str, target: Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| target(input)))
        .map_err(|_| format!("printf '{}' > fuzz/seeds/{name}/...", printf(input)))
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("seeds").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds of {name}");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of the seeds with one to eight changes.
fn changed(seeds: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut input = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..9) {
        let at = random.usize(..=input.len());
        let part = at..at + random.usize(..=(input.len() - at).min(32));
        match random.u8(..7) {
            0 => drop(input.drain(part)),
            1 => input.insert(at, random.u8(..)),
            2 => input.insert(at, b"\0\x01\xff%\\\"'{}[]:,;=./\r\n \t~!*-"[random.usize(..25)]),
            3 => {
                let copy = input[part].to_vec();
                input.splice(at..at, copy);
            }
            4 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                input.splice(part, other[from..].iter().take(64).copied());
            }
            5 => input[part].iter_mut().for_each(|byte| *byte = random.u8(..)),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.u8(..8);
                }
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// The bytes as the format of a shell's `printf`.
fn printf(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b':' | b'/' | b'.' | b'-' => {
            char::from(*byte).to_string()
        }
        byte => format!("\\{byte:03o}"),
    };
    bytes.iter().map(one).collect()
}
