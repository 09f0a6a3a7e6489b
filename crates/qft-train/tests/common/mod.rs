//! Trainers, windows of text, and the program itself, for tests of whole runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod team;

use qft_autograd::{Matrix, Products, Weight};
use qft_llama::model::{Model, WeightFormat};
use qft_llama::params::Param;
use qft_llama::pass::Recompute;
use qft_llama::{Batch, LlamaConfig, Tokenizer, WeightSource};
use qft_optim::WeightRounding;
use qft_quant::HybridMatrix;
use qft_tensor::{Cpu, CpuConfig, Host};
use qft_testing::material;
use qft_train::TrainOps;
use qft_train::options::{OptimizerKind, RecomputeChoice, States};
use qft_train::options::{OptimizerOptions, StateOptions};
use qft_train::step::checkpoint::Progress;
use qft_train::step::{GradientMode, Setup, Trainer};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

/// All modes whose matrices are INT8.
pub(crate) const INT8_STATES: [States; 5] =
    [States::Full, States::Balanced, States::Compact, States::Tiny, States::Paper];

/// The processor with two threads, so that a machine of any size does the same work.
pub(crate) fn cpu() -> Cpu {
    Cpu::new(CpuConfig { threads: 2, ..CpuConfig::detect().unwrap() }).unwrap()
}

/// What works for an emulated device, with as many threads.
pub(crate) fn host() -> Arc<Host> {
    Arc::new(Host::new(CpuConfig { threads: 2, ..CpuConfig::detect().unwrap() }).unwrap())
}

/// As small as a model can be: for kernels that are emulated, and for what grows with steps and buffers and not with their size.
pub(crate) fn smallest_model() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        ..LlamaConfig::from_dir(&material::stories260k()).unwrap().with_layers(1)
    }
}

/// Lion without warm-up, decay or clipping.
pub(crate) fn lion() -> OptimizerOptions {
    OptimizerOptions { beta1: 0.95, beta2: 0.98, ..OptimizerOptions::for_plan(OptimizerKind::Lion) }
}

/// States and rules that train them: all states, and AdamW with the most bytes and the fewest.
pub(crate) const RUNS: [(States, OptimizerKind); 8] = [
    (States::Full, OptimizerKind::Lion),
    (States::Balanced, OptimizerKind::Lion),
    (States::Compact, OptimizerKind::Lion),
    (States::Tiny, OptimizerKind::Lion),
    (States::Paper, OptimizerKind::Lion),
    (States::F32, OptimizerKind::Lion),
    (States::Full, OptimizerKind::AdamW),
    (States::Compact, OptimizerKind::AdamW),
];

/// A rule without warm-up, decay or clipping.
pub(crate) fn optimizer(kind: OptimizerKind) -> OptimizerOptions {
    match kind {
        OptimizerKind::Lion => lion(),
        OptimizerKind::AdamW => OptimizerOptions {
            beta1: 0.9,
            beta2: 0.999,
            ..OptimizerOptions::for_plan(OptimizerKind::AdamW)
        },
    }
}

/// The options that `--states` stands for.
pub(crate) fn state_options(states: States) -> StateOptions {
    let float = states == States::F32;
    StateOptions {
        states,
        compute: if float { Products::FLOAT } else { Products::INT8 },
        protected: None,
        rotation: !float,
        recompute: RecomputeChoice::None,
        gradients: match states {
            States::Paper => GradientMode::Stored,
            _ => GradientMode::Released,
        },
        momentum_code: None,
        rounding: WeightRounding::Stochastic,
    }
}

/// The setup that `--states` stands for, with Lion.
pub(crate) fn setup(states: States) -> Setup {
    setup_of((states, OptimizerKind::Lion))
}

/// The setup that `--states` stands for, with a rule.
pub(crate) fn setup_of((states, kind): (States, OptimizerKind)) -> Setup {
    state_options(states).setup(&optimizer(kind), 0, Recompute::None)
}

/// A model from its folder.
pub(crate) fn load(ops: &dyn TrainOps, dir: &Path, format: WeightFormat) -> Model {
    let config = LlamaConfig::from_dir(dir).unwrap();
    let weights = WeightSource::open(dir, &config).unwrap();
    Model::load(ops, &config, &weights, format, &mut |_, _| ()).unwrap()
}

/// A trainer of the small model that lies in the repository.
pub(crate) fn trainer(ops: &dyn TrainOps, setup: &Setup) -> Trainer {
    trainer_of(ops, &material::stories260k(), setup)
}

/// A trainer of the model in `dir`.
pub(crate) fn trainer_of(ops: &dyn TrainOps, dir: &Path, setup: &Setup) -> Trainer {
    let model = load(ops, dir, setup.format);
    Trainer::new(ops, model, setup.optimizer, setup.pass, setup.gradients).unwrap()
}

/// Where a trainer stands, for a checkpoint.
pub(crate) fn progress(trainer: &Trainer) -> Progress {
    Progress::of(trainer)
}

/// The ids of `text` by the tokenizer of the model in `dir`, and its BOS.
fn encode(dir: &Path, text: &str) -> (Vec<u32>, Option<u32>) {
    let config = LlamaConfig::from_dir(dir).unwrap();
    let tokenizer = Tokenizer::from_dir(dir, &config).unwrap();
    (tokenizer.encode(text).unwrap(), tokenizer.bos())
}

/// A text as windows of `seq_len` positions: BOS and as many tokens, in order.
#[derive(Debug)]
pub(crate) struct Windows(Vec<Vec<u32>>);

impl Windows {
    /// Of `text`, by the tokenizer of the model in `dir`.
    pub(crate) fn of(dir: &Path, text: &str, seq_len: usize) -> Self {
        let (ids, bos) = encode(dir, text);
        Self::cut(&ids, bos, seq_len)
    }

    /// Of the text that lies in the repository, for the model that does.
    pub(crate) fn shakespeare(seq_len: usize) -> Self {
        static TEXT: OnceLock<(Vec<u32>, Option<u32>)> = OnceLock::new();
        let (ids, bos) = TEXT.get_or_init(|| {
            let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
            encode(&material::stories260k(), &text)
        });
        Self::cut(ids, *bos, seq_len)
    }

    fn cut(ids: &[u32], bos: Option<u32>, seq_len: usize) -> Self {
        let whole = |window: &Vec<u32>| window.len() == seq_len + 1;
        Self(
            qft_train::data::windows(ids, bos.as_slice(), seq_len)
                .into_iter()
                .filter(whole)
                .collect(),
        )
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Windows `start..start + count` as one micro-batch.
    pub(crate) fn batch(&self, start: usize, count: usize) -> Batch {
        let mut batch = Batch::default();
        for window in &self.0[start..start + count] {
            batch.push(&window[..window.len() - 1], &window[1..]);
        }
        batch
    }
}

/// The hybrid matrices of a model, with their places.
pub(crate) fn hybrid(model: &Model) -> Vec<(usize, &HybridMatrix)> {
    let params = model.params.as_ref().list().into_iter().enumerate();
    params
        .filter_map(|(i, param)| match param {
            Param::Matrix(Matrix { weight: Weight::Hybrid(weight), .. }) => Some((i, weight)),
            _ => None,
        })
        .collect()
}

/// The program, run with `args` in the root of the repository.
pub(crate) fn qft<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    command(args).output().unwrap()
}

/// The program, to be run with `args` in the root of the repository.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qft"));
    command.args(args).current_dir(material::repository());
    command
}

/// The first lines of the text in the repository, in a file of their own: all of it takes long to tokenize.
pub(crate) fn excerpt() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (path, own) = (dir.join("excerpt.txt"), dir.join(std::process::id().to_string()));
        // Moved into its place whole: other test programs may be reading it.
        std::fs::write(&own, &text[..20_000]).unwrap();
        std::fs::rename(&own, &path).unwrap();
        path
    })
}

/// The arguments of a run of a few short steps into `out`, and `more`.
pub(crate) fn finetune(out: &Path, more: &[&str]) -> Vec<String> {
    let files = [
        format!("--model={}", material::stories260k().display()),
        format!("--data={}", excerpt().display()),
        format!("--out={}", out.display()),
    ];
    let base = ["--seq-len=32", "--batch-size=2", "--lr=5e-4", "--threads=1"];
    let rest = base.iter().chain(more).map(|s| (*s).to_owned());
    ["finetune".to_owned()].into_iter().chain(files).chain(rest).collect()
}

/// Both outputs of a program, for messages.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs the program and returns what it printed; it must succeed.
pub(crate) fn succeed<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    let output = qft(args);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Copies the files of the folder `from` to a new folder `to`.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    to.to_path_buf()
}

/// The objects of a file of JSON lines.
pub(crate) fn json_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
