//! The file that keeps the last good configuration: as bytes that a disk may have damaged, and as records whose sums are right (each a
//! `DeltaDiscoveryResponse` behind its length). The first byte chooses.

use outrigger_proxy::fuzzing::{append_to_journal, read_journal, write_journal};
use outrigger_proxy::state::Record;

use crate::input::choose;

const OWNER: &str = "me";

/// What is read says the same when it is written again, and half a record hides nothing that came before it.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((damaged, rest)) = choose(&[true, false], bytes) else { return };
    let journal = match damaged {
        true => [write_journal(OWNER, &[]), rest.to_vec()].concat(),
        false => write_journal(OWNER, &records(rest)),
    };
    let (saved, ignored) = read_journal(&journal, OWNER).unwrap();
    assert!(read_journal(rest, "somebody else").is_err());
    let mut again = write_journal(OWNER, &[]);
    for ((of, _), resource) in &saved {
        append_to_journal(&Record::Accepted(*of, Box::new(resource.clone())), &mut again);
    }
    assert_eq!(read_journal(&again, OWNER), Ok((saved.clone(), 0)));
    again.push(7);
    assert_eq!(read_journal(&again, OWNER), Ok((saved, 1)));
    assert!(ignored <= rest.len() || !damaged);
}

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        records.push(record);
        bytes = rest;
    }
    records
}
