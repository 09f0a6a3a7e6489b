//! `cargo xtask gpu-check`: everything that is checked on a machine with a GPU, as one folder or archive that can be carried
//! there.

use crate::repository::repository;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only build and gather everything into this new folder, and an archive of it beside it; on the
    /// other machine, `python3 scripts/gpu_check.py` in it does the rest.
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, value_name = "FILE", default_value = "gpu-check.json", conflicts_with = "pack")]
    out: PathBuf,
    /// GPUs that share a run; all of the machine, if nothing is said.
    #[arg(long, value_name = "N", conflicts_with = "pack")]
    ranks: Option<u32>,
}

/// Files of the repository that the checks read.
const FILES: [&str; 7] = [
    "scripts/gpu_check.py",
    "scripts/compare_gemm.py",
    "scripts/compare_gpu.py",
    "docs/memory-budget.toml",
    "examples/stories260k",
    "examples/shakespeare.toml",
    "examples/tinyshakespeare.txt",
];

/// Files that tests read, where they are.
const TEST_DATA: &str = "crates/qft-testing/data";

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = repository();
    if let Some(dir) = &args.pack {
        pack(&root, dir)?;
        return archive(dir);
    }
    let temporary = tempfile::tempdir()?;
    let dir = temporary.path().join("gpu-check");
    pack(&root, &dir)?;
    let out = std::path::absolute(&args.out)?;
    let status = Command::new("python3")
        .arg("scripts/gpu_check.py")
        .arg("--out")
        .arg(&out)
        .args(args.ranks.map(|ranks| format!("--ranks={ranks}")))
        .current_dir(&dir)
        .status()
        .context("cannot start python3")?;
    ensure!(status.success(), "the check failed ({status}); see {}", out.display());
    Ok(())
}

fn pack(root: &Path, dir: &Path) -> Result<()> {
    ensure!(!dir.exists(), "--pack: {} exists; give a new folder", dir.display());
    let release = ["build", "--release", "-p", "qft-train", "-p", "xtask"];
    let programs = executables(root, &release, "bin")?;
    let tests = executables(root, &["test", "--no-run", "-p", "qft-cuda"], "test")?;
    ensure!(!tests.is_empty(), "cargo built no test of qft-cuda");
    let open = ["build", "--release", "-p", "qft-cuda", "--example", "gpu_open"];
    let examples = executables(root, &open, "example")?;
    for name in ["qft", "xtask", "gpu_open"] {
        let from = programs.get(name).or_else(|| examples.get(name));
        let from = from.with_context(|| format!("cargo built no {name}"))?;
        place(from, &dir.join("bin").join(name))?;
    }
    for (name, from) in &tests {
        place(from, &dir.join("tests").join(name))?;
    }
    for file in FILES.into_iter().chain([TEST_DATA]) {
        copy(&root.join(file), &dir.join(file))?;
    }
    let bytes = size(dir)?;
    println!(
        "{}: 3 programs, {} test programs, {:.0} MB; there: python3 scripts/gpu_check.py",
        dir.display(),
        tests.len(),
        bytes as f64 * 1e-6
    );
    Ok(())
}

/// Packs a folder into an archive beside it.
fn archive(dir: &Path) -> Result<()> {
    let (parent, name) = dir.parent().zip(dir.file_name()).context("--pack: not a folder")?;
    let archive = dir.with_file_name(format!("{}.tar.xz", name.to_string_lossy()));
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let mut tar = Command::new("tar");
    tar.arg("-cJf").arg(&archive).arg("-C").args([parent.as_os_str(), name]);
    let status = tar.status().context("cannot start tar")?;
    ensure!(status.success(), "tar cannot make {} ({status}); is xz there?", archive.display());
    println!("{}: {:.1} MB", archive.display(), size(&archive)? as f64 * 1e-6);
    Ok(())
}

/// One line of cargo's messages, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Runs cargo and returns the executables of `kind` that it built, by name.
fn executables(root: &Path, args: &[&str], kind: &str) -> Result<BTreeMap<String, PathBuf>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo {} failed", args.join(" "));
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Message = serde_json::from_str(line).context("a message of cargo")?;
        if let (true, Some(target), Some(path)) =
            (message.reason == "compiler-artifact", message.target, message.executable)
            && target.kind.iter().any(|k| k == kind)
        {
            found.insert(target.name, path);
        }
    }
    Ok(found)
}

/// Copies an executable without its debug information, where a tool for that is at hand.
fn place(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    match Command::new("strip").arg(to).status() {
        Ok(status) if !status.success() => bail!("strip {} failed", to.display()),
        _ => Ok(()),
    }
}

/// Copies a file, or a folder with all in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let parent = to.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::copy(from, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(path.metadata()?.len());
    }
    std::fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}
