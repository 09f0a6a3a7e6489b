//! MPI, loaded at run time: what the processes of a job exchange.
//!
//! * [`Launch`]: whether a launcher started this process as one of several, from the variables that launchers set.
//! * [`Mpi`]: the [`Communicator`](qft_tensor::Communicator) of those processes. The library of the machine is looked for when
//!   it is opened, and is spoken to in its own binary interface: Open MPI's, MPICH's, or that of the MPI 5 standard.
//! * [`agree()`]: whether all processes have the same versions, options and data.
//!
//! A process alone loads nothing:
//!
//! ```no_run
//! use qft_mpi::{Deadlines, Launch, Mpi};
//! use qft_tensor::Communicator;
//! use std::time::Duration;
//!
//! if let Some(launch) = Launch::detect()? {
//!     let mpi = Mpi::open(&launch, Deadlines::of(Duration::from_secs(600)))?;
//!     let mut steps = [300];
//!     if let Err(error) = mpi.max(&mut steps) {
//!         eprintln!("error: {error}");
//!         mpi.abort();
//!     }
//!     mpi.finish();
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a job ends
//!
//! `MPI_Finalize` waits for all processes, so it is called at the good end only, by [`Mpi::finish`]. Whatever else ends a process
//! ends the job: [`abort`](qft_tensor::Communicator::abort), a panic, or dropping the communicator. What is to be said of an
//! error has to be printed before.

#![cfg(unix)]

pub mod agree;
mod calls;
pub mod communicator;
pub mod error;
mod exchange;
mod interface;
pub mod launcher;
mod library;
mod line;
mod packed;
mod worker;

pub use agree::agree;
pub use communicator::Mpi;
pub use error::Error;
pub use launcher::{Launch, Launcher, Master};
pub use line::Deadlines;
pub use packed::staging_bytes;
