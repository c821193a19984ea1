//! A whole proxy as a child process: ours or a real Envoy, started on the same file.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bootstrap::Bootstrap;
use crate::client::RawClient;
use crate::message::Response;
use crate::prometheus::Scrape;
use crate::tools::require_tool;
use crate::wait::{PATIENCE, within};

/// Which proxy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `outrigger-proxy`.
    Outrigger,
    /// A real Envoy.
    Envoy,
}

impl Engine {
    /// The program; `None` when Envoy is not installed, and then the calling test has been reported as skipped. The
    /// variable OUTRIGGER_PROXY names another program to be tested as ours.
    ///
    /// # Panics
    /// When our own binary has not been built.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Engine::Outrigger => Some(match env::var_os("OUTRIGGER_PROXY") {
                Some(file) => PathBuf::from(file),
                None => binary("outrigger-proxy"),
            }),
            Engine::Envoy => require_tool("envoy"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Outrigger => "outrigger",
            Engine::Envoy => "envoy",
        })
    }
}

/// One of our programs: from the folder OUTRIGGER_BIN_DIR, else the newest build beside the running test.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let folders = match env::var_os("OUTRIGGER_BIN_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => ["debug", "release"].map(|profile| target_folder().join(profile)).into(),
    };
    let built = |folder: &PathBuf| fs::metadata(folder.join(name)).and_then(|file| file.modified()).ok();
    let newest = folders.iter().filter(|folder| built(folder).is_some()).max_by_key(|folder| built(folder));
    newest
        .unwrap_or_else(|| panic!("`{name}` is not in {folders:?}; run `cargo build --workspace --bins`"))
        .join(name)
}

/// One of our programs in the release profile, which measures need; `None` when it has not been built.
pub fn release_binary(name: &str) -> Option<PathBuf> {
    let file = target_folder().join("release").join(name);
    file.is_file().then_some(file)
}

/// Where cargo builds: a test runs as `target/PROFILE/deps/NAME`.
fn target_folder() -> PathBuf {
    let test = env::current_exe().expect("path of the running test");
    test.ancestors().nth(3).expect("a folder of cargo").to_owned()
}

/// How to start a proxy.
#[derive(Clone, Debug)]
pub struct Launch {
    engine: Engine,
    workers: u32,
    args: Vec<OsString>,
    envs: Vec<(String, String)>,
    max_open_files: Option<u32>,
    program: Option<PathBuf>,
    wrapper: Vec<OsString>,
}

impl Launch {
    /// This engine with one worker.
    pub fn new(engine: Engine) -> Self {
        Launch {
            engine,
            workers: 1,
            args: Vec::new(),
            envs: Vec::new(),
            max_open_files: None,
            program: None,
            wrapper: Vec::new(),
        }
    }

    /// So many workers.
    #[must_use]
    pub fn workers(mut self, number: u32) -> Self {
        self.workers = number;
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Limits the number of open file descriptors.
    #[must_use]
    pub fn max_open_files(mut self, limit: u32) -> Self {
        self.max_open_files = Some(limit);
        self
    }

    /// Runs this program instead of the engine's own.
    #[must_use]
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// Runs the program under another one, such as valgrind; these are its path and arguments. The process of the
    /// [`Proxy`] is then that one: end it by [`Proxy::quit`].
    #[must_use]
    pub fn under(mut self, wrapper: &[&OsStr]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The command on `file`, without starting it; `None` as [`Engine::program`].
    pub fn command(&self, file: &Path) -> Option<Command> {
        let program = self.program.clone().or_else(|| self.engine.program())?;
        let mut words = self.wrapper.clone();
        if let Some(limit) = self.max_open_files {
            let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
            words.extend(["sh", "-c", &script].map(OsString::from));
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        if !self.wrapper.is_empty() {
            // With it the program does not start itself again, where the tool would lose it.
            command.env("MIMALLOC_PURGE_DELAY", "0");
        }
        command.args(&words[1..]);
        command
            .arg("-c")
            .arg(file)
            .args(["--concurrency", &self.workers.to_string(), "--disable-hot-restart"])
            .args(&self.args);
        command.envs(self.envs.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        Some(command)
    }

    /// Starts the proxy and waits until it says that it is ready; `None` as [`Engine::program`].
    ///
    /// # Panics
    /// When it ends or does not get ready: with what it wrote.
    #[track_caller]
    pub fn start(&self, bootstrap: &Bootstrap) -> Option<Proxy> {
        let proxy = self.spawn(bootstrap)?;
        match proxy.wait_ready() {
            Ok(proxy) => Some(proxy),
            Err(reason) => panic!("{}: {reason}", self.engine),
        }
    }

    /// Starts the proxy and does not wait; `None` as [`Engine::program`].
    #[track_caller]
    pub fn spawn(&self, bootstrap: &Bootstrap) -> Option<Proxy> {
        let mut command = self.command(&bootstrap.file())?;
        let output = |kind: &str| bootstrap.path(&format!("{}.{kind}", self.engine));
        let (stdout, stderr) = (output("stdout"), output("stderr"));
        command
            .stdout(File::create(&stdout).expect("log file"))
            .stderr(File::create(&stderr).expect("log file"));
        command.current_dir(bootstrap.folder());
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Some(Proxy {
            engine: self.engine,
            child,
            admin: bootstrap.admin,
            stdout,
            stderr,
            wrapped: !self.wrapper.is_empty(),
        })
    }

    /// Runs the command until it ends by itself, as with `--mode validate`, at most [`PATIENCE`].
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn run(&self, bootstrap: &Bootstrap) -> Option<Ended> {
        let mut proxy = self.spawn(bootstrap)?;
        let status = proxy.wait_exit(PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{} did not end:\n{}", self.engine, proxy.stderr()));
        Some(Ended { code: status.code(), stdout: proxy.stdout(), stderr: proxy.stderr() })
    }
}

/// How a proxy ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    engine: Engine,
    child: Child,
    admin: SocketAddr,
    stdout: PathBuf,
    stderr: PathBuf,
    wrapped: bool,
}

impl Proxy {
    /// Starts `engine` on `bootstrap`; see [`Launch::start`].
    #[track_caller]
    pub fn start(engine: Engine, bootstrap: &Bootstrap) -> Option<Proxy> {
        Launch::new(engine).start(bootstrap)
    }

    /// Starts our proxy on `bootstrap`.
    #[track_caller]
    pub fn outrigger(bootstrap: &Bootstrap) -> Proxy {
        Launch::new(Engine::Outrigger).start(bootstrap).expect("our own program")
    }

    /// Takes over a process of ours that was started by hand.
    pub(crate) fn adopt(child: Child, admin: SocketAddr, stdout: PathBuf, stderr: PathBuf) -> Self {
        Proxy { engine: Engine::Outrigger, child, admin, stdout, stderr, wrapped: false }
    }

    fn wait_ready(mut self) -> Result<Proxy, String> {
        // Under valgrind all is some fifty times slower.
        let limit = if self.wrapped { 10 * PATIENCE } else { PATIENCE };
        let ready = within(limit, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(format!("ended with {status}")));
            }
            self.try_admin("GET", "/ready").is_ok_and(|response| response.status == 200).then_some(Ok(()))
        });
        match ready.unwrap_or_else(|| Err("not ready".into())) {
            Ok(()) => Ok(self),
            Err(reason) => Err(format!("{reason}; it wrote:\n{}{}", self.stdout(), self.stderr())),
        }
    }

    /// The admin listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The answer of the admin listener to a `GET`.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Response {
        self.try_admin("GET", path).unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.stderr()))
    }

    /// The answer of the admin listener to a `POST`.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn admin_post(&self, path: &str) -> Response {
        self.try_admin("POST", path).unwrap_or_else(|error| panic!("POST {path}: {error}\n{}", self.stderr()))
    }

    /// The answer of the admin listener.
    ///
    /// # Errors
    /// No connection or no whole answer.
    pub fn try_admin(&self, method: &str, path: &str) -> io::Result<Response> {
        let mut client = RawClient::connect(self.admin)?;
        let head = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n");
        client.send(format!("{head}content-length: 0\r\n\r\n").as_bytes());
        client.response()
    }

    /// `/stats/prometheus`, parsed.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&self.admin("/stats/prometheus").text()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// One counter or gauge of `/stats`; `None` when it is not there.
    #[track_caller]
    pub fn stat(&self, name: &str) -> Option<u64> {
        let text = self.admin("/stats").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        value.trim().parse().ok()
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    /// Number of open file descriptors.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a running process").count()
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        let _ = kill_process(pid, Signal::TERM);
    }

    /// Waits for the end; `None` when it does not come within `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        within(limit, || self.child.try_wait().ok().flatten())
    }

    /// Asks the admin listener to end the process and waits for that.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn quit(mut self) -> ExitStatus {
        let _ = self.try_admin("POST", "/quitquitquit");
        let status = self.wait_exit(10 * PATIENCE);
        status.unwrap_or_else(|| panic!("{} does not quit:\n{}", self.engine, self.stderr()))
    }

    /// Sends SIGTERM and waits for the end, so that the logs are whole.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        let status = self.wait_exit(PATIENCE);
        status.unwrap_or_else(|| panic!("{} ignores SIGTERM:\n{}", self.engine, self.stderr()))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
