//! What the training-state modes and the options beside them mean for model, optimizer and passes.

use crate::optimizer::OptimizerConfig;
use crate::options::choice::{GradientChoice, LrSchedule, OptimizerKind, RecomputeChoice, States};
use crate::options::value::Warmup;
use crate::options::{OptimizerOptions, StateOptions};
use crate::plan::Setup;
use crate::trainer::GradientMode;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{PassOptions, Recompute, StreamFormat};
use qft_optim::{FloatRule, LionConfig};
use qft_quant::{HybridFormat, Residual};

impl States {
    /// Fraction of weights kept as protected features unless the user says otherwise.
    pub const fn outlier_fraction(self) -> f64 {
        match self {
            Self::Full | Self::Balanced | Self::F32 => 0.0,
            Self::Compact | Self::Paper => 0.01,
        }
    }

    /// How matrices are stored.
    pub fn format(self, outlier_fraction: f64) -> WeightFormat {
        let residual = match self {
            Self::Full => Residual::Bits8,
            Self::Balanced => Residual::Bits4,
            Self::Compact | Self::Paper => Residual::None,
            Self::F32 => return WeightFormat::Float,
        };
        WeightFormat::Hybrid(HybridFormat { residual, outlier_fraction })
    }

    /// The format of the residual stream: bf16 beside INT8, f32 in the reference.
    pub fn stream(self) -> StreamFormat {
        if self.is_int8() { StreamFormat::Bf16 } else { StreamFormat::F32 }
    }
}

impl OptimizerOptions {
    /// A rule of which nothing but its memory matters: for plans.
    pub fn for_plan(kind: OptimizerKind) -> Self {
        Self {
            kind,
            lr: 0.0,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.99,
            schedule: LrSchedule::Constant,
            min_lr_ratio: 1.0,
            warmup: Warmup::Steps(0),
            max_grad_norm: None,
        }
    }

    /// The update rule of float parameters.
    fn float_rule(&self) -> FloatRule {
        match self.kind {
            OptimizerKind::Lion => FloatRule::Lion(self.lion()),
            OptimizerKind::AdamW => FloatRule::AdamW {
                beta1: self.beta1,
                beta2: self.beta2,
                eps: 1e-8,
                weight_decay: self.weight_decay,
            },
        }
    }

    fn lion(&self) -> LionConfig {
        LionConfig { beta1: self.beta1, beta2: self.beta2, weight_decay: self.weight_decay }
    }
}

impl StateOptions {
    /// The fraction of protected features: as asked, or the default.
    pub fn outlier_fraction(&self) -> f64 {
        self.outliers.unwrap_or(self.states.outlier_fraction())
    }

    /// How matrices are stored.
    pub fn format(&self) -> WeightFormat {
        self.states.format(self.outlier_fraction())
    }

    /// How passes compute, with recomputation as given: `auto` must have been decided.
    pub fn pass(&self, seed: u64, recompute: Recompute) -> PassOptions {
        PassOptions {
            compute: self.compute.into(),
            recompute,
            stream: self.states.stream(),
            seed,
            step: 0,
        }
    }

    /// Everything that decides how a model is stored and trained.
    pub fn setup(&self, optimizer: &OptimizerOptions, seed: u64, recompute: Recompute) -> Setup {
        Setup {
            format: self.format(),
            optimizer: OptimizerConfig {
                lion: optimizer.lion(),
                float: optimizer.float_rule(),
                momentum: self.momentum_code.into(),
                rounding: self.rounding.into(),
                max_grad_norm: optimizer.max_grad_norm.unwrap_or(f64::INFINITY),
            },
            pass: self.pass(seed, recompute),
            gradients: match self.gradients {
                GradientChoice::Released => GradientMode::Released,
                GradientChoice::Stored => GradientMode::Stored,
            },
        }
    }

    /// The recomputations to try, best first: the asked one, or both.
    pub fn recompute_choices(&self) -> &'static [Recompute] {
        match self.recompute {
            RecomputeChoice::Auto => &[Recompute::None, Recompute::Block],
            RecomputeChoice::None => &[Recompute::None],
            RecomputeChoice::Block => &[Recompute::Block],
        }
    }
}
