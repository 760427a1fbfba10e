//! A thread that owns one connection and works through a queue; a writer commits what waits together.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::StoreError;

/// Jobs committed together at most; past it, the first ones would wait too long for their answer.
const GROUP: usize = 1024;

/// The answer to one call on a store.
#[derive(Debug)]
#[must_use = "await it, wait for it, or drop it knowingly"]
pub struct Reply<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Reply<T> {
    /// Waits for the answer; for code outside an async runtime.
    ///
    /// # Errors
    /// What the store failed with; nothing is kept then.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, StoreError>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|reply| reply.unwrap_or(Err(StoreError::Closed)))
    }
}

/// What a commit must have survived before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// The death of this process.
    Cache,
    /// A power cut.
    Disk,
}

impl Durability {
    const fn pragma(self) -> &'static str {
        match self {
            Self::Cache => "PRAGMA synchronous=NORMAL",
            Self::Disk => "PRAGMA synchronous=FULL",
        }
    }
}

/// Tells the caller, once it is known whether the group was committed.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Works on the connection, or learns why there is none to work on.
type Work = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Worked + Send>;

struct Worked {
    acknowledge: Acknowledge,
    failed: Option<StoreError>,
}

struct Job {
    durability: Durability,
    work: Work,
}

#[derive(Clone, Debug)]
pub(crate) struct Worker {
    queue: mpsc::Sender<Job>,
    refusal: watch::Receiver<Option<StoreError>>,
}

impl Worker {
    pub(crate) fn writer(connection: Connection) -> Result<Self, StoreError> {
        Self::spawn("store-write", move |jobs, refusal| write(&connection, jobs, &refusal))
    }

    pub(crate) fn reader(connection: Connection) -> Result<Self, StoreError> {
        Self::spawn("store-read", move |jobs, _| {
            for job in jobs {
                ((job.work)(Ok(&connection)).acknowledge)(Ok(()));
            }
        })
    }

    fn spawn(
        name: &str,
        run: impl FnOnce(mpsc::Receiver<Job>, watch::Sender<Option<StoreError>>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel();
        let (refused, refusal) = watch::channel(None);
        thread::Builder::new().name(name.into()).spawn(move || run(jobs, refused)).map_err(|error| {
            tracing::error!(%error, name, "thread not started");
            StoreError::Closed
        })?;
        Ok(Self { queue, refusal })
    }

    /// Why the last group was not kept; `None` where it was.
    pub(crate) fn refusal(&self) -> watch::Receiver<Option<StoreError>> {
        self.refusal.clone()
    }

    pub(crate) fn submit<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reply<T> {
        let (answer, reply) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = connection.and_then(|connection| in_savepoint(connection, work));
            let failed = result.as_ref().err().cloned();
            let acknowledge = move |committed: Result<(), StoreError>| {
                // Nobody may be listening: the caller was free to drop the reply.
                let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
            };
            Worked { acknowledge: Box::new(acknowledge), failed }
        });
        // A closed queue drops the job and with it the answer's sender: the reply says `Closed`.
        let _ = self.queue.send(Job { durability, work });
        Reply(reply)
    }
}

fn write(connection: &Connection, jobs: mpsc::Receiver<Job>, refusal: &watch::Sender<Option<StoreError>>) {
    let mut synchronous = None;
    while let Ok(first) = jobs.recv() {
        let group: Vec<Job> = std::iter::once(first).chain(jobs.try_iter()).take(GROUP).collect();
        let durability = group.iter().map(|job| job.durability).max();
        if synchronous != durability
            && let Some(durability) = durability
        {
            match connection.execute_batch(durability.pragma()) {
                Ok(()) => synchronous = Some(durability),
                Err(error) => tracing::error!(%error, "synchronous mode not set"),
            }
        }
        commit(connection, group, refusal);
    }
}

fn commit(connection: &Connection, group: Vec<Job>, refusal: &watch::Sender<Option<StoreError>>) {
    let mut jobs = group.into_iter();
    let mut acknowledge = Vec::with_capacity(jobs.len());
    let mut refused = None;
    let mut committed = connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
    while committed.is_ok()
        && let Some(job) = jobs.next()
    {
        let worked = (job.work)(Ok(connection));
        acknowledge.push(worked.acknowledge);
        if let Some(error @ (StoreError::Full | StoreError::ReadOnly)) = &worked.failed {
            refused.get_or_insert_with(|| error.clone());
        }
        // Where the disk is full or fails, SQLite undoes the whole transaction by itself.
        if connection.is_autocommit() {
            committed = Err(worked.failed.unwrap_or(StoreError::Closed));
        }
    }
    if committed.is_ok() {
        committed = connection.execute_batch("COMMIT").map_err(StoreError::from);
    }
    if let Err(error) = &committed {
        tracing::debug!(%error, jobs = acknowledge.len() + jobs.len(), "commit failed");
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "failed commit not undone");
        }
        acknowledge.extend(jobs.map(|job| (job.work)(Err(error.clone())).acknowledge));
    }
    let refused = refused.or_else(|| committed.clone().err());
    refusal.send_if_modified(|before| {
        let turned = before.is_some() != refused.is_some();
        if turned {
            // Once, not with each of the writes that follow.
            if let Some(error) = &refused {
                tracing::error!(%error, "nothing is kept until the disk takes it");
            }
            *before = refused;
        }
        turned
    });
    for acknowledge in acknowledge {
        acknowledge(committed.clone());
    }
}

/// One job that fails takes nothing of the others with it; one that reads sees a single moment.
fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    connection.execute_batch("SAVEPOINT job")?;
    let result = work(connection);
    if !connection.is_autocommit() {
        connection.execute_batch(if result.is_ok() {
            "RELEASE job"
        } else {
            "ROLLBACK TO job; RELEASE job"
        })?;
    }
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Worker {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, s BLOB)").unwrap();
        Worker::writer(connection).unwrap()
    }

    fn insert(worker: &Worker, number: i64, bytes: i64) -> Reply<usize> {
        worker.submit(Durability::Disk, move |connection| {
            connection.execute("INSERT INTO t VALUES (?, zeroblob(?))", [number, bytes])
        })
    }

    fn count(worker: &Worker) -> i64 {
        let all =
            |connection: &Connection| connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        worker.submit(Durability::Cache, all).wait().unwrap()
    }

    /// Holds the writer in a job, so that what is asked meanwhile waits together.
    fn together<T>(worker: &Worker, ask: impl FnOnce() -> T) -> T {
        let (go, wait) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel::<()>();
        let hold = move |_: &Connection| Ok(begun.send(()).is_ok() && wait.recv().is_ok());
        let held = worker.submit(Durability::Cache, hold);
        begins.recv().unwrap();
        let asked = ask();
        go.send(()).unwrap();
        assert!(held.wait().unwrap());
        asked
    }

    #[test]
    fn one_that_fails_takes_nothing_of_its_group_with_it_but_all_of_its_own() {
        let worker = table();
        let replies = together(&worker, || {
            let before = insert(&worker, 1, 1);
            let half = worker.submit(Durability::Disk, |connection| {
                connection.execute("INSERT INTO t VALUES (7, NULL)", [])?;
                connection.execute("INSERT INTO t VALUES (1, NULL)", [])
            });
            (before, half, insert(&worker, 2, 1))
        });
        assert!(replies.0.wait().is_ok());
        assert!(matches!(replies.1.wait(), Err(StoreError::Sqlite(_))));
        assert!(replies.2.wait().is_ok());
        assert_eq!(count(&worker), 2);
    }

    #[test]
    fn a_full_disk_acknowledges_nothing_that_it_does_not_keep_and_goes_on_when_there_is_room() {
        let worker = table();
        let pages = |count: i64| {
            let set = move |connection: &Connection| {
                connection.query_row(&format!("PRAGMA max_page_count={count}"), [], |_| Ok(()))
            };
            worker.submit(Durability::Cache, set).wait().unwrap();
        };
        insert(&worker, 0, 10).wait().unwrap();
        pages(8);
        let replies = together(&worker, || {
            [insert(&worker, 1, 10), insert(&worker, 2, 1 << 20), insert(&worker, 3, 10)]
        });
        let results = replies.map(Reply::wait);
        assert!(matches!(results[1], Err(StoreError::Full)), "{results:?}");
        let kept = 1 + results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(count(&worker), i64::try_from(kept).unwrap());
        assert!(insert(&worker, 4, 1 << 20).wait().is_err());
        assert!(matches!(*worker.refusal().borrow(), Some(StoreError::Full)));
        pages(1 << 20);
        insert(&worker, 9, 1 << 20).wait().unwrap();
        assert!(worker.refusal().borrow().is_none());
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_still_work_that_is_done() {
        let worker = table();
        drop(insert(&worker, 1, 1));
        assert_eq!(count(&worker), 1);
    }
}
