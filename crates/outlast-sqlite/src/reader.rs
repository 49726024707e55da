//! Reading beside the writer: a few threads, each with a connection of its own. A read sees everything
//! that was answered before it began.

use std::sync::{Arc, Mutex, PoisonError};

use outlast_core::{BrokerError, Kind};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Fail, from_io};
use crate::open::{self, Site};

/// Reads that run at once. People look at a broker, and one waiter per worker: two are plenty.
const THREADS: usize = 2;

/// Reads that wait before their callers are made to wait.
const WAITING_MAX: usize = 256;

type Job = Box<dyn FnOnce(Result<&Connection, BrokerError>) + Send>;

/// The way to the reader threads.
pub(crate) struct Readers {
    /// `None` once closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// Ends when every thread has dropped its half.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Readers {
    /// Starts the threads; each opens its connection with its first read. They end with the last sender.
    pub(crate) fn start(site: &Site) -> Result<Self, BrokerError> {
        let (jobs, inbox) = mpsc::channel::<Job>(WAITING_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        let (alive, ended) = mpsc::channel(1);
        for _ in 0..THREADS {
            let (inbox, site, alive) = (Arc::clone(&inbox), site.clone(), alive.clone());
            let run = move || {
                run(&inbox, &site);
                drop(alive);
            };
            std::thread::Builder::new()
                .name("outlast-sqlite-reader".into())
                .spawn(run)
                .map_err(|error| from_io("could not start a reader thread", error))?;
        }
        let ended = tokio::sync::Mutex::new(ended);
        Ok(Self { jobs: Mutex::new(Some(jobs)), ended })
    }

    /// Answers what is queued and closes the connections.
    pub(crate) async fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.ended.lock().await.recv().await;
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let job = move |conn: Result<&Connection, BrokerError>| {
            let result = conn.and_then(|conn| work(conn).map_err(|fail| fail.into_error(what)));
            // Whoever asked may have gone.
            let _ = reply.send(result);
        };
        let gone = || BrokerError::new(Kind::Unavailable, format!("{what}: broker is closed"));
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.ok_or_else(gone)?.send(Box::new(job)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn run(inbox: &Mutex<mpsc::Receiver<Job>>, site: &Site) {
    let mut conn: Option<Connection> = None;
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        if conn.is_none() {
            match open::open_reader(site) {
                Ok(opened) => conn = Some(opened),
                Err(error) => {
                    job(Err(error));
                    continue;
                }
            }
        }
        if let Some(conn) = &conn {
            job(Ok(conn));
        }
    }
}
