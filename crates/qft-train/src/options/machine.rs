//! Where to compute, and with how much memory.

use super::value::whole;
use crate::error::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// More threads than any machine has cores: a slip.
const MAX_THREADS: usize = 1024;

/// Where to compute, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MachineArgs {
    /// Where to compute: cpu, cuda or cuda:N [default: cpu]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Option<DeviceChoice>,
    /// CPU threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Machine")]
    pub threads: Option<usize>,
}

/// How much memory a run may take, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MemoryArgs {
    /// Memory to use at most, such as 24GB or 16GiB; `--memory` for short [default: what is free]
    #[arg(
        long,
        alias = "memory",
        value_name = "SIZE",
        allow_negative_numbers = true,
        help_heading = "Machine"
    )]
    pub memory_limit: Option<Size>,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineOptions {
    /// Device.
    pub device: DeviceChoice,
    /// CPU threads; absent: all cores.
    pub threads: Option<usize>,
    /// Memory that may be used; absent: what is free.
    pub memory_limit: Option<Size>,
}

impl MachineArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: no threads.
    pub fn resolve(self, memory: MemoryArgs) -> Result<MachineOptions> {
        let Self { device, threads } = self;
        let MemoryArgs { memory_limit } = memory;
        ensure!(
            threads != Some(0),
            "--threads is 0; give at least 1, or leave it out for all cores"
        );
        ensure!(
            threads.is_none_or(|threads| threads <= MAX_THREADS),
            "--threads is more than {MAX_THREADS}; give as many as the machine has cores, or leave it out"
        );
        Ok(MachineOptions { device: device.unwrap_or_default(), threads, memory_limit })
    }
}

/// Where the model lives and is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => return Ok(Self::Cpu),
            None if text == "cuda" => return Ok(Self::Cuda(0)),
            Some(("cuda", number)) => {
                if let Ok(number) = number.parse() {
                    return Ok(Self::Cuda(number));
                }
            }
            _ => {}
        }
        Err(format!("device: `{text}` is unknown; expected cpu, cuda or cuda:N"))
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(device: DeviceChoice) -> String {
        device.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A number of bytes: a number alone, or with one of the units kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB
/// (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

/// Less is hardly meant without a unit.
const LEAST_PLAIN_BYTES: f64 = 1e6;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem =
            || format!("`{text}` is not a size; expected a number of bytes, such as 24GB or 16GiB");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit_name = unit.trim();
        let unit = match unit_name.to_ascii_lowercase().as_str() {
            "" | "b" => 1u64,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return Err(problem()),
        };
        let bytes = number.parse::<f64>().map_err(|_| problem())? * unit as f64;
        if bytes < 1.0 || bytes >= u64::MAX as f64 {
            return Err(problem());
        }
        if unit_name.is_empty() && bytes < LEAST_PLAIN_BYTES {
            return Err(format!(
                "`{text}` is so many bytes; give a unit as well, such as {text}GB"
            ));
        }
        Ok(Self(bytes as u64))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        assert_eq!("cuda:2".parse(), Ok(DeviceChoice::Cuda(2)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["gpu", "cuda:x", "cpu:0", ""] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_with_and_without_units() {
        for (text, bytes) in [
            ("1000000", 1_000_000),
            ("24GB", 24_000_000_000),
            ("24 gb", 24_000_000_000),
            ("1.5GiB", 3 << 29),
            ("512m", 512_000_000),
            ("2KiB", 2048),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "GB", "-1GB", "0", "1 parsec", "1e30TB", "1.2.3", "nan", "16"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
