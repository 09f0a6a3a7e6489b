//! What decides when a run saves and ends, and which model it leaves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use qft_optim::ScheduleKind;
use qft_testing::material;
use qft_train::options::{CheckpointCopy, FinetuneArgs, States};
use qft_train::report::{MetricsLog, SamplesFile};
use qft_train::run::{EarlyEnd, Event, Observer, Summary, finetune};
use qft_train::{ErrorKind, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run that learns a few lines by heart, so that the held-out loss soon rises again. It is looked at after every second step.
fn args(dir: &Path, out: &str) -> FinetuneArgs {
    let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
    let (train, held_out) = (dir.join("train.txt"), dir.join("held_out.txt"));
    std::fs::write(&train, &text[..600]).unwrap();
    std::fs::write(&held_out, &text[100_000..104_000]).unwrap();
    let mut args = FinetuneArgs::default();
    args.files.model = Some(material::stories260k().into());
    args.files.data = vec![train];
    args.files.eval_data = vec![held_out];
    args.files.out = Some(dir.join(out));
    args.batch.seq_len = Some(64);
    args.batch.batch_size = Some(2);
    args.training.steps = Some(60);
    args.training.lr = Some(1e-3);
    args.training.schedule = Some(ScheduleKind::Constant);
    args.training.warmup = Some("0".parse().unwrap());
    args.machine.threads = Some(1);
    args.progress.eval_every = Some(2);
    args
}

/// Asks the run to stop at an event of this name, and counts checkpoints.
#[derive(Default)]
struct Watcher<'a> {
    stop_at: Option<(&'a str, u64, &'a AtomicBool)>,
    saved: Vec<u64>,
    told: Vec<String>,
}

impl Observer for Watcher<'_> {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        let (name, step) = match event {
            Event::Stepped(metrics) => ("step", metrics.step),
            Event::Evaluated { metrics, .. } => ("evaluated", metrics.step),
            Event::Saved { step, .. } => ("saved", *step),
            Event::EndedEarly { progress, .. } => ("ended", u64::from(progress.step)),
            Event::TookBest(best) => ("best", u64::from(best.step)),
            _ => return Ok(()),
        };
        if name == "saved" {
            self.saved.push(step);
        }
        if ["ended", "best"].contains(&name) {
            self.told.push(format!("{name} {step}"));
        }
        if let Some((at, of, stop)) = self.stop_at
            && (at, of) == (name, step)
        {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn run(args: FinetuneArgs) -> (Summary, Vec<u64>, Vec<String>) {
    let (mut watcher, mut metrics) = (Watcher::default(), MetricsLog::default());
    let observers: &mut [&mut dyn Observer] = &mut [&mut metrics, &mut watcher];
    let never = AtomicBool::new(false);
    let summary = finetune(&args.resolve().unwrap(), &never, observers).unwrap();
    (summary, watcher.saved, watcher.told)
}

/// Runs until it is stopped, at an event of this name and step.
fn stopped(args: FinetuneArgs, at: &str, step: u64) -> Summary {
    let stop = AtomicBool::new(false);
    let (mut watcher, mut metrics) = (Watcher::default(), MetricsLog::default());
    watcher.stop_at = Some((at, step, &stop));
    let observers: &mut [&mut dyn Observer] = &mut [&mut metrics, &mut watcher];
    let summary = finetune(&args.resolve().unwrap(), &stop, observers).unwrap();
    assert!(summary.stopped.is_some(), "{at} {step}");
    summary
}

fn steered(dir: &Path, out: &str) -> FinetuneArgs {
    let mut args = args(dir, out);
    args.progress.patience = Some(3);
    args.progress.keep_best = Some(true);
    args
}

fn state_of(out: &Path, step: u32) -> Vec<u8> {
    std::fs::read(out.join(format!("checkpoints/step-{step:06}/state.safetensors"))).unwrap()
}

fn model_of(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).unwrap()
}

/// Steps and losses of the evaluations in a file of metrics.
fn evaluations(out: &Path) -> Vec<(u64, f64)> {
    let lines = common::json_lines(&out.join("metrics.jsonl"));
    let of = |line: &serde_json::Value| Some((line["step"].as_u64()?, line["eval_loss"].as_f64()?));
    lines.iter().filter_map(of).collect()
}

#[test]
fn the_best_model_is_that_of_a_run_which_was_stopped_there() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let (summary, _, told) = run(steered(temp.path(), "out"));
    let best = summary.best.unwrap();
    println!("best: {best:?}, {:?}", evaluations(&out));
    assert_eq!(summary.ended_early, Some(EarlyEnd::Patience));
    // Three evaluations after the best one.
    let end = u64::from(best.step) + 6;
    assert!(best.step > 2 && end < 60, "{best:?}");
    assert_eq!(
        (summary.steps, told),
        (end, vec![format!("ended {end}"), format!("best {}", best.step)])
    );
    assert_eq!(summary.final_eval_loss, Some(best.eval_loss));
    assert_eq!(summary.saved_eval.unwrap().step, u64::from(best.step));
    let losses = evaluations(&out);
    assert_eq!(losses.len() as u64, 1 + end / 2, "each evaluation once: {losses:?}");
    let lowest = losses[1..].iter().map(|&(_, loss)| loss).fold(f64::INFINITY, f64::min);
    assert_eq!(lowest, best.eval_loss);
    // Stopped by hand: its checkpoint has the same bits.
    stopped(args(temp.path(), "by_hand"), "step", best.step.into());
    assert!(state_of(&temp.path().join("by_hand"), best.step) == state_of(&out, best.step));
    // A run of that length saves the same model.
    let mut short = args(temp.path(), "short");
    short.training.steps = Some(best.step.into());
    run(short);
    assert!(model_of(&temp.path().join("short")) == model_of(&out), "the bits differ");
    // The last checkpoint and the best one are there, and no others.
    let names = std::fs::read_dir(out.join("checkpoints")).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [format!("step-{:06}", best.step), format!("step-{end:06}")]);
    // The same once more comes to the same.
    let again =
        finetune(&steered(temp.path(), "out").resolve().unwrap(), &AtomicBool::new(false), &mut []);
    assert!(format!("{:#}", again.unwrap_err()).contains("already holds this run"));
    let mut resumed = steered(temp.path(), "out");
    resumed.progress.resume = Some("latest".into());
    let (again, ..) = run(resumed);
    assert_eq!((again.best, again.steps), (Some(best), end));
    // More patience is another run, which goes on.
    let mut patient = steered(temp.path(), "out");
    patient.progress.resume = Some("latest".into());
    patient.progress.patience = Some(4);
    let (patient, ..) = run(patient);
    assert_eq!((patient.best, patient.steps), (Some(best), end + 2));
}

#[test]
fn a_resumed_run_ends_where_one_that_never_stopped_does() {
    let temp = tempfile::tempdir().unwrap();
    let (whole, ..) = run(steered(temp.path(), "whole"));
    let best = whole.best.unwrap();
    let step = u64::from(best.step);
    let expected = model_of(&temp.path().join("whole"));
    for (at, step) in [
        ("step", 1),
        // Before it is known that this is the best, and after its checkpoint is there.
        ("step", step),
        ("evaluated", step),
        ("saved", step),
        ("step", step + 3),
        ("evaluated", step + 6),
    ] {
        let name = format!("{at}-{step}");
        let mut first = steered(temp.path(), &name);
        // Saved before an evaluation: what this finds is not in it.
        first.progress.checkpoint_every = Some(2);
        stopped(first.clone(), at, step);
        first.progress.resume = Some("latest".into());
        let (summary, ..) = run(first);
        assert_eq!((summary.best, summary.steps), (Some(best), whole.steps), "{name}");
        assert!(model_of(&temp.path().join(&name)) == expected, "{name}: the bits differ");
        let whole = evaluations(&temp.path().join("whole"));
        assert_eq!(evaluations(&temp.path().join(&name)), whole, "{name}");
    }
}

#[test]
fn a_best_checkpoint_that_is_gone_is_forgotten_and_another_folder_finds_it() {
    let temp = tempfile::tempdir().unwrap();
    let (whole, ..) = run(steered(temp.path(), "out"));
    let out = temp.path().join("out");
    let best = whole.best.unwrap();
    let last = out.join(format!("checkpoints/step-{:06}", whole.steps));
    let resumed = |name: &str| {
        let mut args = steered(temp.path(), name);
        args.progress.resume = Some(last.display().to_string());
        run(args).0
    };
    // From there it goes on elsewhere, and takes the best from where it is.
    let elsewhere = resumed("elsewhere");
    assert_eq!((elsewhere.best, elsewhere.steps), (Some(best), whole.steps));
    assert!(model_of(&temp.path().join("elsewhere")) == model_of(&out));
    std::fs::remove_dir_all(out.join(format!("checkpoints/step-{:06}", best.step))).unwrap();
    let forgotten = resumed("out");
    assert!(forgotten.best.unwrap().step > best.step, "{:?}", forgotten.best);
}

#[test]
fn minutes_end_a_run_that_can_go_on_and_save_checkpoints() {
    let temp = tempfile::tempdir().unwrap();
    let short = |out: &str| {
        let mut args = args(temp.path(), out);
        args.training.steps = Some(6);
        args
    };
    let mut timed = short("timed");
    timed.progress.max_minutes = Some(1e-9);
    timed.progress.checkpoint_minutes = Some(1e-9);
    // A run whose time is over before its first step has done nothing, so each part does one step at least.
    let (summary, saved, told) = run(timed.clone());
    assert_eq!((summary.ended_early, summary.steps), (Some(EarlyEnd::MaxMinutes), 1));
    assert_eq!((saved, told), (vec![1], vec!["ended 1".into()]));
    let out = temp.path().join("timed");
    assert!(out.join("model.safetensors").exists());
    // It is not done: to go on has to be asked for.
    let never = AtomicBool::new(false);
    let again = finetune(&short("timed").resolve().unwrap(), &never, &mut []).unwrap_err();
    assert!(format!("{again:#}").contains("not done"), "{again:#}");
    let mut rest = short("timed");
    rest.progress.resume = Some("latest".into());
    rest.progress.checkpoint_minutes = Some(1e-9);
    let (summary, saved, _) = run(rest);
    assert_eq!((summary.steps, summary.ended_early), (6, None));
    assert_eq!(saved, [2, 3, 4, 5, 6]);
    run(short("whole"));
    assert!(model_of(&out) == model_of(&temp.path().join("whole")), "the bits differ");
    let hours = Some(600.0);
    let mut long = short("long");
    (long.progress.max_minutes, long.progress.checkpoint_minutes) = (hours, hours);
    let (summary, saved, _) = run(long);
    assert_eq!((summary.steps, summary.ended_early, saved), (6, None, vec![6]));
}

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut FinetuneArgs)| {
        let mut args = args(temp.path(), "out");
        change(&mut args);
        format!("{:#}", args.resolve().unwrap_err())
    };
    let told = refused(&|args| args.progress.patience = Some(0));
    assert!(told.contains("--patience is 0"), "{told}");
    let told = refused(&|args| {
        (args.progress.keep_best, args.progress.eval_every) = (Some(true), None);
    });
    assert!(told.contains("--keep-best") && told.contains("--eval-every"), "{told}");
    let told = refused(&|args| {
        (args.progress.patience, args.files.eval_data) = (Some(1), Vec::new());
        args.progress.eval_every = None;
    });
    assert!(told.contains("--patience: there is no held-out data"), "{told}");
    for minutes in [0.0, -1.0, 1e300] {
        let told = refused(&|args| args.progress.max_minutes = Some(minutes));
        assert!(told.contains("--max-minutes"), "{told}");
        let told = refused(&|args| args.progress.checkpoint_minutes = Some(minutes));
        assert!(told.contains("--checkpoint-minutes"), "{told}");
    }
}

#[test]
fn sets_and_samples_have_lines_of_their_own() {
    let temp = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
    let file = |name: &str, range: std::ops::Range<usize>| {
        let path = temp.path().join(name);
        std::fs::write(&path, &text[range]).unwrap();
        path
    };
    let (one, two) = (file("one.txt", 0..3000), file("two.txt", 50_000..52_000));
    let mut looked = args(temp.path(), "out");
    (looked.training.steps, looked.progress.eval_every) = (Some(4), Some(2));
    looked.files.eval_data = ["first", "second"]
        .into_iter()
        .zip([&one, &two])
        .map(|(name, path)| format!("{name}={}", path.display()).into())
        .collect();
    looked.progress.sample_prompt = vec!["Once".into(), "ROMEO:".into()];
    let options = looked.clone().resolve().unwrap();
    let (mut metrics, mut samples) = (MetricsLog::default(), SamplesFile::default());
    let observers: &mut [&mut dyn Observer] = &mut [&mut metrics, &mut samples];
    let summary = finetune(&options, &AtomicBool::new(false), observers).unwrap();
    assert_eq!(summary.owners.planned, summary.owners.measured, "bytes by owner");
    let out = temp.path().join("out");
    let lines = common::json_lines(&out.join("metrics.jsonl"));
    let figure = |line: &serde_json::Value, key: &str| line.get(key).map(|f| f.as_f64().unwrap());
    for step in [0, 2, 4] {
        let of_step: Vec<_> = lines.iter().filter(|line| line["step"] == step).collect();
        let sets: Vec<_> = of_step.iter().filter_map(|line| line.get("set")).collect();
        assert_eq!(sets, ["first", "second"], "{step}");
        let losses: Vec<f64> = of_step.iter().filter_map(|line| figure(line, "set_loss")).collect();
        let all: Vec<f64> = of_step.iter().filter_map(|line| figure(line, "eval_loss")).collect();
        assert!(
            all.len() == 1
                && losses[0].min(losses[1]) < all[0]
                && all[0] < losses[0].max(losses[1])
        );
        let written: Vec<_> = of_step.iter().filter_map(|line| line.get("prompt")).collect();
        assert_eq!(written, ["Once", "ROMEO:"], "{step}");
    }
    let right = |key: &str| lines.iter().filter_map(|line| figure(line, key)).collect::<Vec<_>>();
    for (key, count) in [("accuracy", 4), ("eval_accuracy", 3), ("set_accuracy", 6)] {
        let found = right(key);
        assert_eq!(found.len(), count, "{key}");
        assert!(found.iter().all(|part| *part > 0.02 && *part < 0.9), "{key}: {found:?}");
    }
    let text = std::fs::read_to_string(out.join("samples.txt")).unwrap();
    assert_eq!(text.matches("=== step ").count(), 3, "{text}");
    assert!(text.starts_with("=== step 0 ===\n\nOnce"), "{text}");
    // One set without a name comes to the same as a run always has.
    let together = |given: Vec<std::path::PathBuf>, out: &str| {
        let mut args = looked.clone();
        (args.files.eval_data, args.files.out) = (given, Some(temp.path().join(out)));
        args.progress.sample_prompt.clear();
        run(args).0.final_eval_loss.unwrap()
    };
    let plain = together(vec![one.clone()], "plain");
    assert_eq!(together(vec![format!("name={}", one.display()).into()], "named"), plain);
    // All together are measured as if they were one set.
    let both = together(vec![one, two], "both");
    assert!((summary.final_eval_loss.unwrap() - both).abs() < 1e-12);
}

/// A name, and values.
type Tensor = (String, Vec<f32>);

/// The tensors of a saved model, in f32.
fn tensors(dir: &Path) -> Vec<Tensor> {
    let config = qft_llama::LlamaConfig::from_dir(dir).unwrap();
    let source = qft_llama::WeightSource::open(dir, &config).unwrap();
    let read = |t: qft_llama::TensorSpec| {
        let mut values = vec![0.0; t.elements()];
        qft_llama::Weights::read_rows(&source, &t.name, 0..t.rows, &mut values).unwrap();
        (t.name, values)
    };
    config.tensors().map(read).collect()
}

#[test]
fn groups_have_learning_rates_of_their_own() {
    let temp = tempfile::tempdir().unwrap();
    let base = tensors(&material::stories260k());
    let moved = |rates: &[&str], out: &str| -> Vec<(String, f32)> {
        let mut args = args(temp.path(), out);
        args.training.steps = Some(1);
        args.training.group_lr = rates.iter().map(|rate| rate.parse().unwrap()).collect();
        args.files.export_dtype = Some(qft_llama::export::WeightType::F32);
        args.weights.states = Some(qft_train::options::States::F32);
        run(args);
        let after = tensors(&temp.path().join(out));
        let most = |(before, after): (&Tensor, &Tensor)| {
            let change = before.1.iter().zip(&after.1).map(|(a, b)| (a - b).abs());
            (before.0.clone(), change.fold(0.0, f32::max))
        };
        base.iter().zip(&after).map(most).collect()
    };
    // A step of Lion moves every weight by the learning rate.
    let near = |moved: f32, rate: f32| (moved - rate).abs() < 0.01 * rate + 1e-6;
    for (name, moved) in moved(&[], "same") {
        assert!(near(moved, 1e-3), "{name}: {moved}");
    }
    for (name, moved) in moved(&["norms=1e-2", "embeddings=0"], "groups") {
        let rate = match name.as_str() {
            "model.embed_tokens.weight" => 0.0,
            name if name.contains("norm") => 1e-2,
            _ => 1e-3,
        };
        assert!(near(moved, rate), "{name}: {moved}");
    }
    // The same rate for all is no other run, to the last bit.
    let mut plain = args(temp.path(), "plain");
    plain.training.steps = Some(3);
    let mut grouped = plain.clone();
    grouped.files.out = Some(temp.path().join("grouped"));
    grouped.training.group_lr = vec!["norms=1e-3".parse().unwrap()];
    run(plain);
    run(grouped);
    assert!(model_of(&temp.path().join("plain")) == model_of(&temp.path().join("grouped")));
    let mut head = args(temp.path(), "head");
    head.training.group_lr = vec!["head=1e-3".parse().unwrap()];
    let told = finetune(&head.resolve().unwrap(), &AtomicBool::new(false), &mut []).unwrap_err();
    assert!(format!("{told:#}").contains("embeddings=RATE"), "{told:#}");
}

#[test]
fn a_run_under_wsd_can_be_extended_before_its_rate_falls() {
    let temp = tempfile::tempdir().unwrap();
    let wsd = |out: &str, steps| {
        let mut args = args(temp.path(), out);
        args.training.schedule = Some(ScheduleKind::Wsd);
        args.training.warmup = Some("2".parse().unwrap());
        args.training.decay = Some("4".parse().unwrap());
        args.training.steps = Some(steps);
        args.progress.eval_every = None;
        args
    };
    run(wsd("whole", 12));
    let rates: Vec<f64> = common::json_lines(&temp.path().join("whole/metrics.jsonl"))
        .iter()
        .filter_map(|line| line["lr"].as_f64())
        .collect();
    assert!(rates[2..=8].iter().all(|&rate| rate == 1e-3) && rates[9] < 1e-3, "{rates:?}");
    // Stopped before its rate falls, it becomes a longer run.
    stopped(wsd("short", 10), "step", 5);
    let mut longer = wsd("short", 12);
    longer.progress.resume = Some("latest".into());
    run(longer);
    assert!(model_of(&temp.path().join("short")) == model_of(&temp.path().join("whole")));
    let mut too_late = wsd("whole", 20);
    too_late.progress.resume = Some("latest".into());
    let never = AtomicBool::new(false);
    let told = finetune(&too_late.resolve().unwrap(), &never, &mut []).unwrap_err();
    assert!(format!("{told:#}").contains("learning rates depend on the length"), "{told:#}");
}

#[test]
fn checkpoints_written_while_training_goes_on_have_the_same_bits() {
    let temp = tempfile::tempdir().unwrap();
    let saving = |out: &str, copy| {
        let mut args = args(temp.path(), out);
        args.training.steps = Some(6);
        (args.progress.eval_every, args.progress.checkpoint_every) = (Some(3), Some(1));
        (args.progress.keep_checkpoints, args.progress.checkpoint_copy) = (Some(9), Some(copy));
        args
    };
    for states in [States::Full, States::Paper, States::F32] {
        let name = |copy: &str| format!("{states}-{copy}");
        let mut waiting = saving(&name("never"), CheckpointCopy::Never);
        let mut going_on = saving(&name("always"), CheckpointCopy::Always);
        for args in [&mut waiting, &mut going_on] {
            args.weights.states = Some(states);
        }
        run(waiting);
        let (summary, saved, _) = run(going_on);
        assert_eq!(saved, [1, 2, 3, 4, 5, 6]);
        assert_eq!(summary.owners.planned, summary.owners.measured, "{states}: bytes by owner");
        assert!(summary.owners.planned["loading"] > 260_000, "the copy is planned");
        let (one, other) = (temp.path().join(name("never")), temp.path().join(name("always")));
        for step in 1..=6 {
            assert!(state_of(&one, step) == state_of(&other, step), "{states} {step}");
        }
        assert!(model_of(&one) == model_of(&other), "{states}");
    }
    // Stopped and resumed at any time, and with the best model kept.
    let (whole, ..) = run(steered(temp.path(), "whole"));
    for (at, step) in
        [("step", 1), ("saved", 2), ("evaluated", u64::from(whole.best.unwrap().step))]
    {
        let name = format!("{at}-{step}");
        let mut first = steered(temp.path(), &name);
        first.progress.checkpoint_copy = Some(CheckpointCopy::Always);
        first.progress.checkpoint_every = Some(2);
        stopped(first.clone(), at, step);
        first.progress.resume = Some("latest".into());
        assert_eq!(run(first).0.best, whole.best, "{name}");
        assert!(
            model_of(&temp.path().join(&name)) == model_of(&temp.path().join("whole")),
            "{name}"
        );
    }
}

#[test]
fn a_run_that_diverges_keeps_the_last_good_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    for copy in [CheckpointCopy::Never, CheckpointCopy::Always] {
        let name = format!("{copy:?}");
        let mut diverging = args(temp.path(), &name);
        // The rate rises until the weights are ruined.
        diverging.training.warmup = Some("1000".parse().unwrap());
        (diverging.training.steps, diverging.training.lr) = (Some(1000), Some(1.0));
        diverging.weights.states = Some(States::F32);
        diverging.progress.eval_every = None;
        (diverging.progress.checkpoint_every, diverging.progress.checkpoint_copy) =
            (Some(1), Some(copy));
        let never = AtomicBool::new(false);
        let mut metrics = MetricsLog::default();
        let observers: &mut [&mut dyn Observer] = &mut [&mut metrics];
        let error = finetune(&diverging.resolve().unwrap(), &never, observers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Diverged, "{error:#}");
        let out = temp.path().join(&name);
        let losses: Vec<f64> = common::json_lines(&out.join("metrics.jsonl"))
            .iter()
            .filter_map(|line| line["loss"].as_f64())
            .collect();
        let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let kept = std::fs::read_dir(out.join("checkpoints")).unwrap();
        let kept = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut kept: Vec<usize> =
            kept.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
        kept.sort();
        println!("{name}: kept {kept:?}, losses {losses:?}");
        // The loss of a checkpoint is that of the step after it.
        let good = |step: &&usize| losses.get(**step).is_some_and(|loss| loss - lowest < 4.0);
        let good = *kept.iter().find(good).unwrap();
        assert!(!state_of(&out, good as u32).is_empty());
    }
}
