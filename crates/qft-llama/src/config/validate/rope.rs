//! What rotary positions must satisfy.

use crate::config::{LlamaConfig, RopeScaling};

/// The longest context anybody writes down.
const MAX_CONTEXT: usize = 1 << 30;

/// Key, values that would work, and the value found.
pub(super) type Fault = (&'static str, String, String);

pub(super) fn check(config: &LlamaConfig) -> Result<(), Fault> {
    let theta = config.rope.theta;
    if !(theta > 1.0 && theta <= 1e30) {
        return fault("rope_theta", "a number above 1 and at most 1e30", theta);
    }
    let rotated = config.rope.rotated.unwrap_or(config.head_dim);
    if rotated == 0 || rotated > config.head_dim || !rotated.is_multiple_of(2) {
        let expected = format!("an even part of head_dim {}", config.head_dim);
        return fault("partial_rotary_factor", &expected, format!("{rotated} dimensions"));
    }
    scaling(&config.rope.scaling, rotated)
}

fn scaling(scaling: &RopeScaling, rotated: usize) -> Result<(), Fault> {
    match scaling {
        RopeScaling::Default => Ok(()),
        RopeScaling::Linear { factor } => divisor(*factor),
        RopeScaling::Dynamic { factor, max_position_embeddings } => {
            divisor(*factor)?;
            context(*max_position_embeddings)
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings,
        } => {
            divisor(*factor)?;
            positive("rope_scaling.low_freq_factor", *low)?;
            if !(high > low && high.is_finite()) {
                let expected = "a number above low_freq_factor";
                return fault("rope_scaling.high_freq_factor", expected, high);
            }
            context(*original_max_position_embeddings)
        }
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            truncate: _,
            attention_factor,
        } => {
            divisor(*factor)?;
            turns("rope_scaling.beta_fast", *beta_fast)?;
            turns("rope_scaling.beta_slow", *beta_slow)?;
            positive("rope_scaling.attention_factor", f64::from(*attention_factor))?;
            context(*original_max_position_embeddings)
        }
        RopeScaling::LongRope {
            short_factor,
            long_factor,
            original_max_position_embeddings,
            attention_factor,
        } => {
            factors("rope_scaling.short_factor", short_factor, rotated)?;
            factors("rope_scaling.long_factor", long_factor, rotated)?;
            positive("rope_scaling.attention_factor", f64::from(*attention_factor))?;
            context(*original_max_position_embeddings)
        }
    }
}

fn factors(key: &'static str, factors: &[f32], rotated: usize) -> Result<(), Fault> {
    if factors.len() != rotated / 2 {
        let expected = format!("{} numbers, one for each rotated pair", rotated / 2);
        return fault(key, &expected, factors.len());
    }
    // A smaller one would turn the first pair by more than can be told apart, or make it infinite.
    match factors.iter().find(|&&factor| !(1e-6..=1e30).contains(&factor)) {
        Some(factor) => fault(key, "numbers from 1e-6 to 1e30", factor),
        None => Ok(()),
    }
}

fn divisor(factor: f64) -> Result<(), Fault> {
    if (1.0..=1e30).contains(&factor) {
        return Ok(());
    }
    fault("rope_scaling.factor", "a number from 1 to 1e30", factor)
}

fn positive(key: &'static str, number: f64) -> Result<(), Fault> {
    if number > 0.0 && number.is_finite() {
        return Ok(());
    }
    fault(key, "a number above 0", number)
}

/// Within this range the ramp between the two is a number, whatever the context.
fn turns(key: &'static str, number: f64) -> Result<(), Fault> {
    if (1e-6..=1e6).contains(&number) {
        return Ok(());
    }
    fault(key, "a number from 1e-6 to 1e6", number)
}

fn context(size: usize) -> Result<(), Fault> {
    if (1..=MAX_CONTEXT).contains(&size) {
        return Ok(());
    }
    fault("rope_scaling.original_max_position_embeddings", "1 to 2^30", size)
}

fn fault(key: &'static str, expected: &str, got: impl ToString) -> Result<(), Fault> {
    Err((key, expected.into(), got.to_string()))
}
