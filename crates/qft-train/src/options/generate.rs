//! The options of `qft generate`.

use super::data::TemplateChoice;
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::states::{StateOptions, WeightArgs};
use super::value::{number, whole};
use crate::error::{ErrorKind, OfKind, Result, ensure};
use clap::ValueHint;
use qft_hub::ModelName;

/// Options of `qft generate`, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct GenerateArgs {
    /// Model: a folder with config.json, safetensors and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath)]
    pub model: ModelName,
    /// Text to continue; with --chat, what the user says
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// Treat the prompt as the user's turn of a conversation
    #[arg(long)]
    pub chat: bool,
    /// Chat template, with --chat: auto, model, alpaca, chatml, llama2, llama3, none, or a Jinja file
    #[arg(long, value_name = "NAME|FILE", requires = "chat")]
    pub template: Option<TemplateChoice>,
    /// Maximum number of tokens to generate [default: 200]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 takes the likeliest token [default: 0]
    #[arg(long, value_name = "X", value_parser = number::<f32>, allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Sample from the likeliest tokens, as many as make up this probability [default: 1]
    #[arg(long, value_name = "P", value_parser = number::<f32>, allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Seed of the sampling [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Checked options of `qft generate`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Folder or name of the model.
    pub model: ModelName,
    /// The text.
    pub prompt: String,
    /// Whether it is a user's turn.
    pub chat: bool,
    /// How a conversation becomes text.
    pub template: TemplateChoice,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Probability mass to sample from.
    pub top_p: f32,
    /// Seed of the sampling.
    pub seed: u64,
    /// How weights are stored and computed with.
    pub state: StateOptions,
    /// Where to compute.
    pub machine: MachineOptions,
}

impl GenerateArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(self) -> Result<GenerateOptions> {
        self.check().of_kind(ErrorKind::Options)
    }

    fn check(self) -> Result<GenerateOptions> {
        let temperature = self.temperature.unwrap_or(0.0);
        let top_p = self.top_p.unwrap_or(1.0);
        ensure!(
            temperature >= 0.0 && temperature.is_finite(),
            "--temperature: {temperature} is out of range; give 0 or more"
        );
        ensure!(
            top_p > 0.0 && top_p <= 1.0,
            "--top-p: {top_p} is out of range; give a number above 0 and at most 1"
        );
        ensure!(
            top_p == 1.0 || temperature > 0.0,
            "--top-p has no effect at temperature 0, which takes the likeliest token; \
             give --temperature as well"
        );
        Ok(GenerateOptions {
            model: self.model,
            prompt: self.prompt,
            chat: self.chat,
            template: self.template.unwrap_or_default(),
            max_new_tokens: self.max_new_tokens.unwrap_or(200),
            temperature,
            top_p,
            seed: self.seed.unwrap_or(0),
            state: self.weights.resolve_reading()?,
            machine: self.machine.resolve(MemoryArgs::default())?,
        })
    }
}
