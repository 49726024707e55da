//! A [`Link`]: one supervised connection of one class.
//!
//! It is made when it is needed, by a task of its own, so that a caller who gives up does not take the
//! attempt along; whoever waits for an attempt that fails gets its error. After a timeout, a broken stream or
//! an answer of the wrong server the connection is dropped whole, for all callers: a stream on which an
//! answer is missing can never be trusted again. A link never repeats a call, except once what the server
//! says it did not run (NOSCRIPT), as law L4 allows.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::{BrokerError, Kind};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::conn::{About, Call, Class, Server};
use crate::error::{Phase, is_another_server, is_connection_spent};
use crate::patience::Load;
use crate::permissions::{self, Refused};

/// What is done with messages that nobody asked for. Must not block.
pub(crate) type PushHandler = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// A connection that works as far as anybody knows.
#[derive(Clone)]
pub(crate) struct Live {
    connection: MultiplexedConnection,
    about: About,
    is_broken: Arc<AtomicBool>,
    /// The server tells which of the keys that were read have changed.
    is_told: bool,
    load: Load,
    refused: Refused,
    pulse: Arc<Mutex<Pulse>>,
}

/// When something was sent, and since when nothing was heard.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    sent: Instant,
    /// When the first request was sent that came after the last answer. Callers who give up before our
    /// patience ends see no timeout; a connection that is dead shows in this.
    unanswered: Option<Instant>,
}

impl Live {
    pub(crate) fn new(
        connection: MultiplexedConnection,
        about: About,
        is_broken: Arc<AtomicBool>,
        is_told: bool,
        refused: Refused,
    ) -> Self {
        let pulse = Pulse { sent: Instant::now(), unanswered: None };
        let (load, pulse) = (Load::default(), Arc::new(Mutex::new(pulse)));
        Self { connection, about, is_broken, is_told, load, refused, pulse }
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sends(&self) {
        let now = Instant::now();
        let mut pulse = self.pulse();
        pulse.sent = now;
        pulse.unanswered.get_or_insert(now);
    }

    fn is_spent(&self, patience: Duration) -> bool {
        let unanswered = self.pulse().unanswered;
        self.is_broken.load(Ordering::Acquire)
            || unanswered.is_some_and(|since| since.elapsed() > self.load.patience(patience))
    }

    fn is_same(&self, other: &Live) -> bool {
        Arc::ptr_eq(&self.is_broken, &other.is_broken)
    }
}

type Made = Option<Result<Live, BrokerError>>;

/// What a link has.
#[derive(Default)]
struct State {
    live: Option<Live>,
    /// The attempt under way, with its number: one that was overtaken keeps nothing.
    attempt: Option<watch::Receiver<Made>>,
    attempts: u64,
}

/// One supervised connection; see the module's page. Cheap to clone; clones are the same link.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    server: Arc<Server>,
    class: Class,
    on_push: PushHandler,
    channel: Option<String>,
    state: Mutex<State>,
}

impl Link {
    /// A connection on which the server tells which keys have changed, and what comes on `channel`.
    pub(crate) fn watching(server: Arc<Server>, channel: String, on_push: PushHandler) -> Self {
        Self::of(server, Class::Watch, on_push, Some(channel))
    }

    pub(crate) fn new(server: Arc<Server>, class: Class) -> Self {
        Self::of(server, class, Arc::new(|_| {}), None)
    }

    fn of(
        server: Arc<Server>,
        class: Class,
        on_push: PushHandler,
        channel: Option<String>,
    ) -> Self {
        let state = Mutex::default();
        Self { inner: Arc::new(Inner { server, class, on_push, channel, state }) }
    }

    /// What the server says of itself; makes a connection if there is none.
    pub(crate) async fn about(&self) -> Result<About, BrokerError> {
        Ok(self.live().await?.about)
    }

    /// Sends one command.
    pub(crate) async fn run(&self, command: &Cmd) -> Result<Value, BrokerError> {
        let live = self.live().await?;
        let mut connection = live.connection.clone();
        self.judged(&live, self.answered(&live, 0, command.query_async(&mut connection)).await)
    }

    /// Sends several commands at once; the first error stands for all.
    pub(crate) async fn run_all(&self, commands: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let live = self.live().await?;
        let mut connection = live.connection.clone();
        self.judged(&live, self.answered(&live, 0, commands.query_async(&mut connection)).await)
    }

    /// Runs a script.
    pub(crate) async fn script(&self, call: &Call) -> Result<Value, BrokerError> {
        let live = self.live().await?;
        if live.refused.check(call.script, self.inner.server.shown()).is_err() {
            self.ask_permissions(&live).await?;
            live.refused.check(call.script, self.inner.server.shown())?;
        }
        let answer = self.script_on(&live, call).await;
        if answer.as_ref().is_err_and(|error| error.kind() == Kind::Misconfigured) {
            // What matters is the answer; the next call will ask again, and the next connection too.
            self.inner.server.forget();
            if let Err(error) = self.ask_permissions(&live).await {
                tracing::debug!(kind = %error.kind(), %error, "could not ask for permissions");
            }
        }
        answer
    }

    /// Runs a script by its text: one command, whatever the server knows. For small scripts on connections of the class
    /// `Probe`.
    pub(crate) async fn script_by_text(&self, call: &Call) -> Result<Value, BrokerError> {
        let live = self.live().await?;
        let mut connection = live.connection.clone();
        let command = call.command("EVAL", &call.script.on(live.about.dialect).text);
        self.judged(&live, self.answered(&live, 0, command.query_async(&mut connection)).await)
    }

    async fn ask_permissions(&self, live: &Live) -> Result<(), BrokerError> {
        let question = permissions::question(live.about.dialect, self.inner.server.root());
        if let Some(question) = question {
            let mut connection = live.connection.clone();
            let asked = self.answered(live, 0, question.query_async(&mut connection)).await;
            live.refused.set(permissions::refused(self.judged(live, asked)?)?);
        }
        Ok(())
    }

    async fn script_on(&self, live: &Live, call: &Call) -> Result<Value, BrokerError> {
        let mut connection = live.connection.clone();
        let script = call.script.on(live.about.dialect);
        let by_hash = call.command("EVALSHA", &script.hash);
        let bytes = call.bytes_under_way();
        let answer = self.answered(live, bytes, by_hash.query_async(&mut connection)).await;
        let is_unknown = |error: &RedisError| error.code() == Some("NOSCRIPT");
        if !answer.as_ref().is_err_and(is_unknown) {
            return self.judged(live, answer);
        }
        let by_text = call.command("EVAL", &script.text);
        self.judged(live, self.answered(live, bytes, by_text.query_async(&mut connection)).await)
    }

    /// True if the server tells what changes; makes a connection if there is none.
    pub(crate) async fn is_told(&self) -> Result<bool, BrokerError> {
        Ok(self.live().await?.is_told)
    }

    /// How long the connection may stay silent before [`Link::probe`] has something to do.
    pub(crate) fn silence_left(&self, every: Duration) -> Duration {
        match &self.state().live {
            Some(live) => every.saturating_sub(live.pulse().sent.elapsed()),
            None => Duration::ZERO,
        }
    }

    /// Makes sure that the connection is alive, if nothing was sent on it for so long: however many ask,
    /// one of them does it. A connection that is dead is dropped, which `on_push` hears.
    pub(crate) async fn probe(&self, every: Duration) {
        if self.silence_left(every) > Duration::ZERO {
            return;
        }
        if let Err(error) = self.run(&redis::cmd("PING")).await {
            tracing::debug!(%error, "a connection that was silent is dead");
        }
    }

    /// Drops the connection, if there is one, and forgets an attempt to make one.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.live = None;
        state.attempt = None;
        state.attempts += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn live(&self) -> Result<Live, BrokerError> {
        let mut attempt = match self.current() {
            Ok(live) => return Ok(live),
            Err(attempt) => attempt,
        };
        let made = attempt.wait_for(Option::is_some).await;
        let made = made.map(|made| made.clone()).ok().flatten();
        made.unwrap_or_else(|| {
            let what =
                format!("{}: the attempt to connect was given up", self.inner.server.shown());
            Err(BrokerError::new(Kind::Unavailable, what))
        })
    }

    /// The connection, or the attempt to make one: the one that is under way, or else a new one.
    fn current(&self) -> Result<Live, watch::Receiver<Made>> {
        let mut state = self.state();
        let spent = match &state.live {
            Some(live) if !live.is_spent(self.inner.class.patience()) => return Ok(live.clone()),
            _ => state.live.take(),
        };
        // One whose runtime has ended will never be over.
        let attempt = state.attempt.as_ref().filter(|attempt| attempt.has_changed().is_ok());
        let attempt = match attempt {
            Some(attempt) => attempt.clone(),
            None => self.attempt(&mut state),
        };
        drop(state);
        if spent.is_some() {
            self.tell_disconnected();
        }
        Err(attempt)
    }

    fn attempt(&self, state: &mut State) -> watch::Receiver<Made> {
        let (tell, attempt) = watch::channel(None);
        state.attempts += 1;
        state.attempt = Some(attempt.clone());
        let (link, number) = (self.clone(), state.attempts);
        // Bounded by the server's patience for a connection; at most one per link matters.
        tokio::spawn(async move {
            let inner = &link.inner;
            let channel = inner.channel.as_deref();
            let made = inner.server.connect(inner.class, inner.on_push.clone(), channel).await;
            if made.is_ok() {
                // What was seen on an earlier connection is not followed on this one.
                link.tell_disconnected();
            }
            let mut state = link.state();
            if state.attempts == number {
                state.live = made.as_ref().ok().cloned();
                state.attempt = None;
            }
            drop(state);
            tell.send_replace(Some(made));
        });
        attempt
    }

    /// Waits for an answer as long as the class has patience, the wait for a place included, and as long as these bytes and
    /// all others that are under way need. (Of commands that are no scripts none is large.)
    async fn answered<T>(
        &self,
        live: &Live,
        bytes: usize,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        live.sends();
        let _under_way = live.load.add(bytes);
        let patience = live.load.patience(self.inner.class.patience());
        let late = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let answer = timeout(patience, answer).await.map_err(late).flatten();
        if !answer.as_ref().is_err_and(RedisError::is_io_error) {
            live.pulse().unanswered = None;
        }
        answer
    }

    /// Gives the connection up if the answer says so, and names the error.
    fn judged<T>(&self, live: &Live, answer: Result<T, RedisError>) -> Result<T, BrokerError> {
        answer.map_err(|error| {
            let is_another = is_another_server(&error);
            if is_another {
                self.inner.server.forget();
            }
            if is_another || is_connection_spent(&error) {
                self.give_up(live);
            }
            self.inner.server.failed(error, Phase::Sent)
        })
    }

    fn give_up(&self, live: &Live) {
        live.is_broken.store(true, Ordering::Release);
        let mut state = self.state();
        let is_held = state.live.as_ref().is_some_and(|held| held.is_same(live));
        if is_held {
            state.live = None;
        }
        drop(state);
        if is_held {
            self.tell_disconnected();
        }
    }

    /// A connection that is dropped by us says nothing by itself.
    fn tell_disconnected(&self) {
        (self.inner.on_push)(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
    }
}
