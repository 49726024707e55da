//! The one thread that writes the spool, and its group commit: it takes every call that waits, runs them
//! in one transaction, commits once, and then answers them all. Many producers share one fsync.
//!
//! A call whose SQL fails spoils no other: the shared transaction is rolled back and each call runs again
//! in a transaction of its own. So a call may run twice, but is committed at most once. After a commit
//! that failed on the device the connection is replaced: what it has in memory is not to be trusted.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::error::{SpoolError, SpoolErrorKind};
use super::mark::Mark;
use super::open;

/// Calls that wait for the writer before callers are made to wait: more would only be memory.
const WAITING_MAX: usize = 1024;

/// Calls in one transaction. Each stores one batch at most, so this is about 100 ms of work.
const GROUP_MAX: usize = 128;

/// How often the writer looks again, giving way in between, before it begins with a group that is smaller
/// than the last one: about 10 µs on an idle machine, a hundredth of a commit.
const GATHER_MOMENTS: usize = 20;

type Answer<T> = Result<T, SpoolError>;

/// A call on its way to the writer.
trait Work: Send {
    /// Runs and keeps the answer. An error of SQLite asks for a rollback.
    fn run(&mut self, conn: &Connection) -> rusqlite::Result<()>;
    /// Answers the caller: the kept answer, or why the transaction failed.
    fn answer(self: Box<Self>, committed: Result<(), SpoolError>);
}

struct Call<T, F> {
    work: F,
    kept: Option<Answer<T>>,
    reply: oneshot::Sender<Answer<T>>,
}

impl<T: Send, F: FnMut(&Connection) -> rusqlite::Result<Answer<T>> + Send> Work for Call<T, F> {
    fn run(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.kept = None;
        self.kept = Some((self.work)(conn)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), SpoolError>) {
        let answer = match (committed, self.kept) {
            // A refusal wrote nothing, so it stands whatever became of the transaction.
            (_, Some(Err(refused))) => Err(refused),
            (Ok(()), Some(kept)) => kept,
            (Ok(()), None) => Err(SpoolError::closed()),
            (Err(error), _) => Err(error),
        };
        // A caller that no longer listens has dropped its future: the call is applied all the same.
        let _ = self.reply.send(answer);
    }
}

/// The way to the writer's thread. The thread ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    calls: mpsc::Sender<Box<dyn Work>>,
}

impl Writer {
    pub(super) fn start(
        path: PathBuf,
        conn: Connection,
        mark: Option<Arc<Mark>>,
    ) -> Result<Self, SpoolError> {
        let (calls, inbox) = mpsc::channel(WAITING_MAX);
        let thread = Thread { conn, path, mark, commits: 0, inbox, gathered: 0 };
        std::thread::Builder::new()
            .name("outlast-spool".into())
            .spawn(move || thread.run())
            .map_err(|error| {
                SpoolError::new(SpoolErrorKind::Failing, "could not start the spool's thread")
                    .caused_by(error)
            })?;
        Ok(Self { calls })
    }

    /// Runs `work` in the next transaction and answers once it is on the disk. Dropping the future is
    /// safe: the work is then done or not, but never in part.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> rusqlite::Result<Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { work, kept: None, reply });
        self.calls.send(call).await.map_err(|_| SpoolError::closed())?;
        answer.await.map_err(|_| SpoolError::closed())?
    }
}

struct Thread {
    conn: Connection,
    path: PathBuf,
    mark: Option<Arc<Mark>>,
    commits: u64,
    inbox: mpsc::Receiver<Box<dyn Work>>,
    /// How many calls were in the last group.
    gathered: usize,
}

impl Thread {
    fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while self.inbox.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            self.gather(&mut group);
            self.apply(std::mem::take(&mut group));
        }
    }

    /// The callers of the last group are about to send their next call: a group that is smaller gives them a
    /// moment, so that they share an fsync again. A caller that is alone never waits.
    fn gather(&mut self, group: &mut Vec<Box<dyn Work>>) {
        let mut moments = 0;
        while group.len() < self.gathered.min(GROUP_MAX) && moments < GATHER_MOMENTS {
            match self.inbox.try_recv() {
                Ok(call) => {
                    group.push(call);
                    moments = 0;
                }
                Err(_) => {
                    moments += 1;
                    std::thread::yield_now();
                }
            }
        }
        self.gathered = group.len();
    }

    /// Runs calls in one transaction, or each in its own if that fails, and answers them.
    fn apply(&mut self, mut group: Vec<Box<dyn Work>>) {
        match self.transact(&mut group) {
            Ok(()) => {
                self.marks();
                group.into_iter().for_each(|call| call.answer(Ok(())));
            }
            // While another process keeps the file locked each of them would wait as long as all of them did.
            Err(error) if group.len() == 1 || is_busy(&error) => {
                self.recover(&error);
                let error = SpoolError::sqlite(
                    &format!("could not write spool {}", self.path.display()),
                    error,
                );
                group.into_iter().for_each(|call| call.answer(Err(error.clone())));
            }
            Err(error) => {
                self.recover(&error);
                group.into_iter().for_each(|call| self.apply(vec![call]));
            }
        }
    }

    /// Lets all processes see that there was a commit, before it is answered.
    fn marks(&mut self) {
        self.commits += 1;
        if let Some(mark) = &self.mark
            && let Err(error) = mark.change(self.commits)
        {
            tracing::warn!(%error, "could not mark the spool: others see its change a moment later");
        }
    }

    fn transact(&mut self, group: &mut [Box<dyn Work>]) -> rusqlite::Result<()> {
        // Dropped without a commit it is rolled back.
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for call in group {
            call.run(&tx)?;
        }
        tx.commit()
    }

    /// After an error of the device a fresh connection is tried; if there is none, the old one goes on
    /// and says what it thinks.
    fn recover(&mut self, error: &rusqlite::Error) {
        if error.sqlite_error_code() != Some(rusqlite::ErrorCode::SystemIoFailure) {
            return;
        }
        match open::writer(&self.path) {
            Ok(conn) => self.conn = conn,
            Err(error) => tracing::warn!(%error, "could not reopen the spool after an i/o error"),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
