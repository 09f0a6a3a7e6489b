//! What the processes of a job exchange: by MPI, loaded at run time, or by TCP.
//!
//! * [`Launch`]: whether a launcher started this process as one of several, from the variables that launchers set.
//! * [`Processes`]: the [`Communicator`](qft_tensor::Communicator) of those processes. Under `mpirun`, `mpiexec` and `srun` the
//!   MPI library of the machine is looked for when it is opened, and is spoken to in its own binary interface: Open MPI's,
//!   MPICH's, or that of the MPI 5 standard. With the variables of `torchrun`, which anybody can set, processes meet by TCP.
//! * [`Team`]: processes that this one starts on its machine.
//! * [`agree()`]: whether all processes have the same versions, options and data.
//!
//! A process alone loads nothing:
//!
//! ```no_run
//! use qft_processes::{Deadlines, Launch, Processes};
//! use qft_tensor::Communicator;
//! use std::time::Duration;
//!
//! if let Some(launch) = Launch::detect()? {
//!     let processes = Processes::open(&launch, Deadlines::of(Duration::from_secs(600)))?;
//!     let mut steps = [300];
//!     if let Err(error) = processes.max(&mut steps) {
//!         eprintln!("error: {error}");
//!         processes.abort();
//!     }
//!     processes.finish();
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a job ends
//!
//! `MPI_Finalize` waits for all processes, so it is called at the good end only, by [`Processes::finish`]. Whatever else ends a
//! process ends the job: [`abort`](qft_tensor::Communicator::abort), a panic, or dropping the communicator. MPI ends the other
//! processes; by TCP they hear of it at their next exchange. What is to be said of an error has to be printed before.

#![cfg(unix)]

pub mod agree;
pub mod deadlines;
mod ending;
pub mod error;
pub mod launcher;
mod mpi;
pub mod processes;
mod tcp;
pub mod team;

pub use agree::agree;
pub use deadlines::Deadlines;
pub use error::Error;
pub use launcher::{Launch, Launcher, Master};
pub use mpi::staging_bytes;
pub use processes::Processes;
pub use team::Team;
