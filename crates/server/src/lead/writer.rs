//! Group commit: check-ins that come while others are being written are written together, in one
//! transaction. Each is answered when that transaction is durable, and no sooner.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::store::checkins::{Arrival, Taken};
use crate::store::{Store, StoreError};

/// Takes check-ins down.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    arrival: Arrival,
    answer: oneshot::Sender<Result<Taken, Arc<StoreError>>>,
}

/// Why a check-in was not taken down.
#[derive(Debug, Clone)]
pub enum NotTaken {
    /// More wait than are let wait.
    Busy,
    /// The database did not take it.
    Store(Arc<StoreError>),
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(f, "{WAITING_MAX} check-ins wait already"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotTaken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Busy => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl Writer {
    /// Begins to write; ends when the last clone of this is gone and nothing waits any more.
    pub fn start(store: Store) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(store, waiting));
        Self { queue }
    }

    /// Returns when it is durable.
    pub async fn take(&self, arrival: Arrival) -> Result<Taken, NotTaken> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { arrival, answer }).map_err(|_| NotTaken::Busy)?;
        match answered.await {
            Ok(result) => result.map_err(NotTaken::Store),
            // The writer ends only with the program.
            Err(_) => Err(NotTaken::Busy),
        }
    }
}

async fn write_all(store: Store, mut queue: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (arrivals, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|Waiting { arrival, answer }| (arrival, answer)).unzip();
        match store.take_arrivals(&arrivals).await {
            Ok(taken) => {
                for (answer, taken) in answers.into_iter().zip(taken) {
                    // Whoever went away has its check-in written all the same.
                    let _ = answer.send(Ok(taken));
                }
            }
            // One of them may be what the database does not take: it must not spoil the others.
            Err(error) if arrivals.len() > 1 && error.is_refusal() => {
                for (arrival, answer) in arrivals.into_iter().zip(answers) {
                    let _ = answer.send(take_one(&store, arrival).await);
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

async fn take_one(store: &Store, arrival: Arrival) -> Result<Taken, Arc<StoreError>> {
    let taken = store.take_arrivals(std::slice::from_ref(&arrival)).await.map_err(Arc::new)?;
    // As many come back as were given.
    Ok(taken.into_iter().next().expect("one was given"))
}

/// Check-ins of one transaction, at most.
const BATCH_MAX: usize = 256;
/// Check-ins that wait, at most; more are told to come later.
const WAITING_MAX: usize = 4096;
