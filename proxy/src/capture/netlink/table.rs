//! The rules as a table of nf_tables, `inet outrigger`: the very table that `nft` makes of [the same rules in
//! words](super::super::nftables), so that either can read, replace and remove what the other made.

use std::io;

use super::super::nftables;
use super::super::rules::{Rule, Rules};
use super::expressions::{expressions, lead_into};
use super::message::{APPEND, Attributes, CREATE, DUMP, Message, attributes};
use super::socket::{Subsystem, ask};
use super::{Request, Transaction};

/// Name of the table.
const TABLE: &str = "outrigger";
/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u8 = 10;
/// Before whoever else translates addresses: `NF_IP_PRI_NAT_DST`.
const PRIORITY: i32 = -100;
/// `NF_ACCEPT`
const ACCEPT: u32 = 1;

/// Chains, and the hooks with the chains that lead to them, by the numbers of `enum nf_inet_hooks`.
const INBOUND: &str = "inbound";
const OUTBOUND: &str = "outbound";
const HOOKS: [(&str, u32, &str); 2] = [("prerouting", 0, INBOUND), ("output", 3, OUTBOUND)];

/// What is asked of nf_tables (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy)]
enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    NewRule = 6,
    GetRule = 7,
}

/// `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`, `NFTA_RULE_USERDATA`
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// Replaces all that is ours by these rules.
pub(in super::super) fn replacing(rules: &Rules) -> Transaction {
    let mut requests = vec![
        // Adding what may be there already makes deleting it no error.
        table(Kind::NewTable, CREATE),
        table(Kind::DeleteTable, 0),
        table(Kind::NewTable, CREATE),
    ];
    let chains = [(INBOUND, &rules.inbound), (OUTBOUND, &rules.outbound)];
    // A rule can lead into a chain that is there.
    requests.extend(chains.iter().map(|(name, _)| chain(name, Attributes::default())));
    for (name, list) in chains {
        requests.extend(list.iter().map(|one| {
            let comment = rules.comment(one.why);
            rule(name, one.why, &comment, expressions(one, INBOUND))
        }));
    }
    for (name, number, to) in HOOKS {
        requests.push(chain(name, hook(number)));
        requests.push(rule(name, "all TCP", &rules.hook_comment(), lead_into(to)));
    }
    batch(requests, nftables::replace(rules))
}

/// Removes all that is ours.
pub(in super::super) fn removing() -> Transaction {
    batch(vec![table(Kind::DeleteTable, 0)], nftables::remove())
}

/// Whether there is a table of ours, whatever is in it. One that cannot be read is none.
pub(in super::super) fn exists() -> bool {
    ask(Subsystem::Netfilter, &table(Kind::GetTable, 0).message.acknowledged()).is_ok()
}

/// Whether exactly these rules are in the kernel, told by their comments.
pub(in super::super) fn is_current(rules: &Rules) -> bool {
    found().is_ok_and(|found| matches(&found, rules))
}

/// A rule in the kernel: its chain and its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    chain: String,
    comment: Option<String>,
}

fn matches(found: &[Found], rules: &Rules) -> bool {
    let comments = |chain: &[Rule]| chain.iter().map(|one| Some(rules.comment(one.why))).collect::<Vec<_>>();
    let mut wanted = vec![(INBOUND, comments(&rules.inbound)), (OUTBOUND, comments(&rules.outbound))];
    wanted.extend(HOOKS.map(|(name, ..)| (name, vec![Some(rules.hook_comment())])));
    let count: usize = wanted.iter().map(|(_, comments)| comments.len()).sum();
    found.len() == count
        && wanted.iter().all(|(name, comments)| {
            found.iter().filter(|one| one.chain == *name).map(|one| &one.comment).eq(comments)
        })
}

/// The rules of our table, those of each chain in their order.
fn found() -> io::Result<Vec<Found>> {
    let ours = Attributes::default().text(RULE_TABLE, TABLE);
    let objects = ask(Subsystem::Netfilter, &message(Kind::GetRule, DUMP, ours))?;
    Ok(objects.iter().filter_map(|object| read(object)).collect())
}

/// `None`: it is not of our table (old kernels tell all).
fn read(object: &[u8]) -> Option<Found> {
    let (header, body) = object.split_at_checked(HEADER)?;
    let get = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let ours = header[0] == INET && text(get(RULE_TABLE)?) == TABLE;
    ours.then_some(())?;
    Some(Found { chain: text(get(RULE_CHAIN)?), comment: get(RULE_USERDATA).and_then(comment) })
}

/// As C has text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
}

/// `NFTNL_UDATA_RULE_COMMENT`: what `nft` and others write beside a rule is a list of its own, of type, length, value, a byte
/// each for the first two.
const COMMENT: u8 = 0;

fn user_data(comment: &str) -> Vec<u8> {
    let value = [comment.as_bytes(), b"\0"].concat();
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[COMMENT, length], value.as_slice()].concat()
}

fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, others) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        data = others;
    }
    None
}

fn table(kind: Kind, flags: u16) -> Request {
    let name = Attributes::default().text(1, TABLE);
    Request { what: format!("the table inet {TABLE}"), message: message(kind, flags, name) }
}

/// `more`: nothing, or [`hook`].
fn chain(name: &str, more: Attributes) -> Request {
    let chain = Attributes::default().text(1, TABLE).text(3, name).and(more);
    Request { what: format!("the chain {name}"), message: message(Kind::NewChain, CREATE, chain) }
}

/// What makes a chain see packets: `NFTA_CHAIN_HOOK`, `NFTA_CHAIN_POLICY`, `NFTA_CHAIN_TYPE`.
fn hook(number: u32) -> Attributes {
    let hook = Attributes::default().number(1, number).number(2, PRIORITY.cast_unsigned());
    Attributes::default().nested(4, hook).number(5, ACCEPT).text(7, "nat")
}

fn rule(chain: &str, why: &str, comment: &str, expressions: Attributes) -> Request {
    let rule = Attributes::default()
        .text(RULE_TABLE, TABLE)
        .text(RULE_CHAIN, chain)
        .nested(RULE_EXPRESSIONS, expressions)
        .bytes(RULE_USERDATA, &user_data(comment));
    let message = message(Kind::NewRule, CREATE | APPEND, rule);
    Request { what: format!("a rule of the chain {chain} ({why})"), message }
}

/// `struct nfgenmsg`: family, version, a number for the subsystem.
const HEADER: usize = 4;

fn message(kind: Kind, flags: u16, attributes: Attributes) -> Message {
    let kind = u16::from_be_bytes([NFTABLES, kind as u8]);
    Message::new(kind, flags, &[INET, 0, 0, 0], attributes)
}

/// All of them or none.
fn batch(mut requests: Vec<Request>, words: String) -> Transaction {
    /// `NFNL_MSG_BATCH_BEGIN`
    const BEGIN: u16 = 16;
    /// `NFNL_MSG_BATCH_END`
    const END: u16 = 17;
    // Not every kernel acknowledges the end.
    if let Some(last) = requests.last_mut() {
        last.message = last.message.clone().acknowledged();
    }
    let edge = |kind| Request {
        what: "the transaction".to_owned(),
        message: Message::new(kind, 0, &[0, 0, 0, NFTABLES], Attributes::default()),
    };
    requests.insert(0, edge(BEGIN));
    requests.push(edge(END));
    Transaction { subsystem: Subsystem::Netfilter, requests, words: format!("nft -f - <<'END'\n{words}END") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::super::options::options;
    use super::super::message::{Answer, answers};
    use super::*;

    /// The rules in the kernel after this: a dump has the same form as what made it.
    fn after(transaction: &Transaction) -> Vec<Found> {
        let kind = |request: &Request| request.what.starts_with("a rule");
        let read = |request: &Request| {
            let mut bytes = Vec::new();
            request.message.write(0, &mut bytes);
            match answers(&bytes).next() {
                Some(Answer::Object { body, .. }) => read(body).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        transaction.requests.iter().filter(|request| kind(request)).map(read).collect()
    }

    #[test]
    fn what_is_damaged_is_not_current() {
        let rules = Rules::new(&options(&[]));
        let whole = after(&replacing(&rules));
        assert_eq!(whole.len(), rules.count() + 2);
        assert!(matches(&whole, &rules) && !matches(&[], &rules));
        assert!(!matches(&whole, &Rules::new(&options(&["--exclude-inbound-ports", "1"]))));
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            let one = damaged.remove(place);
            assert!(!matches(&damaged, &rules), "{one:?} is missing");
            damaged.insert(place, Found { comment: None, ..one.clone() });
            assert!(!matches(&damaged, &rules), "{one:?} has no comment");
            damaged.push(one);
            assert!(!matches(&damaged, &rules), "one more");
        }
        let mut turned = whole.clone();
        turned.swap(3, 4);
        assert!(!matches(&turned, &rules));
        let mut strange = whole;
        strange.push(Found { chain: "strange".to_owned(), comment: None });
        assert!(!matches(&strange, &rules));
    }

    #[test]
    fn other_tables_are_not_read() {
        let rule = |family: u8, table: &str| {
            let rule = Attributes::default().text(RULE_TABLE, table).text(RULE_CHAIN, INBOUND);
            let mut bytes = Vec::new();
            Message::new(0, 0, &[family, 0, 0, 0], rule).write(0, &mut bytes);
            bytes[16..].to_vec()
        };
        assert_eq!(read(&rule(INET, TABLE)), Some(Found { chain: INBOUND.to_owned(), comment: None }));
        assert_eq!(read(&rule(2, TABLE)), None);
        assert_eq!(read(&rule(INET, "outriggers")), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn a_comment_is_found_among_what_others_write_beside_a_rule() {
        let ours = user_data("why");
        assert_eq!(ours, b"\0\x04why\0");
        assert_eq!(comment(&ours), Some("why".to_owned()));
        assert_eq!(comment(&[b"\x01\x02xy", ours.as_slice()].concat()), Some("why".to_owned()));
        for bad in [&b""[..], b"\0", b"\0\x04why", b"\x01\x01x"] {
            assert_eq!(comment(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_transaction_has_its_edges_and_one_acknowledgement() {
        let transaction = replacing(&Rules::new(&options(&[])));
        let asks = |request: &Request| request.message == request.message.clone().acknowledged();
        let count = transaction.requests.len();
        let asking: Vec<usize> = (0..count).filter(|&at| asks(&transaction.requests[at])).collect();
        assert_eq!(asking, [count - 2]);
        assert_eq!(transaction.requests[0].what, transaction.requests[count - 1].what);
        assert!(transaction.to_string().starts_with("nft -f - <<'END'\nadd table inet outrigger\n"));
    }
}
