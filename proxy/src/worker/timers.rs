//! Timers of requests.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// Reusable timers. A timer that is given back stays armed, and moving an armed timer further away is nearly free: so a request
/// pays neither for registering nor for cancelling one.
#[derive(Debug, Default)]
pub struct Timers {
    free: Rc<RefCell<Vec<Pin<Box<Sleep>>>>>,
}

/// More free timers than this are dropped.
const MAX_FREE_TIMERS: usize = 256;

/// One timer in use.
#[derive(Debug)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    free: Rc<RefCell<Vec<Pin<Box<Sleep>>>>>,
}

impl Timers {
    /// A timer for this moment.
    pub fn start(&self, at: Instant) -> Timer {
        let at = at.into();
        let sleep = match self.free.borrow_mut().pop() {
            Some(mut sleep) => {
                sleep.as_mut().reset(at);
                sleep
            }
            None => Box::pin(tokio::time::sleep_until(at)),
        };
        Timer { sleep: Some(sleep), free: self.free.clone() }
    }

    /// Waits this long.
    pub async fn wait(&self, duration: Duration) {
        let mut timer = self.start(Instant::now() + duration);
        poll_fn(|cx| if timer.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Timer {
    /// Whether the moment has come; otherwise the task is woken then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(sleep) = self.sleep.take()
            && let Ok(mut free) = self.free.try_borrow_mut()
            && free.len() < MAX_FREE_TIMERS
        {
            free.push(sleep);
        }
    }
}
