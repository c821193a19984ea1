//! Pods as network namespaces: each with a veth to one bridge, IPv4 and IPv6, and a default route into nowhere, so that
//! addresses that nobody owns can be dialled. Everything is made by the test and removed with the value, under names of its own.
//!
//! Needs root. What runs in a pod is a child process ([`NetPod::command`]) or a closure on a thread of its own
//! ([`NetPod::enter`]): a socket stays in the namespace in which it was made, whichever thread uses it later.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{Gid, LinkNameSpaceType, Uid, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tools::{require_tool, skip};

/// A bridge and the pods on it.
#[derive(Debug)]
pub struct Network {
    ip: PathBuf,
    /// Begins the name of each namespace.
    prefix: String,
    pods: u8,
}

/// A pod: a network namespace with an interface `eth0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetPod {
    /// Name of the namespace.
    pub name: String,
    /// 10.77.0.0/24.
    pub v4: Ipv4Addr,
    /// `fd77::/64`.
    pub v6: Ipv6Addr,
    ip: PathBuf,
}

/// Ours, as both families' default gateway: the bridge.
const GATEWAY_V4: &str = "10.77.0.254";
const GATEWAY_V6: &str = "fd77::ff";

impl Network {
    /// An empty network; `None` without root or `ip`, and then the calling test has been reported as skipped.
    #[track_caller]
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        let ip = require_tool("ip")?;
        let prefix = format!("ogt-{}-{:04x}", std::process::id(), fastrand::u16(..));
        let network = Network { ip, prefix, pods: 0 };
        let switch = network.switch();
        network.ip(&["netns", "add", &switch]);
        let in_switch = |args: &str| network.ip(&words(&format!("-n {switch} {args}")));
        in_switch("link add br0 type bridge");
        in_switch("link set br0 up");
        in_switch(&format!("address add {GATEWAY_V4}/24 dev br0"));
        in_switch(&format!("address add {GATEWAY_V6}/64 dev br0 nodad"));
        Some(network)
    }

    /// One more pod.
    pub fn pod(&mut self) -> NetPod {
        self.pods += 1;
        let (number, switch) = (self.pods, self.switch());
        let pod = NetPod {
            name: format!("{}-{number}", self.prefix),
            v4: Ipv4Addr::new(10, 77, 0, number),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()),
            ip: self.ip.clone(),
        };
        let (name, v4, v6) = (&pod.name, pod.v4, pod.v6);
        self.ip(&["netns", "add", name]);
        self.ip(&words(&format!("-n {name} link add eth0 type veth peer name pod{number} netns {switch}")));
        self.ip(&words(&format!("-n {switch} link set pod{number} master br0 up")));
        for args in [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("address add {v4}/24 dev eth0"),
            // Without duplicate detection the address can be used at once.
            format!("address add {v6}/64 dev eth0 nodad"),
            format!("route add default via {GATEWAY_V4}"),
            format!("-6 route add default via {GATEWAY_V6}"),
        ] {
            pod.ip(&args);
        }
        pod
    }

    /// A command on the switch, where everything passes that goes to no pod's own address.
    pub fn gateway_command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.switch()]).arg(program.into());
        command
    }

    /// Records every frame between pods from now on.
    ///
    /// # Panics
    /// When the kernel has no packet sockets.
    pub fn sniff(&self) -> Sniffer {
        // `ETH_P_ALL` in network order, as the kernel wants a packet socket's protocol.
        let all = Protocol::from(i32::from(3u16.to_be()));
        let socket = enter(&self.switch(), 0, || {
            Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("packet socket")
        });
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("read timeout");
        socket.set_recv_buffer_size(16 << 20).expect("receive buffer");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let recorder = thread::spawn(move || {
            let (mut frames, mut frame) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match (&socket).read(&mut frame) {
                    Ok(n) => frames.extend_from_slice(&frame[..n]),
                    // Nothing is under way any more.
                    Err(_) if stopped.load(Ordering::Acquire) => return frames,
                    Err(_) => {}
                }
            }
        });
        Sniffer { stop, recorder }
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    fn ip(&self, args: &[&str]) {
        run(Command::new(&self.ip).args(args));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let pods = (1..=self.pods).map(|number| format!("{}-{number}", self.prefix));
        for name in pods.chain([self.switch()]) {
            let _ = Command::new(&self.ip).args(["netns", "delete", &name]).status();
        }
    }
}

/// A recording of frames.
#[derive(Debug)]
pub struct Sniffer {
    stop: Arc<AtomicBool>,
    recorder: thread::JoinHandle<Vec<u8>>,
}

impl Sniffer {
    /// Ends the recording and gives all frames, one after the other.
    ///
    /// # Panics
    /// When the recorder did.
    pub fn finish(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Release);
        self.recorder.join().expect("the recorder")
    }
}

impl NetPod {
    /// Both addresses.
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// `ip -n POD` with these arguments, separated by spaces.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ip(&self, args: &str) -> String {
        run(Command::new(&self.ip).args(["-n", &self.name]).args(words(args)))
    }

    /// A command that will run in the pod.
    pub fn command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.name]).arg(program.into());
        command
    }

    /// A shell command in the pod; what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        run(self.command("sh").args(["-c", script]).process_group(0))
    }

    /// Runs `f` in the pod as this user, and group of the same number.
    ///
    /// # Panics
    /// When `f` does, or the kernel does not allow it.
    #[track_caller]
    pub fn enter<T: Send>(&self, user: u32, f: impl FnOnce() -> T + Send) -> T {
        enter(&self.name, user, f)
    }
}

#[track_caller]
fn enter<T: Send>(namespace: &str, user: u32, f: impl FnOnce() -> T + Send) -> T {
    let namespace = std::fs::File::open(format!("/run/netns/{namespace}")).expect("open the namespace");
    let run = || {
        // These change the calling thread alone, which ends here.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("enter the namespace");
        rustix::thread::set_thread_gid(Gid::from_raw(user)).expect("change the group");
        rustix::thread::set_thread_uid(Uid::from_raw(user)).expect("change the user");
        f()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
