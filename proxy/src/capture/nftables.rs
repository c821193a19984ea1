//! The rules in the language of `nft`: a table of our own in the family `inet`, which serves IPv4 and IPv6. One transaction makes
//! it anew.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::rules::{Match, Rule, Rules, Verdict};

/// Family and name of the table.
pub const TABLE: &str = "inet outrigger";

/// Input for `nft -f -` that replaces all that is ours by these rules.
pub fn replace(rules: &Rules) -> String {
    // Adding what may be there already makes deleting it no error.
    let mut out = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    for (name, chain) in [("inbound", &rules.inbound), ("outbound", &rules.outbound)] {
        let _ = writeln!(out, "\tchain {name} {{");
        for one in chain {
            let _ = writeln!(out, "\t\t{} comment \"{}\"", rule(one), rules.comment(one.why));
        }
        out.push_str("\t}\n");
    }
    for (hook, chain) in [("prerouting", "inbound"), ("output", "outbound")] {
        let comment = rules.hook_comment();
        // -100: before whoever else translates addresses (`dstnat`, a name that old versions don't know for output).
        let _ = writeln!(
            out,
            "\tchain {hook} {{\n\t\ttype nat hook {hook} priority -100; policy accept;\n\
             \t\tmeta l4proto tcp jump {chain} comment \"{comment}\"\n\t}}"
        );
    }
    out.push_str("}\n");
    out
}

/// Input for `nft -f -` that removes all that is ours.
pub fn remove() -> String {
    format!("delete table {TABLE}\n")
}

fn rule(rule: &Rule) -> String {
    let mut out: Vec<String> = rule.matches.iter().map(condition).collect();
    if !rule.matches.iter().any(|m| matches!(m, Match::Port(_))) {
        out.push("meta l4proto tcp".to_owned());
    }
    out.push(match rule.verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Inbound => "jump inbound".to_owned(),
    });
    out.join(" ")
}

fn condition(condition: &Match) -> String {
    let family = |net: &IpNet| if net.addr().is_ipv4() { "ip" } else { "ip6" };
    match condition {
        Match::InInterface(name) => format!("iifname \"{name}\""),
        Match::OutInterface(name) => format!("oifname \"{name}\""),
        Match::Source(net) => format!("{} saddr {net}", family(net)),
        Match::Destination(net) => format!("{} daddr {net}", family(net)),
        Match::DestinationNot(net) => format!("{} daddr != {net}", family(net)),
        Match::Port(port) => format!("tcp dport {port}"),
        Match::User(user) => format!("meta skuid {user}"),
        Match::Group(group) => format!("meta skgid {group}"),
    }
}

/// Whether what `nft list table` prints is exactly these rules, told by their comments.
pub fn is_current(listing: &str, rules: &Rules) -> bool {
    let comments = |chain: &[Rule]| chain.iter().map(|one| Some(rules.comment(one.why))).collect::<Vec<_>>();
    let hook = vec![Some(rules.hook_comment())];
    let wanted = [
        ("inbound", comments(&rules.inbound)),
        ("outbound", comments(&rules.outbound)),
        ("prerouting", hook.clone()),
        ("output", hook),
    ];
    wanted.iter().all(|(name, comments)| chain_comments(listing, name).as_ref() == Some(comments))
}

/// The comment of each rule of a chain; `None`: there is no such chain.
fn chain_comments(listing: &str, chain: &str) -> Option<Vec<Option<String>>> {
    let mut lines = listing.lines().map(str::trim).skip_while(|line| *line != format!("chain {chain} {{"));
    lines.next()?;
    let rules = lines.take_while(|line| *line != "}").filter(|line| !line.starts_with("type "));
    let comment = |line: &str| Some(line.split_once("comment \"")?.1.split('"').next()?.to_owned());
    Some(rules.map(comment).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::options::options;
    use super::*;

    fn text(flags: &[&str]) -> String {
        replace(&Rules::new(&options(flags)))
    }

    #[test]
    fn conditions_have_their_words() {
        let text =
            text(&["--exclude-interfaces", "net1", "--exclude-outbound-ip-ranges", "10.0.0.0/8,fd00::/8"]);
        for line in [
            "iifname \"net1\" meta l4proto tcp return",
            "tcp dport 15006 return",
            "meta l4proto tcp redirect to :15006",
            "oifname \"lo\" ip saddr 127.0.0.6/32 meta l4proto tcp return",
            "oifname \"lo\" ip daddr != 127.0.0.0/8 meta skuid 1337 meta l4proto tcp jump inbound",
            "meta skgid 1337 meta l4proto tcp return",
            "ip daddr 10.0.0.0/8 meta l4proto tcp return",
            "ip6 daddr fd00::/8 meta l4proto tcp return",
            "meta l4proto tcp redirect to :15001",
        ] {
            assert!(
                text.lines().any(|l| l.trim_start().starts_with(&format!("{line} comment"))),
                "{line}\n{text}"
            );
        }
    }

    #[test]
    fn it_is_one_transaction_on_a_table_of_its_own() {
        let text = text(&[]);
        assert!(
            text.starts_with("add table inet outrigger\ndelete table inet outrigger\ntable inet outrigger {")
        );
        assert_eq!(text.matches("type nat hook").count(), 2);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn what_is_damaged_is_not_current() {
        let rules = Rules::new(&options(&[]));
        // What nft prints differs from its input in spaces and names only.
        let listing = replace(&rules).replace("priority -100", "priority dstnat");
        assert!(is_current(&listing, &rules));
        assert!(!is_current("", &rules));
        assert!(!is_current(&listing, &Rules::new(&options(&["--exclude-inbound-ports", "1"]))));
        let count = listing.lines().filter(|line| line.contains("comment")).count();
        assert_eq!(count, rules.count() + 2);
        for missing in listing.lines().filter(|line| line.contains("comment")) {
            let mut damaged: Vec<&str> = listing.lines().collect();
            damaged.remove(damaged.iter().position(|line| *line == missing).unwrap());
            assert!(!is_current(&damaged.join("\n"), &rules), "{missing}");
        }
        let strange = listing.replace("chain inbound {\n", "chain inbound {\n\t\ttcp dport 1 return\n");
        assert!(!is_current(&strange, &rules));
    }
}
