//! How processes of one job behave to each other.

use super::value::whole;
use crate::error::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How processes of one job behave to each other, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct JobArgs {
    /// Seconds that processes of a job (mpirun, srun) wait for each other before they give up; longer than saving the model
    /// takes [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Machine")]
    pub comm_timeout: Option<u64>,
}

/// How processes of one job behave to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobOptions {
    /// How long they wait for each other.
    pub timeout: Duration,
}

impl JobArgs {
    /// Fills in the default and checks it.
    ///
    /// Errors: no time at all.
    pub fn resolve(self) -> Result<JobOptions> {
        let seconds = self.comm_timeout.unwrap_or(600);
        ensure!(seconds > 0, "--comm-timeout is 0; give a number of seconds, such as 600");
        Ok(JobOptions { timeout: Duration::from_secs(seconds) })
    }
}
