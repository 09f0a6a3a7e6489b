//! `cargo xtask kernels`: compiles the CUDA sources to the PTX that `qft-cuda` embeds, and checks what was committed.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What to compile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only compare sources with the committed PTX, by hash: needs no compiler.
    #[arg(long)]
    check: bool,
    /// Compile every source anew; fail if the PTX differs from the committed one.
    #[arg(long, conflicts_with = "check")]
    reproduce: bool,
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
    spills: BTreeMap<String, String>,
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
    if args.check {
        return check(&folder, &sources);
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
    println!("{:32} {:8} {:>5} {:>7} {:>7}", "kernel", "target", "regs", "shared", "spilled");
    let mut problems = Vec::new();
    for source in stale {
        let (ptx, usages) = toolkit.compile(&folder, &config, source)?;
        problems.extend(report(&config, &usages));
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

/// nvcc and ptxas.
struct Toolkit {
    nvcc: PathBuf,
    ptxas: PathBuf,
}

impl Toolkit {
    /// `QFT_NVCC`, or an nvcc of the right version on the path, or that of a virtual environment under `target/`,
    /// which is made if it is not there.
    fn find(config: &Config) -> Result<Self> {
        if let Some(nvcc) = env::var_os("QFT_NVCC").filter(|path| !path.is_empty()) {
            let nvcc = PathBuf::from(nvcc);
            ensure!(
                is_version(&nvcc, &config.compiler),
                "QFT_NVCC={}: not nvcc {}, which kernels.toml asks for",
                nvcc.display(),
                config.compiler
            );
            return Ok(Self::beside(nvcc));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|folder| folder.join("nvcc"));
        if let Some(nvcc) = on_path.into_iter().find(|nvcc| is_version(nvcc, &config.compiler)) {
            return Ok(Self::beside(nvcc));
        }
        let environment = environment();
        if let Some(nvcc) =
            installed(&environment).filter(|nvcc| is_version(nvcc, &config.compiler))
        {
            return Ok(Self::beside(nvcc));
        }
        println!("installing nvcc {} into {}", config.compiler, environment.display());
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let pip = environment.join("bin/pip");
        succeed(Command::new(pip).args(["install", "--quiet"]).args(&config.packages))
            .context("the compiler could not be installed; set QFT_NVCC to one that is there")?;
        match installed(&environment).filter(|nvcc| is_version(nvcc, &config.compiler)) {
            Some(nvcc) => Ok(Self::beside(nvcc)),
            None => bail!("{}: no nvcc {} in it", environment.display(), config.compiler),
        }
    }

    fn beside(nvcc: PathBuf) -> Self {
        Self { ptxas: nvcc.with_file_name("ptxas"), nvcc }
    }

    /// The PTX of a source, and what its kernels use on each target.
    fn compile(
        &self,
        folder: &Path,
        config: &Config,
        source: &Source,
    ) -> Result<(String, Vec<Usage>)> {
        let scratch = env::temp_dir().join(format!("qft-kernels-{}", std::process::id()));
        fs::create_dir_all(&scratch)?;
        let file = scratch.join(format!("{}.ptx", source.name));
        succeed(
            Command::new(&self.nvcc)
                .args(["-ptx", "-arch", &source.machine.architecture])
                .args(&config.flags)
                .arg("-I")
                .arg(folder.join("include"))
                .arg("-o")
                .args([&file, &source.path]),
        )?;
        let text = fs::read_to_string(&file)?;
        let body = text
            .lines()
            .skip_while(|line| !line.starts_with(".version"))
            .skip(1)
            .collect::<Vec<_>>()
            .join("\n");
        let body = without_path(&body);
        let text = format!("{}\n.version {}\n{body}\n", source.stamp, source.machine.ptx_version);
        fs::write(&file, &text)?;
        let mut usages = Vec::new();
        for target in &source.machine.targets {
            let output = Command::new(&self.ptxas)
                .args(["-v", "-arch", target, "-o"])
                .args([&scratch.join("proof.cubin"), &file])
                .output()
                .with_context(|| self.ptxas.display().to_string())?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{} for {target}: {said}", source.name);
            // Warpgroup products that wait for each other: the assembler could not see that they need not.
            ensure!(!said.contains("are serialized"), "{} for {target}: {said}", source.name);
            usages.extend(usage(target, &said));
        }
        fs::remove_dir_all(scratch)?;
        Ok((text, usages))
    }
}

/// PTX whose names of an anonymous namespace do not depend on where the source lies: the compiler puts eight digits
/// of its path's hash into them, which one text has only one of.
fn without_path(ptx: &str) -> String {
    let marks = ["INTERNAL_", "GLOBAL__N__"];
    let digits = |mark: &&str| ptx.split(*mark).nth(1).and_then(|rest| rest.get(..8));
    let Some(digits) = marks.iter().find_map(digits) else { return ptx.to_owned() };
    marks.iter().fold(ptx.to_owned(), |text, mark| {
        text.replace(&format!("{mark}{digits}"), &format!("{mark}00000000"))
    })
}

/// The virtual environment that a compiler is installed into.
pub(crate) fn environment() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("kernels-compiler")
}

/// nvcc within a virtual environment.
fn installed(environment: &Path) -> Option<PathBuf> {
    let python = fs::read_dir(environment.join("lib")).ok()?.filter_map(Result::ok).next()?.path();
    let packages = fs::read_dir(python.join("site-packages/nvidia")).ok()?;
    packages.filter_map(Result::ok).map(|entry| entry.path().join("bin/nvcc")).find(|p| p.exists())
}

fn is_version(nvcc: &Path, version: &str) -> bool {
    let output = Command::new(nvcc).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(version))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s)).concat();
    ensure!(output.status.success(), "{command:?}\n{said}");
    // Warnings of the compiler.
    if !said.trim().is_empty() {
        println!("{}", said.trim());
    }
    Ok(())
}

/// What one kernel uses on one target.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    kernel: String,
    target: String,
    registers: u32,
    shared_bytes: u32,
    spilled_bytes: u32,
}

/// Reads what `ptxas -v` says.
fn usage(target: &str, said: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    // The number before `unit` in a comma-separated line.
    let before = |line: &str, unit: &str| {
        line.split([',', ':']).find_map(|part| {
            part.trim().strip_suffix(unit)?.split_whitespace().last()?.parse::<u32>().ok()
        })
    };
    for line in said.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            let (registers, shared_bytes, spilled_bytes) = (0, 0, 0);
            let target = target.to_owned();
            found.push(Usage { kernel, target, registers, shared_bytes, spilled_bytes });
        } else if let Some(last) = found.last_mut() {
            last.registers = before(line, "registers").unwrap_or(last.registers);
            last.shared_bytes = before(line, "bytes smem").unwrap_or(last.shared_bytes);
            last.spilled_bytes += before(line, "bytes spill stores").unwrap_or(0);
        }
    }
    found
}

/// Prints the table of one source; the spills that kernels.toml does not allow.
fn report(config: &Config, usages: &[Usage]) -> Vec<String> {
    let mut problems = Vec::new();
    for Usage { kernel, target, registers, shared_bytes, spilled_bytes } in usages {
        println!("{kernel:32} {target:8} {registers:5} {shared_bytes:7} {spilled_bytes:7}");
        if *spilled_bytes > 0 && !config.spills.contains_key(kernel) {
            problems.push(format!("{kernel} spills {spilled_bytes} bytes on {target}"));
        }
    }
    problems
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

    #[test]
    fn the_path_of_a_source_leaves_no_trace() {
        let ptx =
            |id: &str| format!("_ZZN42_INTERNAL_{id}_4_a_cu_623e97ba44_GLOBAL__N__{id}_4_a_cu");
        assert_eq!(without_path(&ptx("7d2e0e0e")), without_path(&ptx("4996d58d")));
        let short = |id: &str| format!("_ZN43_GLOBAL__N__{id}_10_a_cu");
        assert_eq!(without_path(&short("d7940101")), without_path(&short("01967e68")));
        assert_eq!(without_path("mov.u32 %r1, 7;"), "mov.u32 %r1, 7;");
    }

    #[test]
    fn the_report_of_the_assembler_is_read() {
        let said = "ptxas info    : 0 bytes gmem\n\
                    ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
                    ptxas info    : Function properties for one\n    \
                    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
                    ptxas info    : Used 24 registers, used 1 barriers, 4096 bytes smem, 376 bytes cmem[0]\n\
                    ptxas info    : Compiling entry function 'two' for 'sm_80'\n\
                    ptxas info    : Used 26 registers, used 0 barriers\n";
        let found = usage("sm_80", said);
        let expected = |kernel: &str, registers, shared_bytes, spilled_bytes| Usage {
            kernel: kernel.to_owned(),
            target: "sm_80".to_owned(),
            registers,
            shared_bytes,
            spilled_bytes,
        };
        assert_eq!(found, [expected("one", 24, 4096, 12), expected("two", 26, 0, 0)]);
    }
}
