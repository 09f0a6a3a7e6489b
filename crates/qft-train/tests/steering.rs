//! What decides when a run saves and ends, and which model it leaves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use qft_optim::ScheduleKind;
use qft_testing::material;
use qft_train::Result;
use qft_train::options::FinetuneArgs;
use qft_train::report::MetricsLog;
use qft_train::run::{EarlyEnd, Event, Observer, Summary, finetune};
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
    assert_eq!((summary.steps, told), (end, vec![format!("ended {end}"), format!("best {}", best.step)]));
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
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [format!("step-{:06}", best.step), format!("step-{end:06}")]);
    // The same once more comes to the same.
    let again = finetune(&steered(temp.path(), "out").resolve().unwrap(), &AtomicBool::new(false), &mut []);
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
