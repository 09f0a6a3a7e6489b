//! `cargo xtask ci`: every check of the repository, the cheapest first. It installs nothing; what a check needs and does
//! not find leaves it out, with a line that says so.

use crate::repository::repository;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Which checks to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these, by name; all of them if absent.
    #[arg(value_name = "CHECK")]
    only: Vec<String>,
    /// Say what the checks are, and run none.
    #[arg(long)]
    list: bool,
    /// Let `kernels` install the pinned compiler into target/ if the machine has none.
    #[arg(long)]
    install_compiler: bool,
}

/// How a check ended that did not fail.
enum Outcome {
    Passed,
    /// Something is missing on this machine.
    LeftOut(&'static str),
}

/// One check.
struct Check {
    name: &'static str,
    about: &'static str,
    run: fn(&Args) -> Result<Outcome>,
}

const CHECKS: [Check; 10] = [
    Check { name: "fmt", about: "sources are formatted", run: fmt },
    Check { name: "tidy", about: "the rules of the repository", run: tidy },
    Check { name: "clippy", about: "no lint complains, in any target", run: clippy },
    Check { name: "doc", about: "documentation builds without a warning", run: doc },
    Check { name: "test", about: "all tests, the kernels on the emulator among them", run: test },
    Check {
        name: "aarch64",
        about: "the other architecture, on an emulated processor",
        run: aarch64,
    },
    Check { name: "kernels", about: "the PTX is what its sources compile to", run: kernels },
    Check {
        name: "memory",
        about: "plans stay in their budgets, and a run in its plan",
        run: memory,
    },
    Check { name: "readme", about: "the README's job, cut short", run: readme },
    Check { name: "parity", about: "INT8 states learn as FP32 Lion does, in short", run: parity },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        CHECKS.iter().for_each(|check| println!("{:8} {}", check.name, check.about));
        return Ok(());
    }
    let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
    if let Some(unknown) = args.only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no check is called {unknown}; there are {}", names.join(", "));
    }
    let mut left_out = Vec::new();
    for check in &CHECKS {
        if !args.only.is_empty() && !args.only.iter().any(|name| name == check.name) {
            continue;
        }
        println!("== {}: {}", check.name, check.about);
        let begun = Instant::now();
        let outcome = (check.run)(args).with_context(|| {
            format!("{}; to run it alone: cargo xtask ci {}", check.name, check.name)
        })?;
        if let Outcome::LeftOut(why) = outcome {
            println!("left out: {why}");
            left_out.push(check.name);
        }
        println!("== {}: {:.0} s", check.name, begun.elapsed().as_secs_f64());
    }
    match left_out.is_empty() {
        true => println!("ci: all checks passed"),
        false => {
            println!("ci: all checks passed but those that were left out: {}", left_out.join(", "))
        }
    }
    Ok(())
}

fn fmt(_: &Args) -> Result<Outcome> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn tidy(_: &Args) -> Result<Outcome> {
    crate::tidy::run().map(|()| Outcome::Passed)
}

fn clippy(_: &Args) -> Result<Outcome> {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
}

fn doc(_: &Args) -> Result<Outcome> {
    cargo(&["doc", "--workspace", "--no-deps", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])
}

fn test(_: &Args) -> Result<Outcome> {
    cargo(&["test", "--workspace"], &[])
}

/// It compiles, and on an emulated processor integer products have the same bits.
fn aarch64(_: &Args) -> Result<Outcome> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    const LINKER: &str = "aarch64-linux-gnu-gcc";
    const EMULATOR: &str = "qemu-aarch64-static";
    if !has_target(TARGET) || on_path(LINKER).is_none() || on_path(EMULATOR).is_none() {
        return Ok(Outcome::LeftOut("its Rust target, its gcc or qemu is missing"));
    }
    let runner = format!("{EMULATOR} -L /usr/aarch64-linux-gnu -cpu max");
    let variables = [
        ("CC_aarch64_unknown_linux_gnu", LINKER),
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER),
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", &runner),
    ];
    // What knows of processors, and what stands on it; above, there is nothing of them, but C that takes long.
    let crates = ["-p", "qft-llama", "-p", "qft-cuda", "-p", "qft-processes"];
    cargo(&[&["check"][..], &crates, &["--target", TARGET]].concat(), &variables)?;
    let test = ["test", "-p", "qft-tensor", "--test", "gemm", "--target", TARGET];
    let only = ["--", "--nocapture", "borders", "missing_scales", "views"];
    cargo(&[&test[..], &only].concat(), &variables)
}

/// Without spills, on every target; the tests compare hashes only.
fn kernels(args: &Args) -> Result<Outcome> {
    let installed = crate::kernels::environment().exists();
    let given = std::env::var_os("QFT_NVCC").is_some_and(|path| !path.is_empty());
    if !args.install_compiler && !installed && !given && on_path("nvcc").is_none() {
        return Ok(Outcome::LeftOut(
            "there is no nvcc; --install-compiler installs one into target/",
        ));
    }
    xtask(&["kernels", "--reproduce"])
}

fn memory(_: &Args) -> Result<Outcome> {
    let mut all = this_program()?;
    succeed(all.arg("bench-memory").stdout(Stdio::null()))?;
    let mode = ["--model", "llama-15m", "--states", "full", "--tokens", "512"];
    xtask(&[&["bench-memory"][..], &mode, &["--run", "--checkpoint"]].concat())
}

fn readme(_: &Args) -> Result<Outcome> {
    // New each time: a folder that holds a run is not written over.
    let temporary = tempfile::tempdir()?;
    let out = temporary.path().join("run");
    let out = out.to_str().context("the path of the temporary folder is not UTF-8")?;
    // Together with this program, whose features and profile it then has, so that their libraries are not built twice.
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    cargo(&[&["build", "-p", "xtask", "-p", "qft-train"], profile].concat(), &[])?;
    let job = ["finetune", "--config", "examples/shakespeare.toml", "--steps", "10", "--out", out];
    succeed(program("qft")?.args(job))?;
    let eval = ["eval", "--model", out, "--data", "examples/tinyshakespeare.txt", "--limit", "4"];
    succeed(program("qft")?.args(eval))
}

/// Into a new folder: what has run is not run again.
fn parity(_: &Args) -> Result<Outcome> {
    let temporary = tempfile::tempdir()?;
    let file = |name| temporary.path().join(name);
    let mut quick = this_program()?;
    quick.args(["parity", "--quick", "--results"]).arg(file("quick.jsonl"));
    succeed(quick.arg("--report").arg(file("quick.md")))
}

fn cargo(args: &[&str], variables: &[(&str, &str)]) -> Result<Outcome> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    // What the cargo that started this program says of it; libraries in C would take it for a change, and be built again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    succeed(command.args(args).envs(variables.iter().copied()).current_dir(repository()))
}

/// This program, which was built already.
fn this_program() -> Result<Command> {
    program("xtask")
}

/// A program that was built beside this one.
fn program(name: &str) -> Result<Command> {
    let this = std::env::current_exe().context("this program does not find itself")?;
    let mut command = Command::new(this.with_file_name(name));
    command.current_dir(repository());
    Ok(command)
}

fn xtask(args: &[&str]) -> Result<Outcome> {
    succeed(this_program()?.args(args))
}

fn succeed(command: &mut Command) -> Result<Outcome> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(Outcome::Passed)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether the compiler has the standard library of that target.
fn has_target(target: &str) -> bool {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(repository())
        .output();
    libraries.is_ok_and(|output| {
        let folder = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(folder.trim()).is_dir()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(only: &[&str]) -> Args {
        let only = only.iter().map(|&name| name.to_owned()).collect();
        Args { only, list: false, install_compiler: false }
    }

    #[test]
    fn an_unknown_check_is_refused() {
        let told = run(&args(&["fmt", "lint"])).unwrap_err().to_string();
        assert!(told.contains("lint") && told.contains("clippy"), "{told}");
    }

    #[test]
    fn a_command_that_fails_is_named() {
        let told = succeed(Command::new("cargo").arg("no-such-command").stderr(Stdio::null()));
        let told = told.err().unwrap().to_string();
        assert!(told.starts_with("cargo no-such-command: "), "{told}");
    }
}
