//! Choosing the next token from logits.

use crate::error::Error;
use qft_tensor::{Philox, Purpose, RngKey};

/// Greedy, temperature and nucleus sampling; the same seed and logits give the same tokens.
#[derive(Debug, Clone)]
pub struct TokenSampler {
    temperature: f32,
    top_p: f32,
    seed: u64,
    philox: Philox,
    drawn: u64,
    /// Candidates of the nucleus, kept between calls for their memory.
    candidates: Vec<u32>,
}

impl TokenSampler {
    /// Temperature 0 takes the most likely token, 1 samples the model's distribution. Of that, `top_p` keeps the
    /// most likely tokens that together reach this probability; 1 keeps all.
    ///
    /// Errors: [`Error::Sampling`] for a value out of its range.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Result<Self, Error> {
        let refuse = |what, expected, got: f32| {
            Err(Error::Sampling { what, expected, got: got.to_string() })
        };
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return refuse("temperature", "a number from 0 up", temperature);
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top-p", "a number above 0 and at most 1", top_p);
        }
        let philox = Philox::new(RngKey::new(seed, 0, 0, Purpose::NextToken));
        Ok(Self { temperature, top_p, seed, philox, drawn: 0, candidates: Vec::new() })
    }

    /// A sampler of its own for text number `text` of many; the first one's is this one from its beginning.
    #[must_use]
    pub fn of_text(&self, text: u32) -> Self {
        let philox = Philox::new(RngKey::new(self.seed, text, 0, Purpose::NextToken));
        Self { philox, drawn: 0, ..self.clone() }
    }

    /// The next token. `logits` f32 `[V]` are overwritten; of equal ones the first counts as more likely.
    ///
    /// Errors: [`Error::Sampling`] if a logit is NaN or none is finite.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, Error> {
        let best = argmax(logits)?;
        if self.temperature == 0.0 {
            return Ok(best as u32);
        }
        // Probabilities times one common factor: the most likely token has 1.
        let max = logits[best];
        for value in logits.iter_mut() {
            *value = ((*value - max) / self.temperature).exp();
        }
        let total: f64 = logits.iter().map(|&p| f64::from(p)).sum();
        let uniform = self.uniform();
        if self.top_p == 1.0 {
            return Ok(pick(0..logits.len() as u32, logits, uniform * total, best as u32));
        }
        // All tokens below the cutoff together have at most 1 - top_p: none of them is in the nucleus.
        let others = (logits.len() - 1).max(1) as f64;
        let cutoff = ((1.0 - f64::from(self.top_p)) * total / others).min(1.0) as f32;
        self.candidates.clear();
        self.candidates.extend((0..logits.len() as u32).filter(|&i| logits[i as usize] >= cutoff));
        // Stable, so that equal ones stay in order.
        self.candidates.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        let wanted = f64::from(self.top_p) * total;
        let (mut kept, mut mass) = (0, 0.0);
        for &candidate in &self.candidates {
            if mass >= wanted {
                break;
            }
            mass += f64::from(logits[candidate as usize]);
            kept += 1;
        }
        let nucleus = self.candidates[..kept].iter().copied();
        Ok(pick(nucleus, logits, uniform * mass, best as u32))
    }

    /// The next number in [0, 1), with 53 bits.
    fn uniform(&mut self) -> f64 {
        let [high, low] = [0, 1].map(|word| u64::from(self.philox.word(2 * self.drawn + word)));
        self.drawn += 1;
        ((high << 32 | low) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn argmax(logits: &[f32]) -> Result<usize, Error> {
    let refuse = |got| Err(Error::Sampling { what: "logits", expected: "finite numbers", got });
    let mut best = None;
    for (index, &value) in logits.iter().enumerate() {
        if value.is_nan() || value == f32::INFINITY {
            return refuse(format!("{value} for token {index}"));
        }
        if value > best.map_or(f32::NEG_INFINITY, |(_, most)| most) {
            best = Some((index, value));
        }
    }
    match best {
        Some((index, _)) => Ok(index),
        None => refuse(format!("{} that are all -inf", logits.len())),
    }
}

/// The token in whose share `point` falls.
fn pick(tokens: impl Iterator<Item = u32>, shares: &[f32], point: f64, fallback: u32) -> u32 {
    let mut sum = 0.0;
    for token in tokens {
        sum += f64::from(shares[token as usize]);
        if point < sum {
            return token;
        }
    }
    // Only rounding of the last sum leads here.
    fallback
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(temperature: f32, top_p: f32, seed: u64, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = TokenSampler::new(temperature, top_p, seed).unwrap();
        (0..n).map(|_| sampler.sample(&mut logits.to_vec()).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(draws(0.0, 1.0, 3, &[-1.0, 2.0, f32::NEG_INFINITY, 2.0], 3), [1, 1, 1]);
        assert_eq!(draws(1e-30, 0.9, 3, &[-1.0, 2.0, 1.9], 3), [1, 1, 1]);
    }

    #[test]
    fn the_seed_decides() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.7).sin()).collect();
        let first = draws(1.0, 0.9, 1, &logits, 100);
        assert_eq!(first, draws(1.0, 0.9, 1, &logits, 100));
        assert_ne!(first, draws(1.0, 0.9, 2, &logits, 100));
    }

    #[test]
    fn each_text_has_its_own_numbers() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut used = TokenSampler::new(1.0, 0.9, 1).unwrap();
        used.sample(&mut logits.clone()).unwrap();
        let drawn = |text| -> Vec<u32> {
            let mut own = used.of_text(text);
            (0..100).map(|_| own.sample(&mut logits.clone()).unwrap()).collect()
        };
        assert_eq!(drawn(0), draws(1.0, 0.9, 1, &logits, 100));
        assert_ne!(drawn(1), drawn(0));
        assert_eq!(drawn(1), drawn(1));
    }

    /// Frequencies of 20 000 draws, within five standard deviations of the expected share.
    #[test]
    fn frequencies_follow_temperature_and_nucleus() {
        let shares = [0.1f64, 0.4, 0.2, 0.3];
        let logits: Vec<f32> = shares.iter().map(|p| p.ln() as f32).collect();
        let squares: f64 = shares.iter().map(|p| p * p).sum();
        let cases: [(f32, f32, [f64; 4]); 5] = [
            (1.0, 1.0, shares),
            (0.5, 1.0, shares.map(|p| p * p / squares)),
            (1.0, 0.65, [0.0, 0.4 / 0.7, 0.0, 0.3 / 0.7]),
            (1.0, 0.75, [0.0, 0.4 / 0.9, 0.2 / 0.9, 0.3 / 0.9]),
            (1.0, 0.01, [0.0, 1.0, 0.0, 0.0]),
        ];
        let n = 20_000;
        for (temperature, top_p, expected) in cases {
            let drawn = draws(temperature, top_p, 11, &logits, n);
            for (token, p) in expected.into_iter().enumerate() {
                let count = drawn.iter().filter(|&&t| t as usize == token).count() as f64;
                let bound = 5.0 * (p * (1.0 - p) * n as f64).sqrt();
                assert!((count - p * n as f64).abs() <= bound, "{temperature} {top_p} {token}");
            }
        }
    }

    #[test]
    fn borders() {
        assert_eq!(draws(1.0, 0.5, 0, &[3.0], 2), [0, 0]);
        // Equal logits and a nucleus smaller than one of them: the first.
        assert_eq!(draws(1.0, 1e-6, 0, &[0.0; 10], 3), [0, 0, 0]);
        for logits in [&[][..], &[f32::NEG_INFINITY], &[0.0, f32::NAN], &[f32::INFINITY]] {
            for temperature in [0.0, 1.0] {
                let mut sampler = TokenSampler::new(temperature, 0.9, 0).unwrap();
                let error = sampler.sample(&mut logits.to_vec()).unwrap_err();
                assert!(error.to_string().contains("logits"), "{error}");
            }
        }
        for (temperature, top_p) in [(-1.0, 1.0), (f32::NAN, 1.0), (f32::INFINITY, 1.0)] {
            assert!(TokenSampler::new(temperature, top_p, 0).is_err());
        }
        for top_p in [0.0, 1.1, f32::NAN] {
            assert!(TokenSampler::new(1.0, top_p, 0).is_err());
        }
    }
}
