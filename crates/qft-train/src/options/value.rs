//! Option values that are more than a number or a word.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How long the learning rate rises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub enum Warmup {
    /// For this many steps.
    Steps(u64),
    /// For this fraction of all steps.
    Fraction(f64),
}

impl Warmup {
    /// Steps of warm-up in a run of `total` steps.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Fraction(fraction) => (fraction * total as f64).round() as u64,
        }
    }
}

impl TryFrom<f64> for Warmup {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        match value {
            v if (0.0..1.0).contains(&v) => Ok(Self::Fraction(v)),
            v if v >= 1.0 && v <= u32::MAX.into() && v.fract() == 0.0 => Ok(Self::Steps(v as u64)),
            v => Err(format!(
                "warmup: {v} is neither a fraction of the run (0 up to 1) nor a number of steps; \
                 give 0.03 for 3 % of the run or 20 for 20 steps"
            )),
        }
    }
}

impl FromStr for Warmup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value: f64 = text.parse().map_err(|_| "expected a number".to_string())?;
        Self::try_from(value)
    }
}

impl From<Warmup> for f64 {
    fn from(warmup: Warmup) -> f64 {
        match warmup {
            Warmup::Steps(steps) => steps as f64,
            Warmup::Fraction(fraction) => fraction,
        }
    }
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the data; may end within one.
    Epochs(f64),
}

impl Length {
    /// Optimizer steps, at `rows_per_step` of a data set of `rows`. At least 1.
    pub fn steps(self, rows: usize, rows_per_step: usize) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Epochs(epochs) => {
                let steps = epochs * rows as f64 / rows_per_step.max(1) as f64;
                // A rounding error must not add a step.
                ((steps * (1.0 - 1e-12)).ceil() as u64).max(1)
            }
        }
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

/// Which checkpoint a run continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The newest one below the output folder.
    Latest,
    /// This one.
    Checkpoint(PathBuf),
}

impl From<&str> for Resume {
    fn from(text: &str) -> Self {
        match text {
            "latest" => Self::Latest,
            dir => Self::Checkpoint(dir.into()),
        }
    }
}

/// How conversations become text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TemplateChoice {
    /// The model's own; without one, `alpaca` for instructions and `chatml` for conversations. Prompts and
    /// completions are left as they are.
    #[default]
    Auto,
    /// The model's own; an error without one.
    Model,
    /// One of those that are built in, by name.
    BuiltIn(BuiltIn),
    /// A Jinja file.
    File(PathBuf),
}

/// The templates that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuiltIn {
    /// Stanford Alpaca's instruction prompt.
    Alpaca,
    /// ChatML.
    Chatml,
    /// LLaMA 2 chat.
    Llama2,
    /// LLaMA 3 instruct.
    Llama3,
    /// No markers: the texts, a line apart.
    None,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Alpaca, Self::Chatml, Self::Llama2, Self::Llama3, Self::None];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpaca => "alpaca",
            Self::Chatml => "chatml",
            Self::Llama2 => "llama2",
            Self::Llama3 => "llama3",
            Self::None => "none",
        }
    }
}

impl From<String> for TemplateChoice {
    fn from(text: String) -> Self {
        match BuiltIn::ALL.into_iter().find(|template| template.name() == text) {
            Some(template) => Self::BuiltIn(template),
            None if text == "model" => Self::Model,
            None if text == "auto" => Self::Auto,
            None => Self::File(text.into()),
        }
    }
}

impl From<TemplateChoice> for String {
    fn from(choice: TemplateChoice) -> String {
        match choice {
            TemplateChoice::Auto => "auto".into(),
            TemplateChoice::Model => "model".into(),
            TemplateChoice::BuiltIn(template) => template.name().into(),
            TemplateChoice::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl FromStr for TemplateChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.to_string().into())
    }
}

/// A number that is neither infinite nor NaN.
pub(crate) fn number<T: FromStr + Copy + Into<f64>>(text: &str) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(value) if value.into().is_finite() => Ok(value),
        _ => Err("expected a finite number".into()),
    }
}

/// One path, or a list of them.
pub(crate) fn one_or_many<'de, D>(deserializer: D) -> Result<Vec<PathBuf>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a path or a list of paths")]
    enum Paths {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(match Paths::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::Many(paths) => paths,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_is_a_fraction_below_one_and_steps_from_one() {
        assert_eq!("0.03".parse(), Ok(Warmup::Fraction(0.03)));
        assert_eq!("20".parse(), Ok(Warmup::Steps(20)));
        assert_eq!("0".parse::<Warmup>().map(|w| w.steps(100)), Ok(0));
        assert_eq!(Warmup::Fraction(0.03).steps(1000), 30);
        for bad in ["-1", "1.5", "nan", "inf", "x"] {
            assert!(bad.parse::<Warmup>().is_err(), "{bad}");
        }
    }

    #[test]
    fn epochs_count_every_row() {
        for (epochs, rows, per_step, steps) in
            [(1.0, 8, 4, 2), (1.0, 9, 4, 3), (0.5, 8, 4, 1), (3.0, 1, 4, 1), (0.1, 30, 1, 3)]
        {
            assert_eq!(Length::Epochs(epochs).steps(rows, per_step), steps, "{epochs} {rows}");
        }
        assert_eq!(Length::Steps(7).steps(1, 1), 7);
    }

    #[test]
    fn devices_and_templates_by_name() {
        assert_eq!("cuda:2".parse(), Ok(DeviceChoice::Cuda(2)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["gpu", "cuda:x", "cpu:0", ""] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
        for name in ["auto", "model", "alpaca", "none", "my/file.jinja"] {
            assert_eq!(String::from(TemplateChoice::from(name.to_string())), name);
        }
    }
}
