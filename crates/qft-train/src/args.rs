//! The command line, as given. [`crate::options`] fills in, checks and resolves it.

use crate::options::choice::{
    ComputeKind, DataFormat, GradientChoice, LrSchedule, MomentumChoice, OptimizerKind,
    RecomputeChoice, RoundingChoice, States, TrainOn,
};
use crate::options::value::{DeviceChoice, TemplateChoice, Warmup, number, one_or_many};
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Fine-tunes all parameters of LLaMA models with every training state in INT8.
#[derive(Debug, Parser)]
#[command(name = "qft", version, about, max_term_width = 110)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model on text or conversations
    Finetune(Box<FinetuneArgs>),
    /// Measure the mean negative log-likelihood and perplexity of a model on data
    Eval(EvalArgs),
    /// Continue a text, or answer as the assistant of a conversation
    Generate(GenerateArgs),
    /// Say how much memory a fine-tune takes, before anything is loaded
    Plan(PlanArgs),
}

/// How data is read.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ReadingArgs {
    /// Format of the data [default: auto]
    #[arg(long, value_enum, help_heading = "Data")]
    pub format: Option<DataFormat>,
    /// Chat template: auto, model, alpaca, chatml, llama2, llama3, none, or a Jinja file [default: auto,
    /// the model's own; without one alpaca for instructions and chatml for conversations]
    #[arg(long, value_name = "NAME|FILE", help_heading = "Data")]
    pub template: Option<TemplateChoice>,
    /// Tokens that count in the loss [default: completion]
    #[arg(long, value_enum, help_heading = "Data")]
    pub train_on: Option<TrainOn>,
}

/// The rows of a micro-batch.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RowArgs {
    /// Tokens per row; documents are cut there [default: 512, or the model's limit if that is less]
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub seq_len: Option<usize>,
    /// Rows per micro-batch [default: 4]
    #[arg(long, value_name = "ROWS", help_heading = "Training")]
    pub batch_size: Option<usize>,
}

/// What a step is, besides its rows.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UpdateArgs {
    /// Micro-batches per optimizer step [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub accumulate: Option<usize>,
    /// Optimizer; adamw needs --states f32 [default: lion]
    #[arg(long, value_enum, help_heading = "Training")]
    pub optimizer: Option<OptimizerKind>,
}

/// How weights are stored and multiplied.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct WeightArgs {
    /// How weights and training states are stored [default: full; to eval and generate, f32]
    #[arg(long, value_enum, help_heading = "States")]
    pub states: Option<States>,
    /// Numbers in which linear layers multiply [default: int8, or float with --states f32]
    #[arg(long, value_enum, help_heading = "States")]
    pub compute: Option<ComputeKind>,
    /// Fraction of weights kept as protected features, 0 to 0.05 [default: by --states]
    #[arg(long, value_name = "FRACTION", value_parser = number::<f64>, help_heading = "States")]
    pub outliers: Option<f64>,
}

/// What the backward pass keeps.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct BackwardArgs {
    /// What the backward pass computes again [default: auto]
    #[arg(long, value_enum, help_heading = "States")]
    pub recompute: Option<RecomputeChoice>,
    /// What happens to gradients [default: released, or stored with --states paper]
    #[arg(long, value_enum, help_heading = "States")]
    pub gradients: Option<GradientChoice>,
}

/// Where to compute.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MachineArgs {
    /// Where to compute: cpu, cuda, cuda:N [default: cpu]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Option<DeviceChoice>,
    /// CPU threads [default: all cores]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub threads: Option<usize>,
}

/// Options of `qft finetune`; also the keys of its settings file.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct FinetuneArgs {
    /// Settings file (TOML) that holds the same options, without the dashes; those given here go first
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Model folder: config.json, safetensors, tokenizer.json
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub model: Option<PathBuf>,
    /// Training data: plain text, .jsonl or .json; may be given more than once
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    #[serde(deserialize_with = "one_or_many")]
    pub data: Vec<PathBuf>,
    /// Held-out data; may be given more than once
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    #[serde(deserialize_with = "one_or_many")]
    pub eval_data: Vec<PathBuf>,
    /// Hold out this last fraction of the training data instead
    #[arg(long, value_name = "FRACTION", value_parser = number::<f64>, help_heading = "Files")]
    pub val_split: Option<f64>,
    /// Output folder
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub out: Option<PathBuf>,

    /// How the data is read.
    #[command(flatten)]
    #[serde(flatten)]
    pub reading: ReadingArgs,
    /// The rows of a micro-batch.
    #[command(flatten)]
    #[serde(flatten)]
    pub rows: RowArgs,
    /// Put several short documents into one row; they do not see each other
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Data")]
    pub pack: Option<bool>,
    /// Go through the rows in a random order [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Data")]
    pub shuffle: Option<bool>,
    /// Go through the rows in the order of the data
    #[arg(long, conflicts_with = "shuffle", help_heading = "Data")]
    #[serde(skip)]
    pub no_shuffle: bool,

    /// Optimizer steps
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub steps: Option<u64>,
    /// Passes over the data, also in part [default: 1]
    #[arg(long, value_name = "X", value_parser = number::<f64>, help_heading = "Training")]
    pub epochs: Option<f64>,
    /// The rest of a step.
    #[command(flatten)]
    #[serde(flatten)]
    pub update: UpdateArgs,
    /// Largest learning rate [default: 1e-5 for lion, 2e-5 for adamw]
    #[arg(long, value_name = "RATE", value_parser = number::<f64>, help_heading = "Training")]
    pub lr: Option<f64>,
    /// Schedule of the learning rate [default: cosine]
    #[arg(long, value_enum, help_heading = "Training")]
    pub schedule: Option<LrSchedule>,
    /// Where the schedule ends, as a fraction of the largest learning rate [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = number::<f64>, help_heading = "Training")]
    pub min_lr_ratio: Option<f64>,
    /// Warm-up, as a fraction of the run (0.03) or in steps (20) [default: 0.03]
    #[arg(long, value_name = "FRACTION|STEPS", help_heading = "Training")]
    pub warmup: Option<Warmup>,
    /// Decoupled weight decay [default: 0]
    #[arg(long, value_name = "X", value_parser = number::<f64>, help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Weight of the past in the first moment [default: 0.95 for lion, 0.9 for adamw]
    #[arg(long, value_name = "X", value_parser = number::<f64>, help_heading = "Training")]
    pub beta1: Option<f64>,
    /// Decay of lion's momentum, or of adamw's second moment [default: 0.98 for lion, 0.999 for adamw]
    #[arg(long, value_name = "X", value_parser = number::<f64>, help_heading = "Training")]
    pub beta2: Option<f64>,
    /// Clip gradients to this global norm; with released gradients by the norm of the step before
    /// [default: no clipping]
    #[arg(long, value_name = "NORM", value_parser = number::<f64>, help_heading = "Training")]
    pub max_grad_norm: Option<f64>,
    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,

    /// How weights are stored and multiplied.
    #[command(flatten)]
    #[serde(flatten)]
    pub weights: WeightArgs,
    /// What the backward pass keeps.
    #[command(flatten)]
    #[serde(flatten)]
    pub backward: BackwardArgs,
    /// Code of the INT8 momentum [default: sqrt]
    #[arg(long, value_enum, help_heading = "States")]
    pub momentum_code: Option<MomentumChoice>,
    /// Rounding of updated weights; nearest is for experiments [default: stochastic]
    #[arg(long, value_enum, help_heading = "States")]
    pub rounding: Option<RoundingChoice>,
    /// Train even where updates are too small to change a weight
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "States")]
    pub insist: Option<bool>,

    /// Where to compute.
    #[command(flatten)]
    #[serde(flatten)]
    pub machine: MachineArgs,
    /// Save a checkpoint every N steps [default: only at the end and on Ctrl-C]
    #[arg(long, value_name = "N", help_heading = "Progress")]
    pub checkpoint_every: Option<u64>,
    /// Keep this many checkpoints [default: 1]
    #[arg(long, value_name = "N", help_heading = "Progress")]
    pub keep_checkpoints: Option<usize>,
    /// Continue from a checkpoint: the latest one, or this folder
    #[arg(long, value_name = "DIR|latest", num_args = 0..=1, default_missing_value = "latest",
          help_heading = "Progress")]
    pub resume: Option<String>,
    /// Evaluate on held-out data every N steps [default: only before and after]
    #[arg(long, value_name = "N", help_heading = "Progress")]
    pub eval_every: Option<u64>,
    /// Evaluate on at most this many batches [default: all]
    #[arg(long, value_name = "N", help_heading = "Progress")]
    pub eval_batches: Option<usize>,
    /// Show where the time of the steps goes, and how near to the machine's INT8 rate they come
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", help_heading = "Progress")]
    pub profile: Option<bool>,
    /// Text that the model continues before and after training, to be seen
    #[arg(long, value_name = "TEXT", help_heading = "Progress")]
    pub sample_prompt: Option<String>,
}

/// Options of `qft eval`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct EvalArgs {
    /// Model folder: config.json, safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Data: plain text, .jsonl or .json; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    pub data: Vec<PathBuf>,
    /// How the data is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// The rows of a micro-batch.
    #[command(flatten)]
    pub rows: RowArgs,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Show where the time goes
    #[arg(long)]
    pub profile: bool,
    /// Use at most this many batches [default: all]
    #[arg(long, value_name = "BATCHES")]
    pub limit: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Options of `qft generate`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct GenerateArgs {
    /// Model folder: config.json, safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue, or what the user says with --chat
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// Treat the prompt as the user's turn of a conversation
    #[arg(long)]
    pub chat: bool,
    /// Chat template, with --chat: auto, model, alpaca, chatml, llama2, llama3, none, or a Jinja file
    #[arg(long, value_name = "NAME|FILE", requires = "chat")]
    pub template: Option<TemplateChoice>,
    /// Tokens to generate at most [default: 200]
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 takes the likeliest token [default: 0]
    #[arg(long, value_name = "X", value_parser = number::<f32>)]
    pub temperature: Option<f32>,
    /// Sample from the likeliest tokens that make up this probability [default: 1]
    #[arg(long, value_name = "P", value_parser = number::<f32>)]
    pub top_p: Option<f32>,
    /// Seed of the sampling [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Options of `qft plan`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct PlanArgs {
    /// Folder with a config.json, or the name of a well-known model such as llama-2-7b
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// The rows of a micro-batch.
    #[command(flatten)]
    pub rows: RowArgs,
    /// The rest of a step.
    #[command(flatten)]
    pub update: UpdateArgs,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// What the backward pass keeps.
    #[command(flatten)]
    pub backward: BackwardArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
