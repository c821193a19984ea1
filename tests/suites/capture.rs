//! `outrigger-proxy capture` in network namespaces, with the real packet filters: where connections go, as those see it who make
//! them. Servers say who they are and where the connection wanted to go, in one line.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Output;
use std::thread;
use std::time::Duration;

use outrigger_tests::netns::{NetPod, Network};
use outrigger_tests::proxy::binary;
use outrigger_tests::tools::require_tool;
use socket2::{Domain, SockRef, Socket, Type};

/// Each way to program the kernel: the flag's value, and the program without which a test is skipped (for the one that needs none,
/// the one that shows what it did).
const BACKENDS: [(&str, &str); 4] = [
    ("netlink", "nft"),
    ("nftables", "nft"),
    ("iptables-nft", "iptables-nft"),
    ("iptables-legacy", "iptables-legacy"),
];

const APPLICATION: u32 = 1000;
const SIDECAR: u32 = 1337;

/// How long a connection may take that nobody refuses.
const PATIENCE: Duration = Duration::from_secs(5);

/// A captured pod and one outside, with servers.
struct World {
    _network: Network,
    pod: NetPod,
    outside: NetPod,
}

impl World {
    /// `None`: the test has been reported as skipped.
    fn new() -> Option<Self> {
        let mut network = Network::new()?;
        for (_, program) in BACKENDS {
            require_tool(program)?;
        }
        let (pod, outside) = (network.pod(), network.pod());
        Some(World { _network: network, pod, outside })
    }

    /// Servers: the application's and the sidecar's ports in the pod, two ports outside.
    fn serve(&self) {
        for port in [8080, 2222, 15001, 15006, 15020, 15021, 15090] {
            serve(&self.pod, port);
        }
        for port in [80, 3333] {
            serve(&self.outside, port);
        }
    }

    fn capture(&self, flags: &[&str]) -> Answer {
        Answer::of(self.pod.command(program()).arg("capture").args(flags).output().unwrap())
    }

    /// As in an image that has nothing but this program.
    fn capture_without_programs(&self, flags: &[&str]) -> Answer {
        let mut command = self.pod.command("env");
        Answer::of(command.arg("PATH=").arg(program()).arg("capture").args(flags).output().unwrap())
    }

    /// All rules and tables that somebody made, and the addresses of the loopback interface. Not: counters, and the built-in
    /// tables and chains of `iptables`, which whoever looks first makes for good.
    fn state(&self) -> String {
        let saves = "iptables-legacy-save; ip6tables-legacy-save; iptables-nft-save; ip6tables-nft-save";
        let saved = self.pod.sh(saves);
        let saved = saved.lines().filter(|line| line.starts_with("-A") || line.starts_with(":OUTRIGGER"));
        let ruleset = self.pod.sh("nft -s list ruleset");
        let built_in = |table: &&str| table.starts_with("ip nat {") || table.starts_with("ip6 nat {");
        let tables = ruleset.split("table ").filter(|table| !built_in(table));
        let addresses = self.pod.ip("-o address show dev lo");
        // A chain's counters come after its name.
        let saved = saved.map(|line| line.split(" [").next().unwrap_or_default());
        saved.chain(tables).chain(addresses.lines()).collect::<Vec<_>>().join("\n")
    }
}

struct Answer {
    code: i32,
    text: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Answer { code: output.status.code().unwrap_or(-1), text: out + &err }
    }

    #[track_caller]
    fn succeeds(self) -> String {
        assert_eq!(self.code, 0, "{}", self.text);
        self.text
    }

    #[track_caller]
    fn fails(self, code: i32, why: &str) {
        assert!(self.code == code && self.text.contains(why), "{}: {}", self.code, self.text);
    }
}

fn program() -> PathBuf {
    binary("outrigger-proxy")
}

/// Answers every connection to this port, IPv4 and IPv6, with `PORT ORIGINAL-DESTINATION`.
fn serve(pod: &NetPod, port: u16) {
    for any in ["0.0.0.0", "::"] {
        let address = SocketAddr::new(any.parse().unwrap(), port);
        let listener: TcpListener = pod.enter(0, || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(true).unwrap();
            }
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(64).unwrap();
            socket.into()
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, port);
            }
        });
    }
}

fn answer(mut stream: TcpStream, port: u16) -> std::io::Result<()> {
    let socket = SockRef::from(&stream);
    let original =
        if stream.local_addr()?.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Without any translation the kernel may not know the connection.
    let original = original.ok().and_then(|address| address.as_socket()).map_or(stream.local_addr()?, |a| a);
    writeln!(stream, "{port} {original}")
}

/// What the server says to whom this user reaches from this pod.
fn dial(pod: &NetPod, user: u32, from: Option<&str>, to: SocketAddr) -> String {
    let connect = || -> std::io::Result<String> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            let from: IpAddr = from.parse().unwrap();
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(TcpStream::from(socket)).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    pod.enter(user, connect).unwrap_or_else(|error| error.to_string())
}

#[track_caller]
fn goes(pod: &NetPod, user: u32, to: (IpAddr, u16), server: u16) {
    let to = SocketAddr::from(to);
    assert_eq!(dial(pod, user, None, to), format!("{server} {to}"), "user {user} to {to}");
}

/// An address that no machine has: a Service's.
fn service(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { "10.96.0.10".parse().unwrap() } else { "fd96::10".parse().unwrap() }
}

/// The other family's interface is as good as another: the same facts with each packet filter.
fn connections_go_where_they_should(backend: &str) {
    let Some(world) = World::new() else { return };
    let (pod, outside) = (&world.pod, &world.outside);
    outside.ip("address add 10.77.0.99/24 dev eth0");
    outside.ip("address add fd77::99/64 dev eth0 nodad");
    let flags = [
        "--backend",
        backend,
        "--exclude-inbound-ports=2222",
        "--exclude-outbound-ports=3333",
        "--exclude-outbound-ip-ranges=10.77.0.99/32,fd77::99/128",
    ];
    let text = world.capture(&flags).succeeds();
    for proven in ["outbound IPv4", "inbound IPv4", "outbound IPv6", "inbound IPv6"] {
        assert!(text.contains(&format!("proven: {proven}")), "{text}");
    }
    world.serve();
    for (own, other) in pod.ips().into_iter().zip(outside.ips()) {
        // From outside.
        goes(outside, APPLICATION, (own, 8080), 15006);
        goes(outside, APPLICATION, (own, 7), 15006);
        goes(outside, APPLICATION, (own, 2222), 2222);
        for port in [15006, 15020, 15021, 15090] {
            goes(outside, APPLICATION, (own, port), port);
        }
        // From the application.
        goes(pod, APPLICATION, (other, 80), 15001);
        goes(pod, 0, (other, 80), 15001);
        goes(pod, APPLICATION, (service(other), 443), 15001);
        goes(pod, APPLICATION, (other, 3333), 3333);
        let excluded = if other.is_ipv4() { "10.77.0.99" } else { "fd77::99" }.parse().unwrap();
        goes(pod, APPLICATION, (excluded, 80), 80);
        // From the sidecar: to others, and to its own pod, which a service address led to.
        goes(pod, SIDECAR, (other, 80), 80);
        goes(pod, SIDECAR, (own, 8080), 15006);
        goes(pod, SIDECAR, (own, 2222), 2222);
        goes(pod, SIDECAR, (own, 15006), 15006);
        // From the sidecar to its application.
        let loopback: IpAddr = if own.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap();
        goes(pod, SIDECAR, (loopback, 8080), 8080);
        let from = if own.is_ipv4() { "127.0.0.6" } else { "::6" };
        let to = SocketAddr::from((own, 8080));
        assert_eq!(dial(pod, SIDECAR, Some(from), to), format!("8080 {to}"));
        // From the application to itself.
        goes(pod, APPLICATION, (own, 8080), 8080);
        goes(pod, APPLICATION, (loopback, 8080), 8080);
    }
}

#[test]
fn connections_go_where_they_should_with_netlink() {
    connections_go_where_they_should("netlink");
}

#[test]
fn connections_go_where_they_should_with_nftables() {
    connections_go_where_they_should("nftables");
}

#[test]
fn connections_go_where_they_should_with_iptables_nft() {
    connections_go_where_they_should("iptables-nft");
}

#[test]
fn connections_go_where_they_should_with_iptables_legacy() {
    connections_go_where_they_should("iptables-legacy");
}

#[test]
fn only_what_is_included_is_captured() {
    let Some(world) = World::new() else { return };
    for (backend, _) in BACKENDS {
        let flags = [
            "--backend",
            backend,
            "--include-inbound-ports=8080",
            "--include-outbound-ip-ranges=10.96.0.0/12,fd96::/16",
            "--include-outbound-ports=81",
        ];
        let text = world.capture(&flags).succeeds();
        assert_eq!(text.matches("proven: ").count(), 4, "{text}");
    }
    world.serve();
    let (pod, outside) = (&world.pod, &world.outside);
    for (own, other) in pod.ips().into_iter().zip(outside.ips()) {
        goes(outside, APPLICATION, (own, 8080), 15006);
        goes(outside, APPLICATION, (own, 2222), 2222);
        goes(pod, APPLICATION, (service(other), 80), 15001);
        goes(pod, APPLICATION, (other, 81), 15001);
        goes(pod, APPLICATION, (other, 80), 80);
    }
}

#[test]
fn a_second_run_changes_nothing_and_other_options_replace_the_first() {
    let Some(world) = World::new() else { return };
    let empty = world.state();
    for (backend, _) in BACKENDS {
        world.capture(&["--backend", backend]).succeeds();
        let once = world.state();
        assert_ne!(once, empty);
        let text = world.capture(&["--backend", backend]).succeeds();
        assert!(text.contains("as they should be") && text.contains("proven: inbound"), "{text}");
        assert_eq!(world.state(), once);
        world.capture(&["--backend", backend, "--check"]).succeeds();

        let other = ["--backend", backend, "--exclude-inbound-ports=2222"];
        world.capture(&["--check", other[0], other[1], other[2]]).fails(126, "not as they should be");
        assert_eq!(world.state(), once);
        let text = world.capture(&other).succeeds();
        assert!(!text.contains("as they should be"), "{text}");
        assert_ne!(world.state(), once);
        // And back: nothing of the other set is left.
        world.capture(&["--backend", backend]).succeeds();
        assert_eq!(world.state(), once);

        assert!(world.capture(&["--undo"]).succeeds().contains("removed"));
        assert_eq!(world.state(), empty, "{backend}");
        assert!(world.capture(&["--undo"]).succeeds().contains("nothing to remove"));
    }
}

#[test]
fn another_packet_filter_takes_over() {
    let Some(world) = World::new() else { return };
    let mut left = Vec::new();
    for (backend, _) in BACKENDS.into_iter().chain(BACKENDS) {
        world.capture(&["--backend", backend]).succeeds();
        left.push(world.state());
    }
    // One set each time, the same in the second round as in the first.
    let marks = |state: &str| state.matches("all TCP").count();
    assert_eq!(left.iter().map(|state| marks(state)).collect::<Vec<_>>(), [2, 2, 4, 4, 2, 2, 4, 4]);
    assert_eq!(left[..4], left[4..]);
    // Left to itself it keeps what is right.
    assert!(world.capture(&[]).succeeds().contains("iptables (legacy): the rules are as they should be"));
}

#[test]
fn others_rules_are_left_alone() {
    let Some(world) = World::new() else { return };
    world.pod.sh(
        "iptables-legacy -t nat -A OUTPUT -p tcp --dport 9 -j RETURN; iptables-nft -t nat -A PREROUTING -p udp -j RETURN; \
         nft add table ip others; nft add chain ip others c",
    );
    let before = world.state();
    for (backend, _) in BACKENDS {
        world.capture(&["--backend", backend]).succeeds();
        world.capture(&["--undo"]).succeeds();
        assert_eq!(world.state(), before, "{backend}");
    }
}

#[test]
fn damage_is_found_and_repaired() {
    let Some(world) = World::new() else { return };
    let damages = [
        ("netlink", "nft flush chain inet outrigger inbound"),
        ("netlink", "nft insert rule inet outrigger outbound tcp dport 80 return"),
        ("netlink", "nft delete chain inet outrigger prerouting"),
        ("netlink", "nft delete table inet outrigger"),
        ("netlink", "ip -6 address delete ::6/128 dev lo"),
        ("nftables", "nft flush chain inet outrigger inbound"),
        ("nftables", "nft insert rule inet outrigger outbound tcp dport 80 return"),
        ("nftables", "nft delete chain inet outrigger prerouting"),
        ("iptables-nft", "iptables-nft -t nat -D OUTRIGGER_OUTBOUND 1"),
        ("iptables-nft", "ip6tables-nft -t nat -F PREROUTING"),
        ("iptables-legacy", "iptables-legacy -t nat -I OUTPUT -j ACCEPT"),
        ("iptables-legacy", "ip6tables-legacy -t nat -F OUTRIGGER_INBOUND"),
        ("nftables", "ip -6 address delete ::6/128 dev lo"),
    ];
    for (backend, damage) in damages {
        world.capture(&["--backend", backend]).succeeds();
        world.pod.sh(damage);
        world.capture(&["--backend", backend, "--check"]).fails(126, "not as they should be");
        world.capture(&["--backend", backend]).succeeds();
        world.capture(&["--backend", backend, "--check"]).succeeds();
    }
}

#[test]
fn the_proof_fails_when_the_rules_are_there_but_do_not_work() {
    let Some(world) = World::new() else { return };
    // Somebody else decides first.
    let other = |hook: &str, rule: &str| {
        let chain = format!("{{ type nat hook {hook} priority -150; policy accept; }}");
        world
            .pod
            .sh(&format!("nft 'add table inet x; add chain inet x c {chain}; add rule inet x c {rule}'"));
    };
    let cases = [
        ("meta skuid 0 ip daddr != 127.0.0.0/8 tcp dport 1-65535 redirect to :9", "outbound IPv4"),
        ("ip daddr 127.0.0.6 tcp dport 1-65535 redirect to :9", "inbound IPv4"),
        ("ip6 daddr 2001:db8::1 tcp dport 1-65535 redirect to :9", "outbound IPv6"),
        ("ip6 daddr ::6 tcp dport 1-65535 redirect to :9", "inbound IPv6"),
    ];
    for (backend, _) in BACKENDS {
        for (rule, what) in cases {
            other("output", rule);
            world.capture(&["--backend", backend]).fails(126, &format!("the rules do not work: {what}"));
            world.capture(&["--backend", backend, "--check"]).fails(126, what);
            world.capture(&["--backend", backend, "--prove=false"]).succeeds();
            world.pod.sh("nft delete table inet x");
        }
        world.capture(&["--backend", backend, "--check"]).succeeds();
    }
}

#[test]
fn a_running_sidecar_is_no_failure_when_the_rules_were_right() {
    let Some(world) = World::new() else { return };
    world.capture(&[]).succeeds();
    serve(&world.pod, 15001);
    serve(&world.pod, 15006);
    assert!(world.capture(&[]).succeeds().contains("the sidecar is running"));
    world.capture(&["--exclude-inbound-ports=1"]).fails(126, "cannot listen on 0.0.0.0:15001");
}

#[test]
fn a_dry_run_shows_and_changes_nothing() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let text = world.capture(&["--dry-run", "--exclude-inbound-ports=2222"]).succeeds();
    for part in
        ["nft -f -", "iptables-nft-restore", "ip6tables-legacy-restore", "--dport 2222", "tcp dport 2222"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(world.state(), before);
    world.capture(&["--exclude-inbound-ports=2222"]).succeeds();
    let text = world.capture(&["--dry-run", "--exclude-inbound-ports=2222"]).succeeds();
    assert!(text.contains("as they should be"), "{text}");
}

#[test]
fn a_packet_filter_that_does_not_work_is_passed_over_and_left_clean() {
    let Some(world) = World::new() else { return };
    let empty = world.state();
    let folder = tempfile::tempdir().unwrap();
    let path = format!("PATH={}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let broken = |program: &str| {
        let file = folder.path().join(program);
        std::fs::write(&file, "#!/bin/sh\necho broken >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let capture = || {
        let mut command = world.pod.command("env");
        command
            .arg(&path)
            .arg(program())
            .args(["capture", "--backend=nftables,iptables-nft,iptables-legacy"]);
        Answer::of(command.output().unwrap())
    };
    broken("nft");
    assert!(capture().succeeds().contains("iptables (nft): "));
    world.capture(&["--undo"]).succeeds();
    // IPv4 succeeds and is taken back.
    broken("ip6tables-nft-restore");
    assert!(capture().succeeds().contains("iptables (legacy): "));
    assert!(!world.pod.sh("iptables-nft-save").contains("OUTRIGGER"));
    world.capture(&["--undo"]).succeeds();
    broken("iptables-legacy-restore");
    let text = capture();
    for line in [
        "nftables: nft: broken",
        "iptables (nft): ip6tables-nft-restore: broken",
        "(legacy): iptables-legacy",
    ] {
        assert!(text.text.contains(line), "{line}\n{}", text.text);
    }
    text.fails(1, "cannot program the packet filter");
    assert_eq!(world.state(), empty);
}

#[test]
fn a_read_only_root_file_system_is_enough() {
    let Some(world) = World::new() else { return };
    for (backend, _) in BACKENDS {
        // `ip netns exec` gives it a mount namespace of its own.
        let script =
            "mount -t tmpfs -o ro none /run && mount -o remount,bind,ro / && ! touch /x && exec \"$@\"";
        let mut command = world.pod.command("sh");
        command.args(["-c", script, "sh"]).arg(program()).args(["capture", "--backend", backend]);
        let text = Answer::of(command.output().unwrap()).succeeds();
        assert!(text.contains("proven: inbound IPv4"), "{text}");
    }
}

#[test]
fn no_program_is_needed() {
    let Some(world) = World::new() else { return };
    let empty = world.state();
    let flags = ["--exclude-inbound-ports=2222"];
    let text = world.capture_without_programs(&[flags[0], "--dry-run"]).succeeds();
    assert!(text.contains("tcp dport 2222") && text.contains("::6/128 dev lo"), "{text}");
    assert_eq!(world.state(), empty);
    world.capture_without_programs(&[flags[0], "--check"]).fails(126, "not as they should be");
    let text = world.capture_without_programs(&flags).succeeds();
    assert!(text.starts_with("netlink: "), "{text}");
    assert_eq!(text.matches("proven: ").count(), 4, "{text}");
    let once = world.state();
    let text = world.capture_without_programs(&flags).succeeds();
    assert!(text.contains("as they should be"), "{text}");
    world.capture_without_programs(&[flags[0], "--check"]).succeeds();
    assert_eq!(world.state(), once);
    world.capture_without_programs(&[]).succeeds();
    assert_ne!(world.state(), once);
    assert!(world.capture_without_programs(&["--undo"]).succeeds().contains("netlink: removed"));
    assert_eq!(world.state(), empty);
}

/// Each kind of condition; and more rules than a socket sends by default.
#[test]
fn what_netlink_writes_is_what_nft_writes() {
    let Some(world) = World::new() else { return };
    let ports: Vec<String> = (20_000..22_000).map(|port| port.to_string()).collect();
    let many = format!("--exclude-inbound-ports={}", ports.join(","));
    let ranges = "10.0.0.0/8,172.16.0.0/12,192.0.2.7,fd00::/8,2001:db8::/33,2001:db8::7";
    let included = format!("--include-outbound-ip-ranges={ranges}");
    let excluded = format!("--exclude-outbound-ip-ranges={ranges}");
    let chosen = ["--exclude-interfaces=net1", "--include-inbound-ports=80", "--include-outbound-ports=81"];
    for flags in [&[many.as_str()][..], &[&included, chosen[0]], &[&excluded, chosen[1], chosen[2]]] {
        let state = |backend| {
            world.capture(&[&["--backend", backend, "--prove=false"], flags].concat()).succeeds();
            let state = world.state();
            // Either reads what the other made.
            for backend in ["netlink", "nftables"] {
                world.capture(&[&["--backend", backend, "--check"], flags].concat()).succeeds();
            }
            world.capture(&["--undo"]).succeeds();
            state
        };
        assert_eq!(state("netlink"), state("nftables"));
    }
}

#[test]
fn what_is_missing_is_said() {
    let Some(world) = World::new() else { return };
    let unprivileged = world
        .pod
        .command("setpriv")
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
        .arg(program())
        .arg("capture")
        .output()
        .unwrap();
    Answer::of(unprivileged).fails(1, "no CAP_NET_ADMIN");
    for (backend, _) in &BACKENDS[1..] {
        world.capture_without_programs(&["--backend", backend]).fails(1, "--backend needs a program");
    }
    // Root of another user namespace than the pod's.
    let stranger = world.pod.command("unshare").arg("-Ur").arg(program()).arg("capture").output().unwrap();
    Answer::of(stranger).fails(1, "netlink: the transaction: Operation not permitted");
    world.capture(&["--exclude-inbound-ports=http"]).fails(2, "'http' is not a port");
    world.capture(&["--inbound-port=15001"]).fails(1, "both 15001");
    // No packet filter takes rules for an interface with such a name, nor do we hand it on.
    world.capture(&["--exclude-interfaces=eth0;x"]).fails(2, "not the name");
}

#[test]
fn a_pod_without_ipv6_is_captured_and_proven_for_ipv4() {
    let Some(world) = World::new() else { return };
    world.pod.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    for (backend, _) in BACKENDS {
        let text = world.capture(&["--backend", backend]).succeeds();
        assert!(text.contains("proven: inbound IPv4") && !text.contains("IPv6"), "{text}");
    }
    world.serve();
    goes(&world.outside, APPLICATION, (world.pod.v4.into(), 8080), 15006);
    goes(&world.pod, APPLICATION, (world.outside.v4.into(), 80), 15001);
}
