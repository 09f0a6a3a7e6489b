//! Figures beside their definitions, and the closed form of a bootstrap beside a bootstrap.

use super::*;
use crate::data::question_set::{AskedQuestion, PossibleAnswer};
use std::path::PathBuf;

fn set(form: Form, golds: &[usize], continuations: &[&str]) -> QuestionSet {
    let answer =
        |text: &&str| PossibleAnswer { context: String::new(), continuation: (*text).into() };
    let answers: Vec<_> = continuations.iter().map(answer).collect();
    let question =
        |(i, &gold): (usize, &usize)| AskedQuestion { line: i + 1, answers: answers.clone(), gold };
    let questions = golds.iter().enumerate().map(question).collect();
    QuestionSet { name: "tiny".into(), path: PathBuf::from("tiny.jsonl"), form, questions }
}

fn found(index: usize, sums: &[f64]) -> Likelihoods {
    Likelihoods { index, sums: sums.to_vec(), greedy: None }
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} {expected}");
}

#[test]
fn accuracies_are_by_sum_by_character_and_by_byte() {
    // 2 characters in 4 bytes, 3 characters in 3 bytes.
    let choices = set(Form::Choices, &[0, 1, 1], &["éé", "abc"]);
    let found = [found(0, &[-6.0, -7.0]), found(1, &[-6.0, -7.0]), found(2, &[-2.0, -4.0])];
    let score = Scored::of(&choices, &found).score();
    let value = |metric| score.figures[&metric].value;
    // Sums: 0, 0, 0. By character: 1 (-3 to -7/3), 1, 0 (-1 to -4/3). By byte: 0 (-1.5 to -7/3), 0, 0.
    near(value(Metric::Acc), 1.0 / 3.0, 1e-15);
    near(value(Metric::AccNorm), 1.0 / 3.0, 1e-15);
    near(value(Metric::AccBytes), 1.0 / 3.0, 1e-15);
    // Of 1, 0, 0: the standard deviation of the sample is sqrt(1/3).
    near(score.figures[&Metric::Acc].stderr.unwrap(), 1.0 / 3.0, 1e-15);
    let contexts = set(Form::Contexts, &[0, 1, 1], &["a", "a"]);
    let score = Scored::of(&contexts, &found).score();
    assert_eq!(score.figures.keys().collect::<Vec<_>>(), [&Metric::Acc]);
    near(score.quoted(), 1.0 / 3.0, 1e-15);
    let one = Scored::of(&contexts, &found[..1]).score();
    assert_eq!((one.left_out, one.figures[&Metric::Acc].stderr), (2, None));
}

/// Numbers that look drawn by chance, in 0..1.
fn draws() -> impl FnMut() -> f64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[test]
fn the_error_of_a_perplexity_is_that_of_a_bootstrap() {
    let mut draw = draws();
    let base: Vec<_> = (0..40).map(|_| -8.0 * draw()).collect();
    let other: Vec<_> = base.iter().map(|value| value + 0.5 * draw()).collect();
    let rounds = 40_000;
    let (mut alone, mut above) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let chosen: Vec<_> = (0..40).map(|_| (draw() * 40.0) as usize).collect();
        let of = |values: &[f64]| (-chosen.iter().map(|&i| values[i]).sum::<f64>() / 40.0).exp();
        alone.push(of(&base));
        above.push(of(&other) - of(&base));
    }
    let deviation = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
            .sqrt()
    };
    let (expected, found) = (deviation(&alone), perplexity(&base).stderr.unwrap());
    near(found / expected, 1.0, 0.02);
    let (expected, figure) = (deviation(&above), perplexity_above(&other, &base));
    near(figure.stderr.unwrap() / expected, 1.0, 0.02);
    near(figure.value, perplexity(&other).value - perplexity(&base).value, 1e-12);
    assert_eq!(perplexity_above(&base, &base), Figure { value: 0.0, stderr: Some(0.0) });
}

#[test]
fn differences_are_question_by_question() {
    let choices = set(Form::Contexts, &[0; 4], &["a", "b"]);
    let (right, wrong) = ([-1.0, -2.0], [-2.0, -1.0]);
    let answers = |all: [[f64; 2]; 4]| -> Vec<_> {
        all.iter().enumerate().map(|(i, sums)| found(i, sums)).collect()
    };
    let base = Scored::of(&choices, &answers([right, wrong, wrong, right]));
    let tuned = Scored::of(&choices, &answers([right, right, wrong, right]));
    let above = tuned.above(&base).unwrap()[&Metric::Acc];
    // Of 0, 1, 0, 0: mean 1/4, and the standard deviation of the sample is 1/2.
    assert_eq!(above, Figure { value: 0.25, stderr: Some(0.25) });
    let fewer = Scored::of(&choices, &answers([right; 4])[1..]);
    assert_eq!(fewer.above(&base), None, "other questions");
}

#[test]
fn the_loss_of_data_has_the_error_of_its_sequences() {
    let loss = |sum, tokens| SequenceLoss { sum, tokens };
    let losses = [loss(10.0, 5), loss(4.0, 4), loss(9.0, 3)];
    let nll = data_figures(&losses)[&Metric::Nll];
    near(nll.value, 23.0 / 12.0, 1e-15);
    let residuals = losses.map(|loss| (loss.sum - nll.value * loss.tokens as f64) / 12.0);
    let expected = (residuals.iter().map(|r| r * r).sum::<f64>() * 3.0 / 2.0).sqrt();
    near(nll.stderr.unwrap(), expected, 1e-15);
    // Every token loses 0.5 nats: the difference is sure, however much the losses vary.
    let better = losses.map(|l| loss(l.sum - 0.5 * l.tokens as f64, l.tokens));
    let above = data_above(&better, &losses).unwrap();
    near(above[&Metric::Nll].value, -0.5, 1e-15);
    near(above[&Metric::Nll].stderr.unwrap(), 0.0, 1e-15);
    let perplexity = above[&Metric::Perplexity];
    let figures =
        [data_figures(&better), data_figures(&losses)].map(|all| all[&Metric::Perplexity]);
    near(perplexity.value, figures[0].value - figures[1].value, 1e-12);
    assert_eq!(data_above(&losses[..2], &losses), None, "other tokens");
    assert_eq!(data_figures(&losses[..1])[&Metric::Nll].stderr, None);
}
