//! The program as a user runs it: its commands, the files they leave, and Ctrl-C.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, finetune, json_lines, said, succeed};
use qft_llama::LlamaConfig;
use qft_testing::material;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// Every tensor of an exported folder as the library reads it: bf16, of the right shape, finite.
fn check_weights(dir: &Path) {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let config = LlamaConfig::from_dir(dir).unwrap();
    assert_eq!(file.names().len(), config.tensors().count());
    for spec in config.tensors() {
        let view = file.tensor(&spec.name).unwrap();
        assert_eq!(view.dtype(), safetensors::Dtype::BF16, "{}", spec.name);
        assert_eq!(view.shape(), spec.file_shape(), "{}", spec.name);
        let values = view.data().chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]));
        assert!(values.into_iter().all(half::bf16::is_finite), "{}", spec.name);
    }
}

#[test]
fn a_run_leaves_a_model_metrics_and_a_summary() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let options = ["--steps=3", "--val-split=0.1", "--eval-batches=2", "--states=paper"];
    let printed = succeed(&finetune(&out, &options));
    for text in [
        "training data:",
        "held-out loss before:",
        "held-out loss after:",
        "in INT8 compute",
        "saved",
        "held-out loss of the saved model:",
        "in float compute",
    ] {
        assert!(printed.contains(text), "{text} in {printed}");
    }

    check_weights(&out);
    let config = json(&out.join("config.json"));
    assert_eq!(config["torch_dtype"], "bfloat16");
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let original = std::fs::read(material::stories260k().join(name)).unwrap();
        assert_eq!(std::fs::read(out.join(name)).unwrap(), original, "{name}");
    }

    // Whoever watches it has a page, which is the one that `qft report` makes, and a file for TensorBoard.
    let page = std::fs::read(out.join("report.html")).unwrap();
    succeed(&["report", out.to_str().unwrap()]);
    assert!(std::fs::read(out.join("report.html")).unwrap() == page, "the page differs");
    let events = std::fs::read_dir(out.join("tensorboard")).unwrap().collect::<Vec<_>>();
    assert_eq!(events.len(), 1, "{events:?}");
    let record = json(&out.join("run.json"));
    assert_eq!((&record["states"], &record["steps"]), (&"paper".into(), &3.into()));
    assert_eq!(record["held_out"].as_array().unwrap().len(), 1);

    let lines = json_lines(&out.join("metrics.jsonl"));
    let (steps, evals): (Vec<_>, Vec<_>) = lines.iter().partition(|l| l.get("loss").is_some());
    assert_eq!(steps.len(), 3);
    assert_eq!(evals.len(), 3, "before, after, and of the saved model");
    assert_eq!((&evals[1]["compute"], &evals[2]["compute"]), (&"int8".into(), &"float".into()));
    for (i, line) in steps.iter().enumerate() {
        for key in [
            "step",
            "loss",
            "lr",
            "tokens",
            "tokens_per_second",
            "positions",
            "positions_per_second",
            "peak_bytes",
            "rescaled_rows",
        ] {
            assert!(number(line, key) >= 0.0, "{key}");
        }
        assert_eq!(number(line, "step"), (i + 1) as f64);
        assert_eq!(number(line, "tokens"), (64 * (i + 1)) as f64);
    }

    let summary = json(&out.join("summary.json"));
    for key in ["initial_eval_loss", "final_eval_loss", "tokens", "seconds", "bytes_per_parameter"]
    {
        assert!(number(&summary, key) > 0.0, "{key}");
    }
    assert_eq!(number(&summary, "tokens"), 192.0);
    assert!(number(&summary, "bytes_per_parameter") < 3.4);
    assert_eq!(evals[2]["saved_eval_loss"], summary["saved_eval"]["saved_eval_loss"]);
    assert!(number(evals[2], "saved_eval_loss") > 0.0);
    let owners = &summary["owners"];
    assert_eq!(owners["planned"], owners["measured"], "bytes by owner");
    assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"]);

    // The exported folder is a model folder.
    let args = |command: &str| vec![command.to_owned(), format!("--model={}", out.display())];
    let data = format!("--data={}", common::excerpt().display());
    let more = [data, "--seq-len=64".to_owned(), "--limit=2".to_owned(), "--json".to_owned()];
    let printed = succeed(&[args("eval"), more.to_vec()].concat());
    let eval: Value = serde_json::from_str(&printed).unwrap();
    let expected =
        ["model", "nll", "nll_stderr", "perplexity", "tokens", "data", "states", "compute"];
    assert_eq!(keys(&eval), expected);
    assert_eq!((&eval["data"]["read"], &eval["data"]["too-long"]), (&1.into(), &0.into()));
    assert!((number(&eval, "nll").exp() / number(&eval, "perplexity") - 1.0).abs() < 1e-9);
    assert_eq!(number(&eval, "tokens"), 512.0);
    assert_eq!((&eval["compute"], &eval["states"]), (&"float".into(), &"f32".into()));
    let more = ["--prompt=Once upon", "--max-new-tokens=4"].map(str::to_owned);
    assert!(succeed(&[args("generate"), more.to_vec()].concat()).starts_with("Once upon"));
}

#[test]
fn a_profile_says_where_the_time_goes() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let printed = succeed(&finetune(&out, &["--steps=2", "--profile"]));
    for line in
        ["gemm forward", "gemm dX", "gemm dW", "attention", "update", "data", "rest", "step"]
    {
        assert!(printed.contains(&format!("| {line} |")), "{line} in {printed}");
    }
    let profile = &json(&out.join("summary.json"))["profile"];
    assert_eq!(number(profile, "steps"), 2.0);
    let phases = profile["phases"].as_array().unwrap();
    let known: f64 = phases.iter().map(|phase| number(phase, "seconds")).sum();
    assert!(known > 0.0 && known <= number(profile, "seconds"), "{profile}");
    let forward = phases.iter().find(|phase| phase["phase"] == "gemm-forward").unwrap();
    assert!(number(forward, "operations") > 0.0);
    // Plain code has no multiply instruction whose rate could be measured.
    if profile["peak_gops"].is_number() {
        for line in json_lines(&out.join("metrics.jsonl")) {
            let light = number(&line, "speed_of_light");
            assert!(light > 0.0, "{line}");
        }
    }
}

#[test]
fn eval_and_generate_agree_with_torch() {
    let golden = json(&material::stories260k_golden().join("golden.json"));
    let model = format!("--model={}", material::stories260k().display());
    let data = format!("--data={}", material::tinyshakespeare().display());
    // The first 64 windows of 255 tokens. Both sides sum the same terms in f32 in different orders.
    let args = ["eval", &model, &data, "--json", "--seq-len=255", "--batch-size=8", "--limit=8"];
    let want = number(&golden, "shakespeare_64x256_mean_nll");
    for (states, bound) in [("f32", 1e-4), ("full", 0.01), ("balanced", 0.01), ("compact", 0.01)] {
        let states = format!("--states={states}");
        let printed = succeed(&[&args[..], &[&states]].concat());
        let eval: Value = serde_json::from_str(&printed).unwrap();
        let nll = number(&eval, "nll");
        assert!((nll / want - 1.0).abs() < bound, "{states}: {nll} {want}");
    }
    let prompt = format!("--prompt={}", golden["prompt"].as_str().unwrap());
    let printed = succeed(&["generate", &model, &prompt, "--max-new-tokens=60", "--states=f32"]);
    let want = golden["greedy_text"].as_str().unwrap();
    assert_eq!(printed.trim_end(), want.trim_end());
}

#[test]
fn plan_needs_only_the_configuration() {
    let temp = tempfile::tempdir().unwrap();
    let config = material::stories260k().join("config.json");
    std::fs::copy(config, temp.path().join("config.json")).unwrap();
    let model = format!("--model={}", temp.path().display());
    let plan = |model: &str, more: &[&str]| -> Value {
        let args = [&["plan", model, "--json", "--seq-len=64"], more].concat();
        serde_json::from_str(&succeed(&args)).unwrap()
    };
    for states in ["full", "balanced", "compact", "paper", "f32"] {
        let plan = plan(&model, &[&format!("--states={states}")]);
        let owners = plan["owners"].as_object().unwrap();
        let sum: f64 = owners.values().map(|bytes| bytes.as_f64().unwrap()).sum();
        assert_eq!(sum, number(&plan, "peak_bytes"), "{states}: owners at the peak");
        assert!(number(&plan, "bytes_per_parameter") > 2.0, "{states}");
    }
    let plan = plan("--model=llama-2-7b", &["--states=compact", "--batch-size=1"]);
    assert!(number(&plan, "bytes_per_parameter") <= 2.15);
    let table = succeed(&["plan", &model]);
    for word in ["260032 parameters", "weights", "momentum", "peak"] {
        assert!(table.contains(word), "{word} in {table}");
    }
}

#[test]
fn settings_come_from_a_file_and_flags_go_first() {
    let temp = tempfile::tempdir().unwrap();
    let (settings, out) = (temp.path().join("run.toml"), temp.path().join("out"));
    let text = format!(
        "model = {:?}\ndata = [{:?}]\nout = \"elsewhere\"\nsteps = 9\nseq-len = 32\nbatch-size = 1\n\
         lr = 5e-4\nsample-prompt = \"ROMEO:\"\n",
        material::stories260k(),
        common::excerpt()
    );
    std::fs::write(&settings, text).unwrap();
    let config = format!("--config={}", settings.display());
    let printed = succeed(&["finetune", &config, "--steps=2", &format!("--out={}", out.display())]);
    for text in ["--- sample before ---\nROMEO:", "--- sample after ---\nROMEO:"] {
        assert!(printed.contains(text), "{printed}");
    }
    let lines = json_lines(&out.join("metrics.jsonl"));
    let count = |key: &str| lines.iter().filter(|line| line.get(key).is_some()).count();
    assert_eq!((count("loss"), count("sample"), lines.len()), (2, 2, 4), "nothing held out");
}

/// Names of all that is in the folder of checkpoints.
fn checkpoints(out: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(out.join("checkpoints")).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn checkpoints_are_kept_and_resumed_from() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let options = ["--steps=5", "--checkpoint-every=2", "--keep-checkpoints=2"];
    succeed(&finetune(&out, &options));
    assert_eq!(checkpoints(&out), ["step-000004", "step-000005"], "the last two");
    // As if stopped after step 4.
    std::fs::remove_dir_all(out.join("checkpoints/step-000005")).unwrap();
    let model = std::fs::read(out.join("model.safetensors")).unwrap();
    std::fs::remove_file(out.join("model.safetensors")).unwrap();
    let printed = succeed(&finetune(&out, &[&options[..], &["--resume=latest"]].concat()));
    assert!(printed.contains("step-000004 after step 4"), "{printed}");
    assert_eq!(std::fs::read(out.join("model.safetensors")).unwrap(), model);
    assert_eq!(json_lines(&out.join("metrics.jsonl")).len(), 5);
}

#[test]
fn a_resume_from_an_older_checkpoint_removes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let options = ["--steps=6", "--checkpoint-every=1", "--keep-checkpoints=9"];
    succeed(&finetune(&out, &options));
    let state = |step: u32| {
        std::fs::read(out.join(format!("checkpoints/step-{step:06}/state.safetensors"))).unwrap()
    };
    let (last, model) = (state(6), std::fs::read(out.join("model.safetensors")).unwrap());
    let older = format!("--resume={}", out.join("checkpoints/step-000003").display());
    // Only what is older than what it keeps, of its own: not step 6, which it has yet to come to.
    let keeps_one = ["--steps=6", "--checkpoint-every=1", "--keep-checkpoints=1"];
    let mut run = command(&finetune(&out, &[&keeps_one[..], &[&older]].concat()));
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while checkpoints(&out).contains(&"step-000003".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", checkpoints(&out));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(checkpoints(&out).contains(&"step-000006".to_owned()), "{:?}", checkpoints(&out));
    assert!(child.wait().unwrap().success());
    assert_eq!(checkpoints(&out), ["step-000006"]);
    assert!(state(6) == last && std::fs::read(out.join("model.safetensors")).unwrap() == model);
    assert_eq!(json_lines(&out.join("metrics.jsonl")).len(), 6);
    // The steps that were done again are still to be read as they were.
    assert_eq!(json_lines(&out.join("metrics.previous.jsonl")).len(), 6);
}

#[test]
fn a_run_at_a_constant_rate_is_extended() {
    let temp = tempfile::tempdir().unwrap();
    let (out, whole) = (temp.path().join("out"), temp.path().join("whole"));
    let constant = ["--schedule=constant", "--warmup=2"];
    succeed(&finetune(&out, &[&constant[..], &["--steps=3"]].concat()));
    let longer = [&constant[..], &["--steps=6"]].concat();
    let printed = succeed(&finetune(&out, &[&longer[..], &["--resume"]].concat()));
    assert!(printed.contains("after step 3"), "{printed}");
    succeed(&finetune(&whole, &longer));
    let model = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    assert!(model(&out) == model(&whole));
    assert_eq!(checkpoints(&out), ["step-000006"]);
}

#[test]
fn one_pass_takes_every_sequence_once() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("five.jsonl");
    let line = |i: i32| format!("{{\"text\": \"One day, {i} cats sat on a mat.\"}}\n");
    std::fs::write(&data, (0..5).map(line).collect::<String>()).unwrap();
    let mut tokens = Vec::new();
    for (i, shape) in [
        &["--batch-size=5"][..],
        &["--batch-size=4"],
        &["--batch-size=2"],
        &["--batch-size=4", "--accumulate=16"],
        &["--batch-size=1", "--accumulate=3"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = temp.path().join(format!("out{i}"));
        let mut args = finetune(&out, &["--epochs=1"]);
        args.retain(|arg| !arg.starts_with("--data=") && !arg.starts_with("--batch-size"));
        args.push(format!("--data={}", data.display()));
        args.extend(shape.iter().map(|&arg| arg.to_owned()));
        succeed(&args);
        tokens.push(number(&json(&out.join("summary.json")), "tokens"));
    }
    assert!(tokens.iter().all(|&count| count == tokens[0]), "{tokens:?}");
}

#[test]
fn a_closed_output_costs_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let run = |args: &[String]| {
        let program = command(args);
        let mut shell = Command::new("sh");
        // Both outputs are pipes that nobody reads from any more.
        shell.arg("-c").arg("\"$0\" \"$@\" 2>&1 | true; exit ${PIPESTATUS:-0}");
        shell.arg(program.get_program()).args(program.get_args());
        shell.current_dir(material::repository()).output().unwrap();
    };
    run(&finetune(&out, &["--steps=2", "--val-split=0.1", "--sample-prompt=To", "--profile"]));
    check_weights(&out);
    assert!(out.join("summary.json").exists());
    // The other commands end too, and do not panic; on a full disk they say so.
    let model = format!("--model={}", material::stories260k().display());
    let data = format!("--data={}", common::excerpt().display());
    for args in [
        vec!["plan", &model],
        vec!["plan", &model, "--json"],
        vec!["eval", &model, &data, "--limit=1", "--seq-len=64"],
        vec!["generate", &model, "--prompt=Once", "--max-new-tokens=3"],
    ] {
        let program = command(&args);
        for (output, told) in [("| true", ""), (">/dev/full", "cannot write to standard output")] {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("\"$0\" \"$@\" {output}"));
            shell.arg(program.get_program()).args(program.get_args());
            let output = shell.current_dir(material::repository()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), told.is_empty(), "{args:?}: {}", said(&output));
            assert!(stderr.contains(told) && !stderr.contains("panicked"), "{args:?}: {stderr}");
        }
    }
}

/// Lines of the metrics file that are complete.
fn steps_done(out: &Path) -> usize {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    text.bytes().filter(|&byte| byte == b'\n').count()
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_a_checkpoint_and_says_how_to_resume() {
    let temp = tempfile::tempdir().unwrap();
    let (whole, stopped) = (temp.path().join("whole"), temp.path().join("stopped"));
    let options = ["--steps=120"];
    succeed(&finetune(&whole, &options));

    let mut run = command(&finetune(&stopped, &options));
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while steps_done(&stopped) < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("--resume latest"), "{}", said(&output));
    let done = steps_done(&stopped);
    assert!((3..120).contains(&done), "{done}");
    let dir = stopped.join(format!("checkpoints/step-{done:06}"));
    assert!(printed.contains(&dir.display().to_string()), "{}", said(&output));
    assert!(!stopped.join("model.safetensors").exists(), "a model of a run that is not done");

    succeed(&finetune(&stopped, &[&options[..], &["--resume", "latest"]].concat()));
    let model = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    assert!(model(&whole) == model(&stopped), "the resumed run differs from the uninterrupted one");
    let losses = |out: &Path| {
        let lines = json_lines(&out.join("metrics.jsonl"));
        lines.iter().map(|line| (number(line, "step"), number(line, "loss"))).collect::<Vec<_>>()
    };
    assert_eq!(losses(&whole), losses(&stopped));
}
