//! The line to the thread of MPI, as its callers see it: requests go in, answers come out in the same order.

use super::calls::Operation;
use super::packed::{Packed, ROUNDS_UNDER_WAY};
use super::worker::{Answer, Request};
use crate::Deadlines;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// What a call of the library may take longer than it should, before it counts as stuck.
const GRACE: Duration = Duration::from_secs(2);

/// One at a time uses it.
#[derive(Debug)]
pub(crate) struct Line {
    /// Which of those of the thread it is.
    number: usize,
    requests: Sender<Request>,
    answers: Receiver<Answer>,
    deadlines: Deadlines,
    /// Whether anything was exchanged.
    warm: bool,
    /// Why nothing can be exchanged any more.
    lost: Option<String>,
    spare: Spare,
}

impl Line {
    pub(crate) fn new(
        number: usize,
        requests: Sender<Request>,
        answers: Receiver<Answer>,
        deadlines: Deadlines,
    ) -> Self {
        Self {
            number,
            requests,
            answers,
            deadlines,
            warm: false,
            lost: None,
            spare: Spare::default(),
        }
    }

    /// Why nothing can be exchanged any more, if so.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Does the operations of `rounds` rounds on `data`, in their order. `fill` makes that of a round; `empty` takes what has
    /// come of it and says how many rounds there are at least, which the first may tell. The next is filled while one is under way.
    ///
    /// Errors: why the job is lost, in words.
    pub(crate) fn rounds<T: ?Sized>(
        &mut self,
        data: &mut T,
        mut rounds: usize,
        fill: impl Fn(&T, usize, &mut Spare) -> Operation,
        empty: impl Fn(&mut T, usize, &Operation) -> usize,
    ) -> Result<(), String> {
        if let Some(lost) = &self.lost {
            return Err(format!("the job is lost since: {lost}"));
        }
        let (mut asked, mut done) = (0, 0);
        while done < rounds {
            while asked < rounds && asked - done < ROUNDS_UNDER_WAY {
                let operation = fill(data, asked, &mut self.spare);
                self.ask(operation)?;
                asked += 1;
            }
            let operation = self.answer()?;
            rounds = rounds.max(empty(data, done, &operation));
            self.spare.take_back(operation);
            done += 1;
        }
        self.warm = true;
        Ok(())
    }

    /// Ends MPI, after an operation in which all took part.
    ///
    /// Errors: why it did not end.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let asked = self.requests.send(Request::Finish).map_err(|_| GONE.to_owned());
        let ended = asked.and_then(|()| match self.answers.recv_timeout(self.deadlines.others) {
            Ok(answer) => answer.map(|_| ()),
            Err(RecvTimeoutError::Disconnected) => Err(GONE.to_owned()),
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "MPI did not end within {} s: another process does not reach its end",
                self.deadlines.others.as_secs_f64()
            )),
        });
        ended.map_err(|message| self.lose(message))
    }

    fn patience(&self) -> Duration {
        if self.warm { self.deadlines.others } else { self.deadlines.first }
    }

    fn ask(&mut self, operation: Operation) -> Result<(), String> {
        let sent = self.requests.send(Request::Operation(self.number, operation, self.patience()));
        sent.map_err(|_| self.lose(GONE.to_owned()))
    }

    fn answer(&mut self) -> Result<Operation, String> {
        let answer = match self.answers.recv_timeout(self.patience().saturating_add(GRACE)) {
            Ok(Ok(Some(operation))) => Ok(operation),
            Ok(Ok(None)) => Err("MPI has ended".to_owned()),
            Ok(Err(message)) => Err(message),
            Err(RecvTimeoutError::Disconnected) => Err(GONE.to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                Err("the MPI library does not return from a call".to_owned())
            }
        };
        answer.map_err(|message| self.lose(message))
    }

    fn lose(&mut self, message: String) -> String {
        self.lost = Some(message.clone());
        message
    }
}

/// What is said where the thread of MPI is gone.
const GONE: &str = "the thread that owns MPI has ended";

/// Memory of earlier operations, for later ones.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

impl Spare {
    /// These bytes.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut memory = self.0.pop().unwrap_or_default();
        memory.clear();
        memory.extend_from_slice(bytes);
        memory
    }

    /// Room for so many bytes of each process.
    pub(crate) fn room(&mut self, lengths: impl Iterator<Item = usize>) -> Packed {
        Packed::with_room(self.0.pop().unwrap_or_default(), lengths)
    }

    fn take_back(&mut self, operation: Operation) {
        match operation {
            Operation::Max { .. } => {}
            Operation::Gather { mine, all } => self.0.extend([mine, all.bytes]),
            Operation::Exchange { send, receive } => self.0.extend([send.bytes, receive.bytes]),
        }
    }
}
