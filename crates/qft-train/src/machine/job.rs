//! The processes of a job as a run sees them: all take the same steps, and one of them leads, which speaks and writes.

use crate::error::Result;
#[cfg(unix)]
use crate::error::{Error, ErrorKind};
use qft_tensor::communicator::{bytes_of_first, of_first};
use qft_tensor::{Alone, Communicator};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes that a name of a machine may have.
const NAME_BYTES: usize = 256;

/// How long processes wait for each other, if nothing else was said.
const USUAL_DEADLINE: Duration = Duration::from_secs(600);

/// The job of a run.
#[derive(Debug, Clone)]
pub struct Job {
    processes: Arc<dyn Communicator>,
    deadline: Duration,
}

impl fmt::Display for Job {
    /// `process 1 of 4 on node7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of {}", self.processes.rank(), self.processes.size())?;
        match machine_name() {
            Some(name) => write!(f, " on {name}"),
            None => Ok(()),
        }
    }
}

/// The name of this machine, if the system tells.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

impl Job {
    /// Of one process.
    pub fn alone() -> Self {
        Self::of(Arc::new(Alone))
    }

    /// Of these processes.
    pub fn of(processes: Arc<dyn Communicator>) -> Self {
        Self { processes, deadline: USUAL_DEADLINE }
    }

    /// The same, whose processes wait so long for each other.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// How long processes wait for each other.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Its processes.
    pub fn processes(&self) -> Arc<dyn Communicator> {
        Arc::clone(&self.processes)
    }

    /// How many processes it has.
    pub fn size(&self) -> usize {
        self.processes.size()
    }

    /// Whether this process is the one that speaks and writes.
    pub fn leads(&self) -> bool {
        self.processes.rank() == 0
    }

    /// Whether this process is the only one.
    pub fn is_alone(&self) -> bool {
        self.processes.size() == 1
    }

    /// Whether any process was asked to stop: all hear the same.
    pub fn stops(&self, stop: &AtomicBool) -> Result<bool> {
        self.any(stop.load(Ordering::Relaxed))
    }

    /// Whether any process says so: all hear the same.
    pub fn any(&self, own: bool) -> Result<bool> {
        let mut any = [u32::from(own)];
        self.processes.max(&mut any)?;
        Ok(any[0] > 0)
    }

    /// The number that the process that leads has; all hear it.
    pub fn of_leader(&self, own: u32) -> Result<u32> {
        Ok(of_first(&*self.processes, own)?)
    }

    /// The text that the process that leads has, if it has one; all hear it.
    pub fn text_of_leader(&self, own: Option<&str>) -> Result<Option<String>> {
        let own = own.filter(|_| self.leads());
        let length = self.of_leader(own.map_or(u32::MAX, |text| text.len() as u32))?;
        if length == u32::MAX {
            return Ok(None);
        }
        let mut bytes =
            own.map_or_else(|| vec![0; length as usize], |text| text.as_bytes().to_vec());
        bytes_of_first(&*self.processes, &mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The least that any process has, if all know; all hear the same.
    pub fn least(&self, bytes: Option<u64>) -> Result<Option<u64>> {
        let all = self.gather(bytes.unwrap_or(u64::MAX).to_le_bytes())?;
        let least = all.into_iter().map(u64::from_le_bytes).min();
        Ok(least.filter(|&least| least < u64::MAX))
    }

    /// This process among those on its machine, by the machine's name: its number, from 0, and how many there are.
    pub fn on_this_machine(&self) -> Result<(usize, usize)> {
        let name = machine_name().unwrap_or_default();
        let mut own = [0; NAME_BYTES];
        let used = name.len().min(NAME_BYTES);
        own[..used].copy_from_slice(&name.as_bytes()[..used]);
        let all = self.gather(own)?;
        let here = |names: &[[u8; NAME_BYTES]]| names.iter().filter(|name| **name == own).count();
        Ok((here(&all[..self.processes.rank()]), here(&all)))
    }

    /// Makes sure that all processes have the same values under the same names.
    ///
    /// Errors: the first that differs, with both values.
    pub fn agree(&self, what: &[(&str, String)]) -> Result<()> {
        #[cfg(unix)]
        if let Err(differs) = qft_processes::agree(&*self.processes, what) {
            return Err(Error::new(ErrorKind::Options, differs));
        }
        #[cfg(not(unix))]
        let _ = what;
        Ok(())
    }

    /// What every process brings.
    fn gather<const N: usize>(&self, own: [u8; N]) -> Result<Vec<[u8; N]>> {
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let parts: Vec<_> = (0..size).map(|rank| rank * N..(rank + 1) * N).collect();
        let mut all = vec![0; size * N];
        all[parts[rank].clone()].copy_from_slice(&own);
        self.processes.gather(&mut all, &parts)?;
        Ok(all.as_chunks::<N>().0.to_vec())
    }
}
