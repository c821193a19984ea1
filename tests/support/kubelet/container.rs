//! One running container: a process of ours, or a program of the test on threads in the pod's network.

use std::fmt;
use std::fs::File;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::sandbox::{Sandbox, list, text};
use crate::pods::APPLICATION;
use crate::wait;

/// What a server of a test does at SIGTERM; it has ended when this returns.
pub type End = Box<dyn FnOnce() + Send + Sync>;

/// What an image of a test does, as the application's user in the pod's network. Its argument tells of the pod.
#[derive(Clone)]
pub enum Program {
    /// Starts, and serves until it is told to end.
    Server(Arc<dyn Fn(&Sandbox) -> End + Send + Sync>),
    /// Runs to its end: the exit code.
    Task(Arc<dyn Fn(&Sandbox) -> i32 + Send + Sync>),
    /// A program of this machine.
    Binary {
        /// It and its first arguments, for containers without a command.
        entrypoint: Vec<String>,
        /// Its user and group, for containers without one.
        user: u32,
    },
}

impl Program {
    /// A server.
    pub fn server(start: impl Fn(&Sandbox) -> End + Send + Sync + 'static) -> Self {
        Program::Server(Arc::new(start))
    }

    /// A task.
    pub fn task(run: impl Fn(&Sandbox) -> i32 + Send + Sync + 'static) -> Self {
        Program::Task(Arc::new(run))
    }

    /// A program of this machine, as this user.
    pub fn binary(entrypoint: &[&str], user: u32) -> Self {
        Program::Binary { entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(), user }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Program::Server(_) => "Server",
            Program::Task(_) => "Task",
            Program::Binary { .. } => "Binary",
        })
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// Its time was over.
    Killed,
}

/// A started container.
pub(super) struct Container {
    /// As the Pod describes it.
    pub(super) spec: Value,
    state: State,
}

enum State {
    Process(Child),
    Server(Option<End>),
    /// A server that ends, or a task.
    Thread(Option<JoinHandle<i32>>),
    Ended(Exit),
}

impl Container {
    /// Starts a container; `program` is what its image is, when it is the test's.
    pub(super) fn start(sandbox: &Sandbox, spec: &Value, program: Option<&Program>) -> Self {
        let state = match program.cloned() {
            Some(Program::Server(start)) => {
                State::Server(Some(sandbox.net.enter(APPLICATION, || start(sandbox))))
            }
            Some(Program::Task(run)) => {
                let sandbox = sandbox.clone();
                let run = move || sandbox.net.enter(APPLICATION, || run(&sandbox));
                State::Thread(Some(thread::spawn(run)))
            }
            Some(Program::Binary { .. }) | None => {
                let words = |field: &str| list(&spec[field]).iter().map(|word| text(word).to_owned());
                let program: Vec<String> = words("command").chain(words("args")).collect();
                let name = text(&spec["name"]);
                let log = File::options().append(true).create(true).open(sandbox.log_file(name));
                let log = log.expect("log file");
                let child = sandbox
                    .command(spec, &program)
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("log file"))
                    .stderr(log)
                    .spawn();
                State::Process(child.unwrap_or_else(|error| panic!("start {name}: {error}")))
            }
        };
        Container { spec: spec.clone(), state }
    }

    pub(super) fn name(&self) -> &str {
        text(&self.spec["name"])
    }

    /// How it ended, once it has.
    pub(super) fn exit(&mut self) -> Option<Exit> {
        let ended = match &mut self.state {
            State::Process(child) => {
                let status = child.try_wait().expect("state of a container")?;
                status.code().map_or(Exit::Killed, Exit::Code)
            }
            State::Server(_) => return None,
            State::Thread(thread) => {
                let ended = thread.take_if(|thread| thread.is_finished())?;
                Exit::Code(ended.join().unwrap_or(134))
            }
            State::Ended(exit) => *exit,
        };
        self.state = State::Ended(ended);
        Some(ended)
    }

    /// SIGTERM, then SIGKILL after `grace`.
    pub(super) fn terminate(&mut self, grace: Duration) -> Exit {
        match &mut self.state {
            State::Process(child) => {
                if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    // It may have ended already.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            State::Server(end) => {
                let end = end.take();
                let ending = thread::spawn(move || {
                    if let Some(end) = end {
                        end();
                    }
                    0
                });
                self.state = State::Thread(Some(ending));
            }
            State::Thread(_) | State::Ended(_) => {}
        }
        wait::within(grace, || self.exit()).unwrap_or_else(|| {
            self.kill();
            Exit::Killed
        })
    }

    /// SIGKILL. Threads of the test cannot be killed; they are left alone.
    pub(super) fn kill(&mut self) {
        if let State::Process(child) = &mut self.state {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.state = State::Ended(Exit::Killed);
    }
}

/// Runs a hook of a container's `lifecycle`, if it has it.
pub(super) fn hook(sandbox: &Sandbox, container: &Value, name: &str) -> Result<(), String> {
    let hook = &container["lifecycle"][name];
    if let Some(seconds) = hook["sleep"]["seconds"].as_u64() {
        thread::sleep(Duration::from_secs(seconds));
    }
    let command = list(&hook["exec"]["command"]);
    if command.is_empty() {
        return Ok(());
    }
    let command: Vec<String> = command.iter().map(|word| text(word).to_owned()).collect();
    let output = sandbox.command(container, &command).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").field(&self.spec["name"]).finish()
    }
}
