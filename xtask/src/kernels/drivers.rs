//! The assemblers of drivers: a driver compiles PTX as the `ptxas` of its release does, which is not the pinned one.

use super::assembler::{self, Spills};
use super::toolkit::{environment, succeed};
use super::{Config, Source};
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An assembler, as a package of the Python index.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Assembler {
    package: String,
    /// Of the targets of the sources, those that it knows.
    targets: Vec<String>,
}

/// Assembles all committed PTX with every assembler.
///
/// Errors: all that one does not accept, would make slow, or spills more of than is stated.
pub(super) fn prove(config: &Config, sources: &[Source]) -> Result<()> {
    let mut jobs = Vec::new();
    for (release, assembler) in &config.drivers {
        let ptxas = assembler.install(release)?;
        for source in sources {
            let known = |target: &&String| assembler.targets.contains(target);
            for target in source.machine.targets.iter().filter(known) {
                jobs.push((release, ptxas.clone(), source, target));
            }
        }
    }
    let (count, began) = (jobs.len(), std::time::Instant::now());
    let spills = Spills::Most(&config.spills, &config.driver_spills);
    let found = jobs.into_par_iter().flat_map_iter(|(release, ptxas, source, target)| {
        let problems = match assembler::assemble(&ptxas, &source.ptx, target) {
            Ok(usages) => assembler::problems(&usages, &spills),
            Err(error) => vec![format!("{error:#}")],
        };
        problems.into_iter().map(move |problem| format!("CUDA {release}: {problem}"))
    });
    let problems: Vec<_> = found.collect();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let releases: Vec<_> = config.drivers.keys().map(String::as_str).collect();
    println!(
        "kernels: {count} assemblies by the drivers of CUDA {} are accepted, none serialized; {:.0} s",
        releases.join(", "),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

impl Assembler {
    /// The program, installed under `target/` if it is not there.
    fn install(&self, release: &str) -> Result<PathBuf> {
        let folder = environment().with_file_name("kernels-drivers").join(release);
        if let Some(found) = ptxas(&folder) {
            return Ok(found);
        }
        println!("installing {} into {}", self.package, folder.display());
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
        pip.args(["--root-user-action", "ignore", "--target"]).arg(&folder).arg(&self.package);
        succeed(&mut pip).with_context(|| format!("{} could not be installed", self.package))?;
        ptxas(&folder).with_context(|| format!("{}: no ptxas in it", folder.display()))
    }
}

/// The program within a folder of packages.
fn ptxas(folder: &Path) -> Option<PathBuf> {
    let packages = fs::read_dir(folder.join("nvidia")).ok()?;
    packages.filter_map(Result::ok).map(|entry| entry.path().join("bin/ptxas")).find(|p| p.exists())
}
