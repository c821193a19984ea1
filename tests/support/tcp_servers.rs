//! Real servers of TCP protocols in a [`Pod`](crate::pods::Pod), each as the user that its package made (Kafka's has none), with its data in a folder that
//! goes with the value. They listen on every IPv4 address, on their well-known ports.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::pods::Pod;
use crate::tools::{repository, require_tool};
use crate::wait;

/// How long a server may take to listen: RabbitMQ needs some seconds of an idle core.
const START: Duration = Duration::from_secs(40);

/// Starts servers in one pod.
#[derive(Debug)]
pub struct TcpServers<'a> {
    pod: &'a Pod,
    setpriv: PathBuf,
    folder: TempDir,
    running: Vec<Child>,
}

impl<'a> TcpServers<'a> {
    /// None yet; `None`: a program is missing, and the calling test has been reported as skipped.
    #[track_caller]
    pub fn new(pod: &'a Pod) -> Option<Self> {
        let setpriv = require_tool("setpriv")?;
        let folder = tempfile::tempdir().expect("temporary folder");
        // Each server makes its own folder in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        Some(TcpServers { pod, setpriv, folder, running: Vec::new() })
    }

    /// Redis on 6379.
    #[track_caller]
    pub fn redis(&mut self) -> Option<()> {
        let mut server = self.command("redis", require_tool("redis-server")?);
        server.args(["--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
        self.start("redis", server);
        Some(())
    }

    /// memcached on 11211.
    #[track_caller]
    pub fn memcached(&mut self) -> Option<()> {
        let mut server = self.command("memcache", require_tool("memcached")?);
        server.args(["-l", "0.0.0.0", "-U", "0", "-t", "1"]);
        self.start("memcached", server);
        Some(())
    }

    /// PostgreSQL on 5432, open to everybody as `postgres`.
    #[track_caller]
    pub fn postgres(&mut self) -> Option<()> {
        let data = self.folder.path().join("postgres");
        let mut init = self.command("postgres", require_tool("initdb")?);
        init.arg("-D").arg(&data).args(["-A", "trust", "--locale", "C", "-E", "UTF8", "--no-sync"]);
        let output = init.output().expect("run initdb");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut access = File::options().append(true).open(data.join("pg_hba.conf")).expect("pg_hba.conf");
        access.write_all(b"host all all all trust\n").expect("write pg_hba.conf");
        let mut server = self.command("postgres", require_tool("postgres")?);
        server.arg("-D").arg(&data).arg("-k").arg(&data).args(["-h", "0.0.0.0", "-F"]);
        self.start("postgres", server);
        Some(())
    }

    /// RabbitMQ on 5672, with Erlang's port mapper beside it, which would start one that stays otherwise.
    #[track_caller]
    pub fn rabbitmq(&mut self) -> Option<()> {
        require_tool("rabbitmq-server")?;
        let folder = self.folder.path().to_owned();
        let conf = folder.join("rabbitmq.conf");
        fs::write(&conf, "loopback_users = none\nlisteners.tcp.default = 0.0.0.0:5672\n")
            .expect("configuration");
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o644)).expect("permissions");
        let mapper = self.command("rabbitmq", require_tool("epmd")?);
        self.start("epmd", mapper);
        self.wait_listening("epmd", 4369);
        // Debian's wrapper on the PATH ignores the environment.
        let mut server = self.command("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server".into());
        server
            .current_dir(&folder)
            .env("HOME", &folder)
            .env("RABBITMQ_NODENAME", "rabbit@localhost")
            .env("RABBITMQ_CONFIG_FILE", &conf)
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("generated"))
            .env("RABBITMQ_PID_FILE", folder.join("rabbitmq.pid"))
            .env("RABBITMQ_LOGS", "-")
            // The virtual machine takes the script's place, so that it gets the signals.
            .env("RUNNING_UNDER_SYSTEMD", "1");
        self.start("rabbitmq", server);
        Some(())
    }

    /// Kafka: `advertised` are ports and the address that clients of each are told, with nine characters.
    #[track_caller]
    pub fn kafka(&mut self, advertised: &[(u16, Ipv4Addr)]) -> Option<()> {
        let mut server = self.command("root", require_tool("kafka-python")?);
        server.arg(repository().join("tests/support/kafka/broker.py"));
        server.args(advertised.iter().map(|(port, host)| format!("{port}={host}")));
        self.start("kafka", server);
        Some(())
    }

    /// Waits until a server listens.
    #[track_caller]
    pub fn wait_listening(&self, name: &str, port: u16) {
        let listens = || self.pod.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop));
        if wait::within(START, listens).is_none() {
            let log = fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
            panic!("{name} does not listen on {port}:\n{log}");
        }
    }

    fn command(&self, user: &str, program: PathBuf) -> Command {
        let mut command = self.pod.net.command(&self.setpriv);
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
        command.current_dir(self.folder.path());
        command
    }

    #[track_caller]
    fn start(&mut self, name: &str, mut server: Command) {
        let log = File::create(self.folder.path().join(format!("{name}.log"))).expect("log file");
        let child = server
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        self.running.push(child);
    }
}

impl Drop for TcpServers<'_> {
    fn drop(&mut self) {
        // SIGQUIT is PostgreSQL's immediate shutdown, which leaves no shared memory behind; the others know no better than SIGKILL.
        for signal in [Signal::QUIT, Signal::KILL] {
            for server in &self.running {
                if let Some(group) = Pid::from_raw(server.id().cast_signed()) {
                    let _ = kill_process_group(group, signal);
                }
            }
            let ended = |server: &mut Child| !matches!(server.try_wait(), Ok(None));
            let _ = wait::within(Duration::from_secs(2), || self.running.iter_mut().all(ended).then_some(()));
        }
    }
}
