//! The rules in the language of `iptables-restore` (both variants have the same): two chains of our own in the table `nat`, and a
//! rule at the head of each built-in chain that leads there. One restore makes them anew, for one family of addresses.

use std::fmt::Write as _;

use super::rules::{Family, Match, Rule, Rules, Verdict};

/// Our chain for what comes in, and the built-in chain that leads to it.
const INBOUND: (&str, &str) = ("OUTRIGGER_INBOUND", "PREROUTING");
/// Our chain for what goes out, and the built-in chain that leads to it.
const OUTBOUND: (&str, &str) = ("OUTRIGGER_OUTBOUND", "OUTPUT");

/// Input for `iptables-restore --noflush` that replaces what is ours in `saved` (what `iptables-save` printed) by these rules.
pub fn replace(rules: &Rules, family: Family, saved: &str) -> String {
    let mut out = "*nat\n".to_owned();
    // With --noflush, naming a chain empties it.
    for (chain, _) in [INBOUND, OUTBOUND] {
        let _ = writeln!(out, ":{chain} - [0:0]");
    }
    out.push_str(&delete_jumps(saved));
    for ((chain, _), list) in [(INBOUND, &rules.inbound), (OUTBOUND, &rules.outbound)] {
        for one in list.iter().filter(|one| one.is_for(family)) {
            let _ = writeln!(out, "-A {chain} {}", rule(one, &rules.comment(one.why)));
        }
    }
    for (chain, hook) in [INBOUND, OUTBOUND] {
        let comment = rules.hook_comment();
        let _ = writeln!(out, "-I {hook} 1 -p tcp -m comment --comment \"{comment}\" -j {chain}");
    }
    out.push_str("COMMIT\n");
    out
}

/// Input for `iptables-restore --noflush` that removes what is ours in `saved`; `None`: nothing is.
pub fn remove(saved: &str) -> Option<String> {
    let ours: Vec<&str> = [INBOUND.0, OUTBOUND.0]
        .into_iter()
        .filter(|chain| nat(saved).any(|line| line.starts_with(&format!(":{chain} "))))
        .collect();
    if ours.is_empty() {
        return None;
    }
    let mut out = format!("*nat\n{}", delete_jumps(saved));
    // A chain goes when nothing leads to it any more: the outbound one leads to the inbound one.
    for command in ["-F", "-X"] {
        for chain in ours.iter().rev() {
            let _ = writeln!(out, "{command} {chain}");
        }
    }
    out.push_str("COMMIT\n");
    Some(out)
}

/// Whether `saved` has exactly these rules, told by their comments, and one way into each chain.
pub fn is_current(saved: &str, rules: &Rules, family: Family) -> bool {
    let hook = rules.hook_comment();
    [(INBOUND, &rules.inbound), (OUTBOUND, &rules.outbound)].into_iter().all(|((chain, built_in), list)| {
        let wanted = list.iter().filter(|one| one.is_for(family)).map(|one| Some(rules.comment(one.why)));
        let found: Vec<_> = rules_of(saved, chain).map(comment).collect();
        let jumps: Vec<_> = rules_of(saved, built_in).filter(|line| leads_to(line, chain)).collect();
        let first = rules_of(saved, built_in).next();
        found == wanted.collect::<Vec<_>>()
            && jumps.len() == 1
            && first == jumps.first().copied()
            && jumps.iter().all(|line| comment(line).as_ref() == Some(&hook))
    })
}

fn rule(rule: &Rule, comment: &str) -> String {
    let mut out = vec!["-p tcp -m tcp".to_owned()];
    out.extend(rule.matches.iter().map(condition));
    out.push(format!("-m comment --comment \"{comment}\""));
    out.push(match rule.verdict {
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Inbound => format!("-j {}", INBOUND.0),
    });
    out.join(" ")
}

fn condition(condition: &Match) -> String {
    match condition {
        Match::InInterface(name) => format!("-i {name}"),
        Match::OutInterface(name) => format!("-o {name}"),
        Match::Source(net) => format!("-s {net}"),
        Match::Destination(net) => format!("-d {net}"),
        Match::DestinationNot(net) => format!("! -d {net}"),
        Match::Port(port) => format!("--dport {port}"),
        Match::User(user) => format!("-m owner --uid-owner {user}"),
        Match::Group(group) => format!("-m owner --gid-owner {group}"),
    }
}

/// The lines of the table `nat`.
fn nat(saved: &str) -> impl Iterator<Item = &str> {
    saved.lines().map(str::trim).skip_while(|line| *line != "*nat").take_while(|line| *line != "COMMIT")
}

fn rules_of<'a>(saved: &'a str, chain: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("-A {chain} ");
    nat(saved).filter(move |line| line.starts_with(&start))
}

fn leads_to(line: &str, chain: &str) -> bool {
    line.ends_with(&format!(" -j {chain}"))
}

fn delete_jumps(saved: &str) -> String {
    let mut out = String::new();
    for (chain, built_in) in [INBOUND, OUTBOUND] {
        for line in rules_of(saved, built_in).filter(|line| leads_to(line, chain)) {
            let _ = writeln!(out, "{}", line.replacen("-A", "-D", 1));
        }
    }
    out
}

fn comment(line: &str) -> Option<String> {
    Some(line.split_once("--comment \"")?.1.split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::options::options;
    use super::*;

    /// What `iptables-save` prints after this input went into an empty table.
    fn saved(input: &str) -> String {
        let mut chains: Vec<&str> = Vec::new();
        let mut hooks = Vec::new();
        let mut rules = Vec::new();
        for line in input.lines() {
            if line.starts_with(':') {
                chains.push(line);
            } else if let Some(rule) = line.strip_prefix("-I ") {
                hooks.push(format!("-A {}", rule.replacen(" 1 ", " ", 1)));
            } else if line.starts_with("-A") {
                rules.push(line.to_owned());
            }
        }
        let built_in = ":PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]";
        format!(
            "# by iptables-save\n*filter\n-A OUTPUT -j OUTRIGGER_OUTBOUND\nCOMMIT\n*nat\n{built_in}\n{}\n{}\n{}\nCOMMIT\n",
            chains.join("\n"),
            hooks.join("\n"),
            rules.join("\n")
        )
    }

    #[test]
    fn conditions_have_their_words_in_their_family_only() {
        let flags = ["--exclude-interfaces", "net1", "--exclude-outbound-ip-ranges", "10.0.0.0/8,fd00::/8"];
        let rules = Rules::new(&options(&flags));
        let (v4, v6) = (replace(&rules, Family::V4, ""), replace(&rules, Family::V6, ""));
        let has = |text: &str, start: &str, end: &str| {
            text.lines().any(|line| line.starts_with(start) && line.ends_with(end))
        };
        for (start, end) in [
            ("-A OUTRIGGER_INBOUND -p tcp -m tcp -i net1 ", "-j RETURN"),
            ("-A OUTRIGGER_INBOUND -p tcp -m tcp --dport 15006 ", "-j RETURN"),
            ("-A OUTRIGGER_INBOUND -p tcp -m tcp ", "-j REDIRECT --to-ports 15006"),
            ("-A OUTRIGGER_OUTBOUND -p tcp -m tcp -m owner --gid-owner 1337 ", "-j RETURN"),
            ("-A OUTRIGGER_OUTBOUND -p tcp -m tcp ", "-j REDIRECT --to-ports 15001"),
            ("-I PREROUTING 1 -p tcp ", "-j OUTRIGGER_INBOUND"),
            ("-I OUTPUT 1 -p tcp ", "-j OUTRIGGER_OUTBOUND"),
        ] {
            assert!(has(&v4, start, end) && has(&v6, start, end), "{start}\n{v4}\n{v6}");
        }
        for (one, other, start, end) in [
            (&v4, &v6, "-A OUTRIGGER_OUTBOUND -p tcp -m tcp -d 10.0.0.0/8 ", "-j RETURN"),
            (&v6, &v4, "-A OUTRIGGER_OUTBOUND -p tcp -m tcp -d fd00::/8 ", "-j RETURN"),
            (&v4, &v6, "-A OUTRIGGER_OUTBOUND -p tcp -m tcp -o lo -s 127.0.0.6/32 ", "-j RETURN"),
            (
                &v6,
                &v4,
                "-A OUTRIGGER_OUTBOUND -p tcp -m tcp -o lo ! -d ::1/128 -m owner --uid-owner 1337 ",
                "-j OUTRIGGER_INBOUND",
            ),
        ] {
            assert!(has(one, start, end) && !has(other, start, end), "{start}\n{one}\n{other}");
        }
    }

    #[test]
    fn a_second_run_replaces_the_first() {
        let first = Rules::new(&options(&[]));
        let second = Rules::new(&options(&["--exclude-inbound-ports", "22"]));
        let before = saved(&replace(&first, Family::V4, ""));
        assert!(is_current(&before, &first, Family::V4) && !is_current(&before, &second, Family::V4));
        let text = replace(&second, Family::V4, &before);
        let gone: Vec<&str> = text.lines().filter(|line| line.starts_with("-D")).collect();
        assert_eq!(gone.len(), 2);
        assert!(gone.iter().all(|line| line.contains(&first.hook_comment())), "{gone:?}");
        assert_eq!(text.lines().filter(|line| line.starts_with("-I")).count(), 2);
    }

    #[test]
    fn what_is_damaged_is_not_current() {
        let rules = Rules::new(&options(&[]));
        for family in Family::BOTH {
            let whole = saved(&replace(&rules, family, ""));
            assert!(is_current(&whole, &rules, family), "{whole}");
            let ours = whole.lines().filter(|line| line.contains("outrigger"));
            for missing in ours.clone() {
                let damaged: Vec<&str> = whole.lines().filter(|line| *line != missing).collect();
                assert!(!is_current(&damaged.join("\n"), &rules, family), "{missing}");
            }
            let other_first =
                whole.replace("[0:0]\n-A PREROUTING", "[0:0]\n-A PREROUTING -j DOCKER\n-A PREROUTING");
            assert!(other_first != whole && !is_current(&other_first, &rules, family));
            let strange = whole.replace("COMMIT\n", "-A OUTRIGGER_INBOUND -p tcp -j RETURN\nCOMMIT\n");
            assert!(!is_current(&strange, &rules, family));
        }
        assert!(!is_current("", &rules, Family::V4));
    }

    #[test]
    fn undo_takes_the_ways_in_first_then_the_chains() {
        assert_eq!(remove("*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j DOCKER\nCOMMIT\n"), None);
        let whole = saved(&replace(&Rules::new(&options(&[])), Family::V4, ""));
        let text = remove(&whole).unwrap();
        let commands: Vec<&str> = text.lines().map(|line| line.get(..2).unwrap_or_default()).collect();
        assert_eq!(commands, ["*n", "-D", "-D", "-F", "-F", "-X", "-X", "CO"], "{text}");
    }
}
