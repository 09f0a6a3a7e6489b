//! Processes that this one starts on its machine.

use crate::Error;
use crate::launcher::{TOKEN, Variables};
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The processes of a job on one machine, of which the one that has this is the first and starts the others.
#[derive(Debug, Clone)]
pub struct Team {
    size: usize,
    program: PathBuf,
    args: Vec<OsString>,
    token: u64,
}

impl Team {
    /// `size` processes of this program, with the arguments that it was given.
    ///
    /// Errors: [`Error::Team`], where the system does not say which program this is.
    pub fn of_this_program(size: usize) -> Result<Self, Error> {
        let program = std::env::current_exe()
            .map_err(|error| Error::Team(format!("this program is not found: {error}")))?;
        Ok(Self::new(size, program, std::env::args_os().skip(1).collect()))
    }

    /// `size` processes, of which the others are `program` with `args`.
    pub fn new(size: usize, program: PathBuf, args: Vec<OsString>) -> Self {
        // Nobody else on this machine can guess it.
        Self { size, program, args, token: RandomState::new().hash_one(std::process::id()) }
    }

    /// How many processes it has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What its processes say to each other to be known.
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Starts the others, which meet this one at `port` of this machine.
    ///
    /// Errors: [`Error::Team`]; those that were started are ended.
    pub(crate) fn spawn(&self, port: u16) -> Result<Started, Error> {
        let mut started = Started(Vec::new());
        for rank in 1..self.size {
            let mut command = Command::new(&self.program);
            command.args(&self.args).stdin(Stdio::null());
            command.envs(Variables::of_torchrun(rank, self.size, port));
            command.env(TOKEN, self.token.to_string());
            let child = command.spawn().map_err(|error| {
                Error::Team(format!("{} cannot be started: {error}", self.program.display()))
            })?;
            started.0.push((rank, child));
        }
        Ok(started)
    }
}

/// Processes that were started, each with its number. They are ended with it.
#[derive(Debug)]
pub(crate) struct Started(Vec<(usize, Child)>);

impl Started {
    /// Looks whether all are still there.
    ///
    /// Errors: [`Error::Team`], if one has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        for (rank, child) in &mut self.0 {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Error::Team(format!("process {rank} has ended ({status})")));
            }
        }
        Ok(())
    }

    /// Waits for their ends, which are near, until `deadline`.
    pub(crate) fn wait(&mut self, deadline: Instant) {
        self.0.retain_mut(|(_, child)| {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    return true;
                }
                thread::sleep(LOOK_EVERY);
            }
            false
        });
    }

    /// Ends them.
    pub(crate) fn kill(&mut self) {
        for (_, child) in &mut self.0 {
            // One that has ended needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
    }
}
