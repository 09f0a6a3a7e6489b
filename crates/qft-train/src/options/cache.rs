//! Where encoded data is kept between runs.

use crate::error::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::env;
use std::path::PathBuf;

/// Gigabytes that are kept unless another limit is given.
const DEFAULT_LIMIT_GB: f64 = 20.0;

/// Where encoded data is kept, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CacheArgs {
    /// Keep encoded data here, for the next run on it [default: $QFT_CACHE, $XDG_CACHE_HOME/qft or ~/.cache/qft]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub cache: Option<PathBuf>,
    /// Keep encoded data in memory only
    #[arg(long, conflicts_with = "cache", help_heading = "Data")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Gigabytes of encoded data to keep; what was used longest ago goes first [default: 20]
    #[arg(long, value_name = "GB", help_heading = "Data")]
    pub cache_limit: Option<f64>,
}

/// Where encoded data is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheOptions {
    /// The folder; absent where data stays in memory.
    pub folder: Option<PathBuf>,
    /// Whether the folder was asked for: then it must be usable.
    pub asked: bool,
    /// Bytes that are kept.
    pub limit_bytes: u64,
}

impl CacheArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a limit below zero.
    pub fn resolve(self) -> Result<CacheOptions> {
        let limit = self.cache_limit.unwrap_or(DEFAULT_LIMIT_GB);
        ensure!(
            (0.0..1e9).contains(&limit),
            "--cache-limit: {limit} is out of range; give a number of gigabytes, such as 20"
        );
        let asked = self.cache.is_some();
        let folder = if self.no_cache { None } else { self.cache.or_else(default_folder) };
        Ok(CacheOptions { folder, asked, limit_bytes: (limit * 1e9) as u64 })
    }
}

fn default_folder() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("QFT_CACHE").or_else(|| Some(cache()?.join("qft")))
}
