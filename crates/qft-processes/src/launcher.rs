//! Who started this process, and as one of how many.

use crate::Error;
use std::fmt;

/// A program that starts the processes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH, Intel MPI and their relatives, and `srun --mpi=pmi2`.
    Mpich,
    /// `torchrun`, or a person who sets its variables. It knows no MPI.
    Torchrun,
    /// `srun`: a step of a job of Slurm.
    Slurm,
    /// Another launcher that speaks PMIx.
    Pmix,
}

impl Launcher {
    /// Whether a library that calls itself so is likely to be the launcher's own.
    pub(crate) fn may_belong_to(self, library: &str) -> bool {
        let is_open_mpi = library.contains("Open MPI");
        match self {
            Self::OpenMpi => is_open_mpi,
            Self::Mpich => !is_open_mpi,
            Self::Torchrun | Self::Slurm | Self::Pmix => true,
        }
    }
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenMpi => "mpirun of Open MPI",
            Self::Mpich => "mpiexec of MPICH's kind",
            Self::Torchrun => "torchrun",
            Self::Slurm => "srun of Slurm",
            Self::Pmix => "a launcher with PMIx",
        })
    }
}

/// Another process of the job has to say this number to be known as one; anybody may where it is not set.
pub(crate) const TOKEN: &str = "QFT_JOB_TOKEN";

/// What is in [`TOKEN`].
///
/// Errors: [`Error::Variable`].
pub(crate) fn token() -> Result<u64, Error> {
    let Ok(value) = std::env::var(TOKEN) else { return Ok(0) };
    let launcher = Launcher::Torchrun;
    let expected = "a whole number, the same for all processes".to_owned();
    value.parse().map_err(|_| Error::Variable { launcher, name: TOKEN, value, expected })
}

/// Set to this where `torchrun` itself holds the port.
const PORT_IS_HELD: (&str, &str) = ("TORCHELASTIC_USE_AGENT_STORE", "True");

/// Where processes meet that `torchrun` started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Host name or address.
    pub host: String,
    /// Port: the one behind that of the launcher, where it holds its own.
    pub port: u16,
}

/// This process among those of its job, as the launcher's variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Who started it.
    pub launcher: Launcher,
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are, more than one; PMIx does not say it.
    pub size: Option<usize>,
    /// Its number among those of its machine, from 0, where the launcher says it.
    pub local_rank: Option<usize>,
    /// Where they meet, of `torchrun` alone.
    pub master: Option<Master>,
}

/// The variables of a launcher.
pub(crate) struct Variables {
    launcher: Launcher,
    rank: &'static str,
    size: Option<&'static str>,
    local_rank: Option<&'static str>,
}

/// Where the processes of `torchrun` meet.
const ADDRESS: &str = "MASTER_ADDR";
const PORT: &str = "MASTER_PORT";

/// In the order in which they are asked: what runs within the other comes first. Not `SLURM_NTASKS`, which a shell of `salloc`
/// has as well.
const LAUNCHERS: [Variables; 5] = [
    Variables {
        launcher: Launcher::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        size: Some("OMPI_COMM_WORLD_SIZE"),
        local_rank: Some("OMPI_COMM_WORLD_LOCAL_RANK"),
    },
    Variables {
        launcher: Launcher::Mpich,
        rank: "PMI_RANK",
        size: Some("PMI_SIZE"),
        local_rank: Some("MPI_LOCALRANKID"),
    },
    Variables {
        launcher: Launcher::Torchrun,
        rank: "RANK",
        size: Some("WORLD_SIZE"),
        local_rank: Some("LOCAL_RANK"),
    },
    Variables {
        launcher: Launcher::Slurm,
        rank: "SLURM_PROCID",
        size: Some("SLURM_STEP_NUM_TASKS"),
        local_rank: Some("SLURM_LOCALID"),
    },
    Variables { launcher: Launcher::Pmix, rank: "PMIX_RANK", size: None, local_rank: None },
];

impl Launch {
    /// What the environment says; `None` if this process is alone.
    ///
    /// Errors: [`Error::Variable`] where a launcher's variables are no numbers that fit together.
    pub fn detect() -> Result<Option<Self>, Error> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// What these variables say: the first launcher that started more than one process; `None` if none did.
    ///
    /// Errors: those of [`Launch::detect`].
    pub fn from_variables(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        // What is set by hand is not taken for torchrun's, which has somewhere to meet.
        let met = match [lookup(ADDRESS), lookup(PORT)] {
            [Some(host), Some(port)] => Some((host, port)),
            [None, None] => None,
            [_, port] => {
                let numbered = lookup("RANK").is_some()
                    && lookup("WORLD_SIZE").is_some_and(|processes| processes != "1");
                let (name, expected) = match port {
                    None => (PORT, "the port at which the processes meet"),
                    Some(_) => (ADDRESS, "the machine of process 0"),
                };
                if numbered {
                    return Err(Error::Variable {
                        launcher: Launcher::Torchrun,
                        name,
                        value: String::new(),
                        expected: expected.to_owned(),
                    });
                }
                None
            }
        };
        for variables in &LAUNCHERS {
            let torchrun = variables.launcher == Launcher::Torchrun;
            if (torchrun && met.is_none()) || variables.size.is_some_and(|n| lookup(n).is_none()) {
                continue;
            }
            if let Some(launch) = variables.read(&lookup)? {
                let held = lookup(PORT_IS_HELD.0).is_some_and(|value| value == PORT_IS_HELD.1);
                let met = met.clone().filter(|_| torchrun);
                let master = met.map(|met| master(met, held)).transpose()?;
                return Ok(Some(Self { master, ..launch }));
            }
        }
        Ok(None)
    }
}

impl Variables {
    /// What `torchrun` would set for a process whose job is on this machine alone and meets at `port`.
    pub(crate) fn of_torchrun(rank: usize, size: usize, port: u16) -> [(&'static str, String); 6] {
        [
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", size.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            (ADDRESS, "127.0.0.1".to_owned()),
            (PORT, port.to_string()),
            (PORT_IS_HELD.0, String::new()),
        ]
    }

    /// What they say, without the place to meet; `None` if they are not set, or there is one process.
    fn read(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launch>, Error> {
        let wrong = |name, value, expected| Error::Variable {
            launcher: self.launcher,
            name,
            value,
            expected,
        };
        let number = |name| {
            let Some(value) = lookup(name) else { return Ok(None) };
            let parsed = value.parse::<usize>();
            parsed.map(Some).map_err(|_| wrong(name, value, "a whole number".to_owned()))
        };
        let size = self.size.map_or(Ok(None), number)?;
        if size == Some(1) {
            return Ok(None);
        }
        let Some(rank) = number(self.rank)? else {
            let missing = || wrong(self.rank, String::new(), "the number of this process".into());
            return if size.is_some() { Err(missing()) } else { Ok(None) };
        };
        if let Some(size) = size.filter(|size| rank >= *size) {
            return Err(wrong(self.rank, rank.to_string(), format!("less than {size}")));
        }
        let local_rank = self.local_rank.map_or(Ok(None), number)?;
        Ok(Some(Launch { launcher: self.launcher, rank, size, local_rank, master: None }))
    }
}

/// The place to meet; whether its port is `held`.
fn master((host, port): (String, String), held: bool) -> Result<Master, Error> {
    let parsed = port.parse().ok().and_then(|port: u16| port.checked_add(u16::from(held)));
    let wrong = || Error::Variable {
        launcher: Launcher::Torchrun,
        name: "MASTER_PORT",
        value: port,
        expected: "a port, 0 to 65535".to_owned(),
    };
    Ok(Master { port: parsed.ok_or_else(wrong)?, host })
}

#[cfg(test)]
mod tests;
