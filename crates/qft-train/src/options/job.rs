//! The processes of a job, and how they behave to each other.

use super::machine::{DeviceChoice, MachineArgs};
use super::value::whole;
use crate::error::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// More processes than any machine has use for: a slip.
const MAX_PROCESSES: usize = 1024;

/// The processes of a job, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct JobArgs {
    /// Processes on this machine that share the run, each with a GPU if --device is cuda; they need no MPI [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Machine")]
    pub processes: Option<usize>,
    /// GPUs of this machine that share the run: short for --device cuda --processes N
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Machine")]
    pub gpus: Option<usize>,
    /// Seconds that processes of a job wait for each other before they give up; longer than saving the model
    /// takes [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Machine")]
    pub comm_timeout: Option<u64>,
}

/// The processes of a job, and how they behave to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobOptions {
    /// How many are started on this machine, this one included; absent: none but those of a launcher.
    pub processes: Option<usize>,
    /// How long they wait for each other.
    pub timeout: Duration,
}

impl JobArgs {
    /// Fills in the defaults and checks everything; `machine` gets the device that comes with it.
    ///
    /// Errors: no processes, or no time at all; options that say different things.
    pub fn resolve(self, machine: &mut MachineArgs) -> Result<JobOptions> {
        let Self { mut processes, gpus, comm_timeout } = self;
        if let Some(gpus) = gpus {
            ensure!(gpus > 0, "--gpus is 0; give at least 1, or --device cpu");
            ensure!(
                processes.is_none_or(|processes| processes == gpus),
                "--gpus and --processes say different numbers; give one of them"
            );
            ensure!(
                machine.device != Some(DeviceChoice::Cpu),
                "--gpus and --device cpu cannot be used together; give --processes for processes on the CPU"
            );
            machine.device.get_or_insert(DeviceChoice::Cuda(0));
            processes = Some(gpus);
        }
        ensure!(processes != Some(0), "--processes is 0; give at least 1, or leave it out");
        ensure!(
            processes.is_none_or(|processes| processes <= MAX_PROCESSES),
            "--processes is more than {MAX_PROCESSES}; give as many as the machine has GPUs or groups of cores"
        );
        let seconds = comm_timeout.unwrap_or(600);
        ensure!(seconds > 0, "--comm-timeout is 0; give a number of seconds, such as 600");
        Ok(JobOptions { processes, timeout: Duration::from_secs(seconds) })
    }
}
