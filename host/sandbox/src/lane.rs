//! The slow lane: executions that compute for longer than a few epochs go on beside the others, behind them.
//!
//! An execution is polled where its caller is, so that a short one costs no hop to another thread. One that computes would keep
//! everybody else from that thread for an epoch at a time: on a machine of two processors, two such guests of one tenant are
//! enough to make each call of another wait. So an execution that was interrupted twice is moved, as it is, to threads of lower
//! priority, where the system gives it what the others leave. What it computes, and the fuel it takes, is the same.
//!
//! Many short executions keep others waiting as one long one does. So where several tenants are at work, those of a tenant that
//! took more than its part lately begin in the lane. A tenant that is alone never notices.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::fault::HostFault;

/// Epochs that an execution may compute in its caller's place: the first may be over right after it began.
const EPOCHS_IN_PLACE: u32 = 2;
/// What the lane's threads are more patient than the others, in steps of `nice`: they get about a tenth of the processor
/// where the others want it too, and all of it where they do not.
const NICE: i32 = 10;

/// What the use of the processor is counted over.
const WINDOW: Duration = Duration::from_millis(100);
/// Use of one window from which on a tenant takes more than its part: a third of one processor.
const HEAVY: Duration = Duration::from_millis(33);

/// What the executions of one tenant took of the processor lately.
#[derive(Debug)]
pub(crate) struct Load {
    since: Instant,
    uses: Mutex<Uses>,
}

/// Use of the current window and of the one before it.
#[derive(Debug, Default, Clone, Copy)]
struct Uses {
    window: u128,
    current: Duration,
    before: Duration,
}

impl Uses {
    fn at(self, window: u128) -> Self {
        match window.saturating_sub(self.window) {
            0 => self,
            1 => Self { window, current: Duration::ZERO, before: self.current },
            _ => Self { window, ..Self::default() },
        }
    }
}

impl Load {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), uses: Mutex::default() }
    }

    fn window(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.since).as_millis() / WINDOW.as_millis()
    }

    fn add(&self, now: Instant, used: Duration) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        *uses = uses.at(self.window(now));
        uses.current += used;
    }

    /// Whether the tenant took more than its part.
    pub(crate) fn is_heavy(&self, now: Instant) -> bool {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner).at(self.window(now));
        uses.current.max(uses.before) >= HEAVY
    }
}

/// Work whose use of the processor is counted, wherever it is polled.
struct Counted<F> {
    work: F,
    load: Arc<Load>,
}

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let began = Instant::now();
        let polled = Pin::new(&mut self.work).poll(context);
        let now = Instant::now();
        self.load.add(now, now.saturating_duration_since(began));
        polled
    }
}

/// How often one execution was interrupted because it computed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace(Arc<AtomicU32>);

impl Pace {
    /// An epoch ended while the guest computed.
    pub(crate) fn interrupted(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn is_slow(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= EPOCHS_IN_PLACE
    }
}

/// The lane of one sandbox. Its threads exist from the first slow execution on.
#[derive(Debug, Default)]
pub(crate) struct SlowLane(OnceLock<Option<Runtime>>);

impl SlowLane {
    /// Do the work in place for as long as its `pace` allows, then in the lane; in the lane from the start if it is to be
    /// `behind` the others. Dropping the future drops the work.
    ///
    /// # Errors
    /// The work panicked in the lane.
    pub(crate) async fn attend<T: Send + 'static>(
        &self,
        pace: &Pace,
        load: &Arc<Load>,
        behind: bool,
        work: Pin<Box<impl Future<Output = Result<T, HostFault>> + Send + 'static>>,
    ) -> Result<T, HostFault> {
        let mut work = Counted { work, load: Arc::clone(load) };
        if !behind {
            let begun = poll_fn(|context| match Pin::new(&mut work).poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if pace.is_slow() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            if let Some(done) = begun.await {
                return done;
            }
        }
        match self.0.get_or_init(runtime) {
            Some(lane) => Moved(lane.spawn(work)).await,
            None => work.await,
        }
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The lane's threads; nothing if the system gives none, and then everything is done in place.
fn runtime() -> Option<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let built = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("slow-lane")
        .on_thread_start(|| {
            // On Linux the priority of "this process" is that of the calling thread.
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "a thread of the slow lane keeps its priority");
            }
        })
        .enable_all()
        .build();
    built.inspect_err(|error| tracing::error!(%error, "there is no slow lane: slow guests may delay others")).ok()
}

/// Work in the lane, which ends with this.
struct Moved<T>(JoinHandle<Result<T, HostFault>>);

impl<T> Future for Moved<T> {
    type Output = Result<T, HostFault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let joined = std::task::ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(joined.unwrap_or_else(|error| Err(HostFault::Internal(error.to_string()))))
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the work runs at each of its polls.
    async fn computes(epochs: u32, pace: Pace) -> Result<Vec<bool>, HostFault> {
        let mut places = Vec::new();
        let mut place = || places.push(std::thread::current().name() == Some("slow-lane"));
        for _ in 0..epochs {
            place();
            pace.interrupted();
            tokio::task::yield_now().await;
        }
        place();
        Ok(places)
    }

    fn load() -> Arc<Load> {
        Arc::new(Load::new())
    }

    #[test]
    fn r56_a_tenant_is_heavy_from_n_on_until_two_windows_later() {
        let (load, start) = (load(), Instant::now());
        load.add(start, HEAVY - Duration::from_micros(1));
        assert!(!load.is_heavy(start));
        load.add(start, Duration::from_micros(1));
        assert!(load.is_heavy(start) && load.is_heavy(start + WINDOW));
        assert!(!load.is_heavy(start + 2 * WINDOW + Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn r56_work_that_is_to_be_behind_begins_in_the_lane() {
        let (lane, pace) = (SlowLane::default(), Pace::default());
        assert_eq!(lane.attend(&pace, &load(), true, Box::pin(computes(0, pace.clone()))).await.expect("done"), [true]);
    }

    #[tokio::test]
    async fn t_r1_work_moves_after_so_many_epochs_and_not_before() {
        let lane = SlowLane::default();
        for (epochs, expected) in
            [(0, vec![false]), (1, vec![false; 2]), (2, vec![false, false, true]), (3, vec![false, false, true, true])]
        {
            let pace = Pace::default();
            let places =
                lane.attend(&pace, &load(), false, Box::pin(computes(epochs, pace.clone()))).await.expect("done");
            assert_eq!(places, expected, "{epochs} epochs");
        }
    }

    #[tokio::test]
    async fn t_r11_a_panic_in_the_lane_is_a_fault_of_the_host() {
        let (lane, pace) = (SlowLane::default(), Pace::default());
        let slow = pace.clone();
        let work = async move {
            computes(EPOCHS_IN_PLACE, slow).await?;
            panic!("for the test");
        };
        let failed: Result<(), HostFault> = lane.attend(&pace, &load(), false, Box::pin(work)).await;
        assert!(matches!(failed, Err(HostFault::Internal(_))));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_ends_in_the_lane() {
        struct Ended(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _told = self.0.take().map(|told| told.send(()));
            }
        }
        let (lane, pace) = (SlowLane::default(), Pace::default());
        let (told, ended) = tokio::sync::oneshot::channel();
        let (moved, arrived) = tokio::sync::oneshot::channel();
        let (slow, guard) = (pace.clone(), Ended(Some(told)));
        let work = async move {
            let _guard = guard;
            computes(EPOCHS_IN_PLACE, slow).await?;
            let _told = moved.send(());
            std::future::pending::<Result<(), HostFault>>().await
        };
        let load = load();
        tokio::select! {
            _ = lane.attend(&pace, &load, false, Box::pin(work)) => panic!("it never ends by itself"),
            arrived = arrived => arrived.expect("it was moved"),
        }
        ended.await.expect("its work was dropped");
    }
}
