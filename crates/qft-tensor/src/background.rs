//! Exchanges between processes that go on while this one computes.

use crate::{Communicator, Error, TrafficCounter};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

type Exchange = Box<dyn FnOnce(&dyn Communicator) + Send>;

/// A thread that exchanges things with other processes over a line of its own, beside the one that computes.
///
/// All processes start the same exchanges in the same order; one after the other is under way.
#[derive(Debug)]
pub struct Background {
    exchanges: Sender<Exchange>,
    traffic: Arc<TrafficCounter>,
    rank: usize,
    size: usize,
}

impl Background {
    /// Over `line`, that nobody else uses. Its times are counted in `traffic`.
    ///
    /// Errors: [`Error::Communication`], if there can be no thread.
    pub fn over(line: Arc<dyn Communicator>, traffic: Arc<TrafficCounter>) -> Result<Self, Error> {
        let (rank, size) = (line.rank(), line.size());
        let (exchanges, started) = channel::<Exchange>();
        let counter = Arc::clone(&traffic);
        let work = move || {
            for exchange in started {
                let began = Instant::now();
                exchange(&*line);
                counter.add_exchanged(began.elapsed());
            }
        };
        match thread::Builder::new().name("exchanges".to_owned()).spawn(work) {
            Ok(_) => Ok(Self { exchanges, traffic, rank, size }),
            Err(error) => {
                Err(Error::Communication { rank, size, message: format!("no thread: {error}") })
            }
        }
    }

    /// Starts an exchange, of which something comes.
    pub fn start<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&dyn Communicator) -> Result<T, Error> + Send + 'static,
    ) -> Started<T> {
        let (say, outcome) = channel();
        let exchange = move |line: &dyn Communicator| {
            // Nobody waits for it where another error has ended the run.
            let _ = say.send(exchange(line));
        };
        // Without the thread nothing comes of it, and `wait` says so.
        let _ = self.exchanges.send(Box::new(exchange));
        let (outcome, traffic) = (Mutex::new(outcome), Arc::clone(&self.traffic));
        Started { outcome, traffic, rank: self.rank, size: self.size }
    }
}

/// An exchange that was started.
#[derive(Debug)]
pub struct Started<T> {
    /// So that what holds it can be shared between threads.
    outcome: Mutex<Receiver<Result<T, Error>>>,
    traffic: Arc<TrafficCounter>,
    rank: usize,
    size: usize,
}

impl<T> Started<T> {
    /// What has come of it, when it has ended.
    ///
    /// Errors: its own; [`Error::Communication`], if it panicked.
    pub fn wait(self) -> Result<T, Error> {
        let Self { outcome, traffic, rank, size } = self;
        let began = Instant::now();
        let gone = || Error::Communication {
            rank,
            size,
            message: "the thread that exchanges has ended".to_owned(),
        };
        let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner).recv();
        traffic.add_waited(began.elapsed());
        outcome.map_err(|_| gone())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Alone;

    #[test]
    fn exchanges_end_in_their_order_and_say_what_came_of_them() {
        let background = Background::over(Arc::new(Alone), Arc::default()).unwrap();
        let started: Vec<_> =
            (0..5u32).map(|i| background.start(move |line| Ok(i + line.size() as u32))).collect();
        let ended: Vec<_> = started.into_iter().map(|started| started.wait().unwrap()).collect();
        assert_eq!(ended, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_panic_is_an_error_then_and_later() {
        let background = Background::over(Arc::new(Alone), Arc::default()).unwrap();
        let broken = background.start::<()>(|_| panic!("on purpose"));
        assert!(broken.wait().unwrap_err().to_string().contains("has ended"));
        assert!(background.start(|_| Ok(())).wait().is_err());
    }
}
