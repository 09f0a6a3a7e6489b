//! `cargo xtask kernels`: compiles the CUDA sources to the PTX that `qft-cuda` embeds, and checks what was committed.

mod assembler;
mod drivers;
mod toolkit;

pub(crate) use toolkit::environment;

use anyhow::{Context, Result, ensure};
use assembler::{Spills, table_head};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use toolkit::Toolkit;

/// What to compile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only compare sources with the committed PTX, by hash: needs no compiler.
    #[arg(long)]
    check: bool,
    /// Compile every source anew; fail if the PTX differs from the committed one.
    #[arg(long, conflicts_with = "check")]
    reproduce: bool,
    /// Assemble the committed PTX as older and newer drivers would: takes minutes.
    #[arg(long, conflicts_with_all = ["check", "reproduce"])]
    drivers: bool,
}

/// kernels.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    packages: Vec<String>,
    compiler: String,
    flags: Vec<String>,
    machine: Target,
    /// For sources that are not for that machine, by name.
    only: BTreeMap<String, Target>,
    /// Kernels that may spill, each with the reason.
    spills: BTreeMap<String, String>,
    /// Assemblers of drivers, by the release of CUDA.
    drivers: BTreeMap<String, drivers::Assembler>,
    /// Kernels that may spill with these, each with most bytes.
    driver_spills: BTreeMap<String, u32>,
}

/// What a source is compiled for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Target {
    architecture: String,
    ptx_version: String,
    targets: Vec<String>,
}

/// A kernel source, and the PTX that it should have.
struct Source {
    name: String,
    path: PathBuf,
    ptx: PathBuf,
    machine: Target,
    /// First line of an up-to-date PTX file.
    stamp: String,
}

impl Source {
    fn is_current(&self) -> bool {
        fs::read_to_string(&self.ptx).is_ok_and(|text| text.lines().next() == Some(&*self.stamp))
    }
}

/// The folder of the kernels.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels")
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = folder();
    let config = config(&folder)?;
    let sources = sources(&folder, &config)?;
    if args.check || args.drivers {
        check(&folder, &sources)?;
    }
    if args.drivers {
        return drivers::prove(&config, &sources);
    }
    if args.check {
        return Ok(());
    }
    for orphan in orphans(&folder, &sources)? {
        println!("removing {}: its source is gone", orphan.display());
        fs::remove_file(orphan)?;
    }
    let stale: Vec<_> = sources.iter().filter(|s| args.reproduce || !s.is_current()).collect();
    if stale.is_empty() {
        println!("kernels: all {} are current", sources.len());
        return Ok(());
    }
    let toolkit = Toolkit::find(&config)?;
    let compile = |source: &Source| toolkit.compile(&folder, &config, source);
    let compiled: Vec<_> = stale.par_iter().map(|source| compile(source)).collect();
    table_head();
    let mut problems = Vec::new();
    for (source, compiled) in stale.into_iter().zip(compiled) {
        let (ptx, usages) = compiled?;
        problems.extend(assembler::report(&usages, &Spills::Named(&config.spills)));
        if !args.reproduce {
            fs::write(&source.ptx, ptx)?;
        } else if fs::read_to_string(&source.ptx).ok().as_ref() != Some(&ptx) {
            problems.push(format!("{}.ptx is not what its source compiles to", source.name));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn config(folder: &Path) -> Result<Config> {
    let path = folder.join("kernels.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// Every source with the stamp that its PTX should carry.
fn sources(folder: &Path, config: &Config) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for path in files(folder, "cu")? {
        let name = stem(&path);
        let mut hash = Fnv::default();
        let machine = config.only.get(&name).unwrap_or(&config.machine).clone();
        let settings =
            (&config.compiler, &config.flags, &machine.architecture, &machine.ptx_version);
        hash.update(format!("{settings:?}").as_bytes());
        for file in with_includes(folder, &path)? {
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update(&fs::read(&file)?);
        }
        let stamp = format!(
            "// kernels/{name}.cu, hash {:016x}, nvcc {}: made by `cargo xtask kernels`, not to be edited",
            hash.0, config.compiler
        );
        let ptx = folder.join("ptx").join(format!("{name}.ptx"));
        found.push(Source { name, path, ptx, machine, stamp });
    }
    for name in config.only.keys() {
        ensure!(found.iter().any(|source| source.name == *name), "kernels.toml: no source {name}");
    }
    Ok(found)
}

/// The file and every header of `include/` that it includes, at any depth, each once, in a fixed order.
fn with_includes(folder: &Path, path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut headers = BTreeSet::new();
    let mut next = 0;
    while let Some(file) = found.get(next) {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for line in text.lines() {
            let name =
                line.trim().strip_prefix("#include \"").and_then(|rest| rest.split('"').next());
            if let Some(header) = name.map(|name| folder.join("include").join(name))
                // The emulator's header is included on the host only.
                && header.exists()
                && headers.insert(header.clone())
            {
                found.push(header);
            }
        }
        next += 1;
    }
    Ok(found)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// PTX files without a source.
fn orphans(folder: &Path, sources: &[Source]) -> Result<Vec<PathBuf>> {
    let mut ptx = files(&folder.join("ptx"), "ptx")?;
    ptx.retain(|path| sources.iter().all(|source| source.name != stem(path)));
    Ok(ptx)
}

fn check(folder: &Path, sources: &[Source]) -> Result<()> {
    let stale = sources.iter().filter(|s| !s.is_current()).map(|s| s.path.clone());
    let problems: Vec<_> = stale
        .chain(orphans(folder, sources)?)
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    ensure!(
        problems.is_empty(),
        "kernels/ptx does not belong to the sources ({}): run `cargo xtask kernels` and commit what it writes",
        problems.join(", ")
    );
    println!("kernels: all {} are current", sources.len());
    Ok(())
}

/// 64-bit FNV-1a: tells an accidental difference, and is the same everywhere.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_ptx_belongs_to_the_sources() {
        let folder = folder();
        let config = config(&folder).unwrap();
        let sources = sources(&folder, &config).unwrap();
        assert!(!sources.is_empty());
        check(&folder, &sources).unwrap();
    }
}
