//! The run as a library: what it tells, and that it can be stopped wherever it is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use qft_autograd::Compute;
use qft_testing::material;
use qft_train::options::{FinetuneArgs, FinetuneOptions, Resume, States};
use qft_train::report::MetricsLog;
use qft_train::run::{Event, Observer, Summary, finetune};
use qft_train::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Four steps with everything that a run can do on its way.
fn options(out: &Path, resume: bool) -> FinetuneOptions {
    let mut args = FinetuneArgs::default();
    args.files.model = Some(material::stories260k().into());
    args.files.data = vec![common::excerpt().to_path_buf()];
    args.files.out = Some(out.to_path_buf());
    args.files.val_split = Some(0.1);
    args.batch.seq_len = Some(32);
    args.batch.batch_size = Some(2);
    args.training.steps = Some(4);
    args.training.lr = Some(5e-4);
    args.machine.threads = Some(1);
    args.progress.checkpoint_every = Some(2);
    args.progress.eval_every = Some(2);
    args.progress.eval_batches = Some(2);
    args.progress.sample_prompt = vec!["Once".into()];
    args.progress.resume = resume.then(|| "latest".into());
    args.resolve().unwrap()
}

/// What an event is, in a word.
fn name(event: &Event<'_>) -> String {
    match event {
        Event::DataRead { .. } => "data".into(),
        Event::Planned { .. } => "planned".into(),
        Event::Decided { .. } => "decided".into(),
        Event::Loaded(_) => "loaded".into(),
        Event::Resumed { step, .. } => format!("resumed {step}"),
        Event::Rates(_) => "rates".into(),
        Event::Started { .. } => "started".into(),
        Event::Sampled { moment, .. } => format!("sampled {moment:?}"),
        Event::Evaluated { moment, metrics } => format!("evaluated {moment:?} {}", metrics.step),
        Event::Answered { moment, .. } => format!("answered {moment:?}"),
        Event::Stepped(metrics) => format!("step {}", metrics.step),
        Event::Saved { step, .. } => format!("saved {step}"),
        Event::Stopped { step, .. } => format!("stopped {step}"),
        Event::Exported(_) => "exported".into(),
        Event::ExportedAs(dir) => format!("exported {}", dir.file_name().unwrap().display()),
        Event::Finished(_) => "finished".into(),
        Event::SavedEvaluated(summary) => match summary.saved_eval.unwrap().left_out {
            None => "measured".into(),
            Some(why) => format!("not measured: {why:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Writes down what happens, and at one event asks the run to stop or fails.
#[derive(Default)]
struct Watcher<'a> {
    seen: Vec<String>,
    stop_at: Option<(String, &'a AtomicBool)>,
    fail_at: Option<String>,
}

impl Observer for Watcher<'_> {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        // As often as there is data.
        if let Event::Reading(_) = event {
            return Ok(());
        }
        let name = name(event);
        if let Some((at, stop)) = &self.stop_at
            && *at == name
        {
            stop.store(true, Ordering::Relaxed);
        }
        let fails = self.fail_at.as_ref() == Some(&name);
        self.seen.push(name);
        if fails { Err(Error::new(ErrorKind::Other, "the observer fails")) } else { Ok(()) }
    }
}

fn run(out: &Path, resume: bool) -> (Summary, Vec<String>) {
    let mut watcher = Watcher::default();
    let observers: &mut [&mut dyn Observer] = &mut [&mut watcher];
    let summary = finetune(&options(out, resume), &AtomicBool::new(false), observers).unwrap();
    (summary, watcher.seen)
}

#[test]
fn diagnostics_compare_with_float_momentum_and_change_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let plain = temp.path().join("plain");
    run(&plain, false);
    for states in [States::Full, States::Paper, States::Compact] {
        let out = temp.path().join(states.name());
        let mut options = options(&out, false);
        options.state = common::state_options(states);
        options.progress.diagnostics = true;
        let mut metrics = MetricsLog::default();
        let observers: &mut [&mut dyn Observer] = &mut [&mut metrics];
        let summary = finetune(&options, &AtomicBool::new(false), observers).unwrap();
        let report = summary.diagnostics.as_ref().unwrap();
        println!("{states}: {:?}", report.all);
        assert_eq!(report.matrices.len(), 36);
        assert!((0.9..=1.0).contains(&report.all.sign_agreement), "{report:?}");
        // Stochastic rounding loses nothing on average.
        assert!((report.all.landed - 1.0).abs() < 0.1, "{:?}", report.all);
        let (flips, saturated) = (report.all.flip_rate, report.all.saturated);
        assert!(flips > 0.0 && flips < 1.0 && saturated > 0.0 && saturated < 0.1);
        assert!(report.matrices.values().all(|matrix| matrix.gradient_snr.unwrap() >= 0.0));
        assert_eq!(summary.owners.planned, summary.owners.measured, "bytes by owner");
        let lines = common::json_lines(&out.join("metrics.jsonl"));
        let steps: Vec<_> = lines.iter().filter_map(|line| line.get("diagnostics")).collect();
        assert_eq!(steps.len(), 4);
        // The first gradient is all that there is to either momentum.
        assert_eq!(
            (&steps[0]["sign_agreement"], steps[0].get("gradient_snr")),
            (&1.0.into(), None)
        );
        if states == States::Full {
            assert!(result(&out) == result(&plain), "the bits differ");
        }
    }
}

/// The options of a run that learns to answer shortly, with a question a line, and how many questions it is asked.
fn answering(dir: &Path, out: &str, answers: usize) -> FinetuneOptions {
    let data = dir.join("questions.jsonl");
    let line = |i| format!("{{\"prompt\": \"{i} cats sat on\", \"completion\": \" a mat.\"}}\n");
    std::fs::write(&data, (0..60).map(line).collect::<String>()).unwrap();
    let mut args = FinetuneArgs::default();
    args.files.model = Some(material::stories260k().into());
    args.files.data = vec![data];
    args.files.out = Some(dir.join(out));
    args.files.val_split = Some(0.2);
    args.batch.seq_len = Some(32);
    args.training.steps = Some(30);
    args.training.lr = Some(2e-3);
    args.machine.threads = Some(1);
    args.progress.answers = Some(answers);
    args.resolve().unwrap()
}

#[test]
fn answers_that_end_by_themselves_are_counted_before_and_after() {
    let temp = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let mut options = answering(temp.path(), "out", 5);
    let mut watcher = Watcher::default();
    let mut metrics = MetricsLog::default();
    let observers: &mut [&mut dyn Observer] = &mut [&mut watcher, &mut metrics];
    let summary = finetune(&options, &never, observers).unwrap();
    let (before, after) = (summary.initial_answers.unwrap(), summary.final_answers.unwrap());
    println!("{before:?} {after:?}");
    assert_eq!((before.asked, after.asked), (5, 5));
    // A model of stories tells one; then it has learned to stop.
    assert!(before.ended < 5 && before.mean_tokens > 50.0, "{before:?}");
    assert!(after.ended == 5 && after.mean_tokens < 10.0, "{after:?}");
    let moments: Vec<_> = watcher.seen.iter().filter(|name| name.starts_with("answ")).collect();
    assert_eq!(moments, ["answered Before", "answered After"]);
    let lines = common::json_lines(&options.files.out.join("metrics.jsonl"));
    let counts: Vec<_> =
        lines.iter().filter_map(|line| line["answers"]["ended"].as_u64()).collect();
    assert_eq!(counts, [before.ended as u64, 5]);
    // Measured once: a run that goes on knows it.
    options.progress.resume = Some(Resume::Latest);
    let summary = finetune(&options, &never, &mut []).unwrap();
    assert_eq!(summary.initial_answers, Some(before));
    // Another number of questions would compare what is not alike.
    options.progress.answers = 4;
    let summary = finetune(&options, &never, &mut []).unwrap();
    assert_eq!((summary.initial_answers, summary.final_answers.unwrap().asked), (None, 4));
}

#[test]
fn answering_can_be_stopped_and_needs_questions() {
    let temp = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let at = "evaluated Before 0".to_owned();
    let mut watcher = Watcher { stop_at: Some((at, &stop)), ..Watcher::default() };
    let observers: &mut [&mut dyn Observer] = &mut [&mut watcher];
    let summary = finetune(&answering(temp.path(), "out", 5), &stop, observers).unwrap();
    assert_eq!(summary.stopped.unwrap().checkpoint, None);
    assert!(!watcher.seen.contains(&"answered Before".to_owned()));
    let mut text = options(&temp.path().join("text"), false);
    text.progress.answers = 3;
    let error = finetune(&text, &AtomicBool::new(false), &mut []).unwrap_err();
    assert!(error.kind() == ErrorKind::Data && format!("{error:#}").contains("--answers"));
}

/// What a run leaves.
fn result(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = ["model.safetensors", "config.json", "checkpoints/step-000004/state.safetensors"];
    names.iter().map(|name| (name.into(), std::fs::read(out.join(name)).unwrap())).collect()
}

#[test]
fn everything_that_happens_is_told_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let (summary, seen) = run(temp.path(), false);
    let expected = [
        "data",
        "planned",
        "decided",
        "loaded",
        "rates",
        "started",
        "sampled Before",
        "evaluated Before 0",
        "step 1",
        "step 2",
        "saved 2",
        "evaluated During 2",
        "sampled During",
        "step 3",
        "step 4",
        "saved 4",
        "evaluated After 4",
        "sampled After",
        "exported",
        "finished",
        "measured",
    ];
    assert_eq!(seen, expected);
    assert_eq!((summary.steps, &summary.stopped), (4, &None));
    let after = summary.final_eval_loss.unwrap();
    assert!(after < summary.initial_eval_loss.unwrap());
    let saved = summary.saved_eval.unwrap();
    assert_eq!((saved.step, saved.compute), (4, Compute::Float));
    // The same weights but for a rounding to bf16, in another arithmetic.
    let loss = saved.saved_eval_loss.unwrap();
    assert!(loss != after && (loss - after).abs() < 0.05, "{loss} {after}");
    // Nobody wrote metrics: there was no observer that does.
    assert!(!temp.path().join("metrics.jsonl").exists());
}

#[test]
fn a_run_can_be_stopped_anywhere_and_goes_on_to_the_same_bits() {
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    run(&whole, false);
    let expected = result(&whole);
    for (at, saved) in [
        ("started", None),
        ("sampled Before", None),
        ("evaluated Before 0", None),
        ("step 1", Some(1)),
        // Before the checkpoint that is due, and in the evaluation after it.
        ("step 2", Some(2)),
        ("saved 2", Some(2)),
        ("evaluated During 2", Some(2)),
        ("step 3", Some(3)),
        // In the last evaluation, in the last sample, and while the model is saved.
        ("step 4", Some(4)),
        ("evaluated After 4", Some(4)),
        ("sampled After", Some(4)),
    ] {
        let out = temp.path().join(at);
        let stop = AtomicBool::new(false);
        let mut watcher = Watcher { stop_at: Some((at.into(), &stop)), ..Watcher::default() };
        let observers: &mut [&mut dyn Observer] = &mut [&mut watcher];
        let summary = finetune(&options(&out, false), &stop, observers).unwrap();
        let step = saved.unwrap_or(0);
        assert_eq!(watcher.seen.last().unwrap(), &format!("stopped {step}"), "{at}");
        let dir = summary.stopped.unwrap().checkpoint;
        let expected_dir = saved.map(|step| out.join(format!("checkpoints/step-{step:06}")));
        assert_eq!(dir, expected_dir, "{at}");
        assert!(!out.join("model.safetensors").exists(), "{at}");
        // Whether there is a checkpoint or not.
        let mut again = options(&out, false);
        again.progress.resume = Some(Resume::Auto);
        let mut watcher = Watcher::default();
        finetune(&again, &AtomicBool::new(false), &mut [&mut watcher]).unwrap();
        let seen = watcher.seen;
        assert_eq!(seen.contains(&format!("resumed {step}")), saved.is_some(), "{at}: {seen:?}");
        assert!(result(&out) == expected, "{at}: the bits differ");
    }
}

#[test]
fn what_stops_or_breaks_the_measuring_of_a_saved_model_costs_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    run(&whole, false);
    for at in ["exported", "finished"] {
        let out = temp.path().join(at);
        let stop = AtomicBool::new(false);
        let mut watcher = Watcher { stop_at: Some((at.into(), &stop)), ..Watcher::default() };
        let mut metrics = MetricsLog::default();
        let observers: &mut [&mut dyn Observer] = &mut [&mut watcher, &mut metrics];
        let summary = finetune(&options(&out, false), &stop, observers).unwrap();
        assert_eq!(watcher.seen.last().unwrap(), "not measured: Stopped", "{at}");
        assert_eq!(summary.stopped, None, "the run is done");
        assert!(result(&out) == result(&whole), "{at}: the bits differ");
        let text = std::fs::read_to_string(out.join("summary.json")).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }
    // A kill while it is measured is as a failure at that place: the run counts as done.
    let out = temp.path().join("failed");
    let mut watcher = Watcher { fail_at: Some("finished".into()), ..Watcher::default() };
    let mut metrics = MetricsLog::default();
    let observers: &mut [&mut dyn Observer] = &mut [&mut metrics, &mut watcher];
    finetune(&options(&out, false), &AtomicBool::new(false), observers).unwrap_err();
    let again = finetune(&options(&out, false), &AtomicBool::new(false), &mut []).unwrap_err();
    assert!(format!("{again:#}").contains("already holds this run, and it is done"), "{again:#}");
}

#[test]
fn stopped_while_it_loads_there_is_nothing_to_save() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let stop = AtomicBool::new(false);
    let mut watcher = Watcher { stop_at: Some(("planned".into(), &stop)), ..Watcher::default() };
    let observers: &mut [&mut dyn Observer] = &mut [&mut watcher];
    let error = finetune(&options(&out, false), &stop, observers).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error:#}");
    assert!(!out.exists());
}

#[test]
fn an_observer_that_fails_ends_the_run_and_loses_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let mut watcher = Watcher { fail_at: Some("step 3".into()), ..Watcher::default() };
    let observers: &mut [&mut dyn Observer] = &mut [&mut watcher];
    let error = finetune(&options(&out, false), &AtomicBool::new(false), observers).unwrap_err();
    assert!(format!("{error:#}").contains("the observer fails"), "{error:#}");
    let (_, seen) = run(&out, true);
    assert!(seen.contains(&"resumed 2".to_owned()), "{seen:?}");
}

#[test]
fn errors_say_what_they_are_about() {
    let temp = tempfile::tempdir().unwrap();
    let kind = |change: &dyn Fn(&mut FinetuneOptions)| {
        let mut options = options(&temp.path().join("out"), false);
        change(&mut options);
        finetune(&options, &AtomicBool::new(false), &mut []).unwrap_err().kind()
    };
    let nowhere = || temp.path().join("nowhere");
    assert_eq!(kind(&|o| o.files.model = nowhere().into()), ErrorKind::Model);
    assert_eq!(kind(&|o| o.files.data = vec![nowhere()]), ErrorKind::Data);
    assert_eq!(kind(&|o| o.training.optimizer.lr = 1.0), ErrorKind::Options);
    assert_eq!(kind(&|o| o.files.out = material::stories260k()), ErrorKind::Output);
    let limit = |o: &mut FinetuneOptions| o.machine.memory_limit = Some("1MB".parse().unwrap());
    assert_eq!(kind(&limit), ErrorKind::Memory);
}
