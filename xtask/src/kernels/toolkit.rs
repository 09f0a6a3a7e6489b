//! The pinned compiler: found, or installed.

use super::assembler::{self, Usage};
use super::{Config, Source};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// nvcc and ptxas.
pub(super) struct Toolkit {
    nvcc: PathBuf,
    ptxas: PathBuf,
}

impl Toolkit {
    /// `QFT_NVCC`, or an nvcc of the right version on the path, or that of a virtual environment under `target/`,
    /// which is made if it is not there.
    pub(super) fn find(config: &Config) -> Result<Self> {
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
    pub(super) fn compile(
        &self,
        folder: &Path,
        config: &Config,
        source: &Source,
    ) -> Result<(String, Vec<Usage>)> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join(format!("{}.ptx", source.name));
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
            usages.extend(assembler::assemble(&self.ptxas, &file, target)?);
        }
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

pub(super) fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s)).concat();
    ensure!(output.status.success(), "{command:?}\n{said}");
    // Warnings of the compiler.
    if !said.trim().is_empty() {
        println!("{}", said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_source_leaves_no_trace() {
        let ptx =
            |id: &str| format!("_ZZN42_INTERNAL_{id}_4_a_cu_623e97ba44_GLOBAL__N__{id}_4_a_cu");
        assert_eq!(without_path(&ptx("7d2e0e0e")), without_path(&ptx("4996d58d")));
        let short = |id: &str| format!("_ZN43_GLOBAL__N__{id}_10_a_cu");
        assert_eq!(without_path(&short("d7940101")), without_path(&short("01967e68")));
        assert_eq!(without_path("mov.u32 %r1, 7;"), "mov.u32 %r1, 7;");
    }
}
