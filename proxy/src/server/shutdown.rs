//! The end: signals and orders from outside; drain what there is, then stop. A plain proxy drains as Envoy does, both ways at once;
//! a sidecar as its pod needs it (`sidecar_drain`).

use std::sync::PoisonError;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::sidecar_drain::{Ending, tick};
use super::{Event, Server};
use crate::admin::Drain;
use crate::worker::Command;

/// How often the end of the last connection is looked for.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How long access logs may take to be written at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

impl Server {
    /// Turns signals into events: `SIGTERM` drains and ends, a second one or `SIGINT` ends at once, `SIGUSR1` opens access logs
    /// anew.
    ///
    /// # Errors
    /// The runtime has no signal driver.
    pub fn handle_signals(&mut self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut reopen = signal(SignalKind::user_defined1())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let view = self.view.clone();
        self.tasks.push(tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {
                        tracing::warn!(target: "main", "caught SIGTERM");
                        view.send(Event::Shutdown);
                    }
                    _ = interrupt.recv() => {
                        tracing::warn!(target: "main", "caught SIGINT");
                        view.send(Event::Quit);
                    }
                    _ = reopen.recv() => view.configuration().read(|c| c.inputs().log_files.reopen()),
                    // As in Envoy: a lost terminal ends nothing.
                    _ = hang_up.recv() => tracing::warn!(target: "main", "caught SIGHUP: ignored"),
                }
            }
        }));
        Ok(())
    }

    /// Runs until the process is to end, and ends everything.
    pub async fn run(mut self) {
        let mut ending: Option<Ending> = None;
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = tick(ending.as_ref()) => {
                    if ending.as_ref().is_some_and(|ending| self.is_ended(ending)) {
                        break;
                    }
                    continue;
                }
            };
            match (event, self.sidecar_drain) {
                (Some(Event::DrainListeners(drain)), _) => self.drain_listeners(drain),
                (Some(Event::Drain), Some(settings)) => {
                    ending.get_or_insert_with(|| self.begin_ending(settings));
                }
                (Some(Event::Shutdown), Some(settings)) => {
                    let ending = ending.get_or_insert_with(|| self.begin_ending(settings));
                    if ending.is_terminating() {
                        break;
                    }
                    ending.terminate(Instant::now());
                }
                (Some(Event::Drain), None) => {}
                (Some(Event::Shutdown), None) => {
                    self.shutdown().await;
                    break;
                }
                (Some(Event::Quit) | None, _) => break,
            }
        }
        self.stop();
    }

    /// Drains: nothing new is taken, connections end after what they are doing. Ends when the last one is gone, when the drain time
    /// is over, or when somebody asks again.
    async fn shutdown(&mut self) {
        self.sources.iter().for_each(tokio::task::JoinHandle::abort);
        self.set_draining();
        let names = self.view.listener_names(false);
        for name in &names {
            self.tell_all(|| Command::StopListening { name: name.clone() });
        }
        self.view.configuration().update(|c| c.close_sockets(&names));
        self.tell_all(|| Command::Drain);
        let deadline = Instant::now() + self.drain_time;
        tracing::info!(
            target: "main",
            "draining {} connections, for {:?} at the longest", self.active_connections(), self.drain_time
        );
        loop {
            if self.active_connections() == 0 {
                tracing::info!(target: "main", "drained");
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => {
                    warn_late(self.active_connections());
                    return;
                }
                () = sleep(DRAIN_POLL) => {}
                event = self.events.recv() => match event {
                    Some(Event::DrainListeners(_) | Event::Drain) => {}
                    Some(Event::Quit | Event::Shutdown) | None => return,
                },
            }
        }
    }

    /// `/drain_listeners`: the process goes on.
    fn drain_listeners(&mut self, drain: Drain) {
        let names = self.view.listener_names(drain.inbound_only);
        let chains = self.view.chain_ids(drain.inbound_only);
        if drain.graceful {
            self.tell_all(|| Command::DrainChains { gone: chains.clone() });
        }
        if drain.graceful && drain.skip_exit {
            return;
        }
        let delay = if drain.graceful { self.drain_time } else { Duration::ZERO };
        let (workers, view) = (self.workers.clone(), self.view.clone());
        self.tasks.push(tokio::spawn(async move {
            sleep(delay).await;
            view.configuration().update(|c| c.close_sockets(&names));
            for worker in workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                for name in &names {
                    worker.send(Command::StopListening { name: name.clone() });
                }
                worker.send(Command::DrainChains { gone: chains.clone() });
            }
        }));
    }

    fn stop(self) {
        for task in self.sources.iter().chain(&self.tasks) {
            task.abort();
        }
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in &workers {
            worker.send(Command::Exit);
        }
        for worker in workers {
            worker.join();
        }
        self.view.configuration().read(|c| c.inputs().log_files.flush(LOG_FLUSH));
        tracing::info!(target: "main", "exiting");
    }
}

pub(super) fn warn_late(connections: usize) {
    tracing::warn!(target: "main", "{connections} connections are left at the end of the drain time");
}
