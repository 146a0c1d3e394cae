//! One connection: lines in, requests to the plane, replies out as they are done.
//!
//! One task owns the socket and everything that belongs to it, so that no reply can reach another connection and there
//! is nothing to lock. A lone request is worked on inside of this task, without a hop to another; as soon as more are
//! waiting, each gets a task of its own. When the task ends, whatever it still works on is dropped with it: that
//! cancels executions and waits, and no commit. Replies that are done together are written together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use toolkeep_core::refusal::{Code, Refusal};

use super::bounds::{Bounds, HANGUP_CHECK, NOTES_MAX, RETRY_AFTER_MS};
use super::envelope::{self, RequestId};
use super::line::LineBuffer;
use super::linger::{Busy, Underway, linger};
use super::outbox::Outbox;
use super::plane::{Dispatch, Message, Notes, Plane, Work, guarded};
use super::reply::{Body, Fault, INVALID_REQUEST};
use super::wire::{self, Reader, Writer};
use crate::authenticate::Peer;

/// Why a connection ended. None of these is an error of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it, and everything that it asked is answered or cancelled.
    Closed,
    /// The peer is not known.
    Refused,
    /// The peer did not say who it is in time.
    Unproven,
    /// A line was longer than it may be.
    LineTooLong,
    /// A line was not finished in time.
    HalfLine,
    /// The peer did not read in time.
    SlowReader,
    /// The socket failed.
    Broken,
    /// The daemon stops and everything in flight is answered.
    Drained,
}

/// Serve one connection to its end.
pub(super) async fn serve<P: Plane>(
    stream: UnixStream,
    plane: Arc<P>,
    bounds: Bounds,
    busy: Busy,
    stop: watch::Receiver<bool>,
) -> End {
    let peer = match stream.peer_cred() {
        Ok(credentials) => Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() },
        Err(error) => {
            tracing::warn!(%error, "a peer without credentials is refused");
            return End::Refused;
        }
    };
    let (reader, writer) = match wire::ends(stream) {
        Ok(ends) => ends,
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be served");
            return End::Broken;
        }
    };
    match plane.open(peer) {
        Ok(session) => {
            let (sender, notes) = mpsc::channel(NOTES_MAX);
            Connection::new(&*plane, session, (bounds, busy), sender).run(reader, writer, notes, stop).await
        }
        Err(refusal) => {
            tracing::warn!(uid = peer.uid, pid = peer.pid, code = refusal.code.word(), "a connection is refused");
            farewell(&writer, refusal.into());
            End::Refused
        }
    }
}

/// Tell a peer why it is not served.
pub(super) fn farewell(writer: &Writer, fault: Fault) {
    let mut out = Outbox::default();
    out.push(None, &Body::Error(fault));
    if out.write(writer).is_err() {
        tracing::debug!("the peer left before it heard why it is refused");
    }
}

struct Connection<'p, P: Plane> {
    plane: &'p P,
    session: P::Session,
    bounds: Bounds,
    /// What is in flight on this door.
    busy: Busy,
    input: LineBuffer,
    output: Outbox,
    /// The request that this task works on itself.
    own: Option<Own>,
    /// Requests that have tasks of their own.
    tasks: JoinSet<(RequestId, Body)>,
    notes: mpsc::Sender<Vec<u8>>,
    /// Says when the plane has something to tell.
    changes: Option<watch::Receiver<u64>>,
    /// The peer will send nothing more, or may not.
    closed: bool,
    /// When the begun line must be finished.
    line_deadline: Option<Pin<Box<Sleep>>>,
    /// When the peer must have said who it is.
    proof_deadline: Option<Pin<Box<Sleep>>>,
    /// When a waiting byte must be taken.
    write_deadline: Option<Pin<Box<Sleep>>>,
}

/// The request that a connection's task works on itself.
struct Own {
    id: RequestId,
    work: Work,
    underway: Underway,
}

/// What woke the connection.
enum Event {
    Read(std::io::Result<usize>),
    Writable(std::io::Result<()>),
    Own(Body),
    Task(RequestId, Body),
    Note(Vec<u8>),
    Changed,
    Stop,
    LineLate,
    ProofLate,
    WriteLate,
    HangupCheck,
}

impl<'p, P: Plane> Connection<'p, P> {
    fn new(plane: &'p P, session: P::Session, (bounds, busy): (Bounds, Busy), notes: mpsc::Sender<Vec<u8>>) -> Self {
        let proof_deadline = (!plane.is_proven(&session)).then(|| Box::pin(tokio::time::sleep(bounds.proof_timeout)));
        Self {
            plane,
            session,
            bounds,
            busy,
            input: LineBuffer::new(bounds.line_bytes),
            output: Outbox::default(),
            own: None,
            tasks: JoinSet::new(),
            notes,
            changes: plane.changes(),
            closed: false,
            line_deadline: None,
            proof_deadline,
            write_deadline: None,
        }
    }

    async fn run(
        mut self,
        mut reader: Reader,
        mut writer: Writer,
        mut notes: mpsc::Receiver<Vec<u8>>,
        mut stop: watch::Receiver<bool>,
    ) -> End {
        let (mut stopping, mut replied) = (*stop.borrow_and_update(), false);
        loop {
            let held_back = match self.take_lines() {
                Ok(held_back) => held_back,
                Err(fault) => {
                    self.output.push(None, &Body::Error(fault));
                    return self.last_words(&writer, End::LineTooLong);
                }
            };
            if self.flush(&mut writer).is_err() {
                return End::Broken;
            }
            if held_back && self.output.len() < self.bounds.outbound_bytes {
                continue;
            }
            let idle = self.in_flight() == 0 && self.output.is_empty();
            if idle && self.closed {
                return End::Closed;
            }
            if idle && stopping {
                return End::Drained;
            }
            let reading = !self.closed && !stopping && self.output.len() < self.bounds.outbound_bytes;
            // Who is asked to stop meanwhile is told so by the events below.
            let lingers = std::mem::take(&mut replied) && idle && reading && !stop.has_changed().unwrap_or(true);
            if lingers && !self.input.is_partial() && linger(&self.busy, &mut reader, self.input.room()).await {
                continue;
            }
            self.arm_line_deadline(reading);
            match self.next_event(&mut reader, &mut writer, &mut notes, &mut stop, (reading, stopping)).await {
                Event::Read(Ok(0)) => {
                    self.closed = true;
                    if hung_up(&reader) {
                        return End::Closed;
                    }
                }
                Event::Read(Ok(_)) => {}
                Event::Read(Err(_)) | Event::Writable(Err(_)) => return End::Broken,
                Event::Writable(Ok(())) => {}
                Event::Own(body) => {
                    self.take_notes(&mut notes);
                    if let Some(own) = self.own.take() {
                        self.answer(&own.id, &body);
                    }
                    self.collect(&mut notes);
                    replied = true;
                }
                Event::Task(id, body) => {
                    self.take_notes(&mut notes);
                    self.answer(&id, &body);
                    self.collect(&mut notes);
                }
                Event::Note(line) => self.output.push_line(&line),
                Event::Changed => self.output.push_line(&self.plane.news(&mut self.session)),
                Event::Stop => {
                    stopping = true;
                    self.output.push_line(&self.plane.farewell(&mut self.session));
                }
                Event::LineLate => {
                    self.output.push(None, &Body::Error(half_line(self.bounds.line_timeout)));
                    return self.last_words(&writer, End::HalfLine);
                }
                Event::ProofLate if self.plane.is_proven(&self.session) => self.proof_deadline = None,
                Event::ProofLate => {
                    self.output.push(None, &Body::Error(unproven(self.bounds.proof_timeout)));
                    return self.last_words(&writer, End::Unproven);
                }
                Event::WriteLate => return End::SlowReader,
                Event::HangupCheck if hung_up(&reader) => return End::Closed,
                Event::HangupCheck => {}
            }
        }
    }

    /// Dispatch every whole line that has arrived, as long as there is room for what is answered at once: a read of the
    /// shortest lines would otherwise grow to a hundred times itself. Returns whether lines were held back.
    fn take_lines(&mut self) -> Result<bool, Fault> {
        loop {
            if self.output.len() >= self.bounds.outbound_bytes {
                return Ok(self.input.is_partial());
            }
            let line = match self.input.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(false),
                Err(error) => {
                    let refusal = Refusal::new(Code::InvalidInput, error.to_string())
                        .hint("send large data as a file of a workspace; this connection is closed");
                    return Err(Fault::protocol(INVALID_REQUEST, refusal));
                }
            };
            match self.plane.read(self.input.line(line)) {
                Ok(Message::Request(request)) => self.begin(request),
                Ok(Message::Note { method, params }) => self.plane.note(&mut self.session, &method, params),
                Ok(Message::Response { id, result }) => self.plane.response(&mut self.session, &id, result),
                Ok(Message::Ignored) => {}
                Err((id, fault)) => self.output.push(id.as_ref(), &Body::Error(fault)),
            }
        }
    }

    fn begin(&mut self, request: envelope::Request) {
        let notes = Notes { id: request.id.clone(), lines: self.notes.clone() };
        if self.in_flight() >= self.bounds.in_flight {
            let message = format!("{} requests of this connection are in flight", self.in_flight());
            let refusal = Refusal::new(Code::Overloaded, message).after_ms(RETRY_AFTER_MS);
            self.output.push(Some(&request.id), &Body::Error(refusal.into()));
            return;
        }
        match self.plane.dispatch(&mut self.session, &request.method, request.params, notes) {
            Dispatch::Now(body) => self.output.push(Some(&request.id), &body),
            Dispatch::Later(work) => {
                // The request before this one is no longer alone: it may be long, and this one should not wait for it.
                if let Some(Own { id, work, underway }) = self.own.take() {
                    self.tasks.spawn(async move {
                        let _underway = underway;
                        (id, work.await)
                    });
                }
                self.own = Some(Own { id: request.id, work: guarded(work), underway: self.busy.enter() });
            }
        }
    }

    /// News of a request go out before its reply.
    fn take_notes(&mut self, notes: &mut mpsc::Receiver<Vec<u8>>) {
        while let Ok(line) = notes.try_recv() {
            self.output.push_line(&line);
        }
    }

    /// Answer what took time.
    fn answer(&mut self, id: &RequestId, body: &Body) {
        self.output.push(Some(id), body);
        self.plane.answered(&mut self.session, id);
    }

    /// Take what else is done, so that it is written together.
    fn collect(&mut self, notes: &mut mpsc::Receiver<Vec<u8>>) {
        while self.output.len() < self.bounds.outbound_bytes {
            match self.tasks.try_join_next() {
                Some(Ok((id, body))) => {
                    self.take_notes(notes);
                    self.answer(&id, &body);
                }
                // Tasks catch their panics and nobody aborts them; one that is gone has no reply to give.
                Some(Err(error)) => tracing::error!(%error, "BUG: a request ended without a reply"),
                None => return,
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.tasks.len() + usize::from(self.own.is_some())
    }

    /// Write what can be written without waiting, and watch the time of what cannot.
    fn flush(&mut self, writer: &mut Writer) -> std::io::Result<()> {
        let wrote = self.output.write(writer)?;
        if self.output.is_empty() {
            writer.unwatch();
            self.write_deadline = None;
        } else if wrote > 0 || self.write_deadline.is_none() {
            self.write_deadline = Some(Box::pin(tokio::time::sleep(self.bounds.write_timeout)));
        }
        Ok(())
    }

    /// The clock of a begun line runs while the peer could send the rest, from its first byte on.
    fn arm_line_deadline(&mut self, reading: bool) {
        if !reading || !self.input.is_partial() {
            self.line_deadline = None;
        } else if self.line_deadline.is_none() {
            self.line_deadline = Some(Box::pin(tokio::time::sleep(self.bounds.line_timeout)));
        }
    }

    /// Try once to say why the connection ends.
    fn last_words(&mut self, writer: &Writer, end: End) -> End {
        if self.output.write(writer).is_err() {
            tracing::debug!(?end, "the peer left before it heard why the connection ends");
        }
        end
    }

    async fn next_event(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        notes: &mut mpsc::Receiver<Vec<u8>>,
        stop: &mut watch::Receiver<bool>,
        (reading, stopping): (bool, bool),
    ) -> Event {
        let room = self.output.len() < self.bounds.outbound_bytes;
        let waiting = !self.output.is_empty();
        let half_closed = self.closed && (self.own.is_some() || !self.tasks.is_empty());
        tokio::select! {
            biased;
            body = own_work(&mut self.own) => Event::Own(body),
            Some(line) = notes.recv(), if room => Event::Note(line),
            Some(joined) = self.tasks.join_next(), if room && !self.tasks.is_empty() => match joined {
                Ok((id, body)) => Event::Task(id, body),
                Err(error) => {
                    tracing::error!(%error, "BUG: a request ended without a reply");
                    Event::HangupCheck
                }
            },
            () = changed(&mut self.changes), if room => Event::Changed,
            writable = writer.writable(), if waiting => Event::Writable(writable),
            read = reader.read(self.input.room()), if reading => Event::Read(read),
            _ = stop.changed(), if !stopping => Event::Stop,
            () = due(&mut self.line_deadline) => Event::LineLate,
            () = due(&mut self.proof_deadline) => Event::ProofLate,
            () = due(&mut self.write_deadline) => Event::WriteLate,
            () = tokio::time::sleep(HANGUP_CHECK), if half_closed => Event::HangupCheck,
        }
    }
}

/// The request that the connection's task works on; never ready if there is none.
async fn own_work(own: &mut Option<Own>) -> Body {
    std::future::poll_fn(|context| match own {
        Some(own) => own.work.as_mut().poll(context),
        None => Poll::Pending,
    })
    .await
}

/// Something to tell; never ready if there never is.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    let told = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

/// A deadline; never ready if there is none.
async fn due(deadline: &mut Option<Pin<Box<Sleep>>>) {
    std::future::poll_fn(|context| match deadline {
        Some(deadline) => deadline.as_mut().poll(context),
        None => Poll::Pending,
    })
    .await;
}

fn half_line(limit: Duration) -> Fault {
    let message = format!("a line was not finished within {} ms", limit.as_millis());
    let refusal = Refusal::new(Code::InvalidInput, message).hint("end every message with a newline");
    Fault::protocol(INVALID_REQUEST, refusal)
}

fn unproven(limit: Duration) -> Fault {
    let message = format!("the peer did not say within {} ms who it is", limit.as_millis());
    Refusal::new(Code::Unauthorized, message).hint("show a token with `session.authenticate` first").into()
}

/// Whether the peer closed both directions. One that only finished sending still gets its replies.
fn hung_up(reader: &Reader) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(reader, PollFlags::empty())];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => polled.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
