//! Options from the command line to the checked run.

use super::{Args, Command};
use crate::error::Result;
use crate::options::{
    DeviceChoice, EvalFiles, FinetuneArgs, FinetuneOptions, HeldOut, Length, Resume, Size, Span,
    States,
};
use crate::step::GradientMode;
use clap::{CommandFactory, Parser};
use qft_autograd::Products;
use qft_llama::LlamaConfig;
use qft_optim::ScheduleKind;
use std::io::Write;

fn finetune(line: &str) -> Result<FinetuneOptions> {
    given(line)?.resolve()
}

fn given(line: &str) -> Result<FinetuneArgs> {
    let base = "qft finetune --model m --data d.txt --out o";
    let words = base.split(' ').chain(line.split(' ').filter(|word| !word.is_empty()));
    let parsed = Args::try_parse_from(words)
        .map_err(|error| crate::Error::new(crate::ErrorKind::Options, error.to_string()))?;
    match parsed.command {
        Command::Finetune(args) => Ok(*args),
        _ => unreachable!("the command is finetune"),
    }
}

fn settings(text: &str, line: &str) -> Result<FinetuneOptions> {
    with_settings(text, line, FinetuneArgs::resolve)
}

fn with_settings<T>(
    text: &str,
    line: &str,
    work: impl FnOnce(FinetuneArgs) -> Result<T>,
) -> Result<T> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    work(given(&format!("--config {} {line}", file.path().display()))?)
}

#[test]
fn the_command_line_is_sound() {
    Args::command().debug_assert();
}

/// A model of so many positions, with windows in all layers.
fn model(positions: usize, window: Option<usize>) -> LlamaConfig {
    let mut config = LlamaConfig::preset("mistral-7b-v0.1").unwrap();
    config.max_position_embeddings = positions;
    config.layers.iter_mut().for_each(|layer| layer.window = window);
    config
}

#[test]
fn defaults() {
    let options = finetune("").unwrap();
    assert_eq!(options.training.optimizer.lr, 1e-5);
    assert_eq!((options.training.optimizer.beta1, options.training.optimizer.beta2), (0.95, 0.98));
    assert_eq!(options.training.optimizer.warmup, Span::Fraction(0.03));
    assert_eq!(options.training.optimizer.schedule, ScheduleKind::Cosine);
    assert_eq!(options.training.length, Length::Epochs(1.0));
    assert_eq!(options.step.seq_len(&model(4096, None)).unwrap(), 512);
    assert_eq!(options.step.seq_len(&model(256, None)).unwrap(), 256);
    assert_eq!(options.step.seq_len(&model(4096, Some(100))).unwrap(), 100);
    assert_eq!(options.step.sequences_per_step(), 4);
    assert_eq!(options.state.states, States::Full);
    assert_eq!(options.state.compute, Products::INT8);
    assert_eq!(options.state.gradients, GradientMode::Released);
    assert_eq!(options.files.held_out, HeldOut::None);
    assert!(options.layout.shuffle && !options.layout.pack && !options.training.insist);
    let paper = finetune("--states paper").unwrap();
    assert_eq!(paper.state.gradients, GradientMode::Stored);
    let float = finetune("--states f32 --optimizer adamw").unwrap();
    assert_eq!(float.state.compute, Products::FLOAT);
    assert_eq!((float.training.optimizer.lr, float.training.optimizer.beta2), (2e-5, 0.999));
}

#[test]
fn what_excludes_each_other_or_is_out_of_range_is_refused() {
    for (line, told) in [
        ("--steps 5 --epochs 1", "--steps and --epochs cannot be used together"),
        ("--states f32 --gradients stored", "--gradients stored"),
        ("--states f32 --compute int8", "--compute is about INT8"),
        ("--states f32 --rounding nearest", "--rounding"),
        ("--optimizer adamw --states tiny", "--states compact"),
        ("--protected 0.06", "0 to 0.05"),
        ("--protected=-0.1", "0 to 0.05"),
        ("--seq-len 0", "--seq-len"),
        ("--batch-size 0", "--batch-size"),
        ("--batch-size 99999999 --accumulate 4096", "--batch-size"),
        ("--accumulate 4097", "--accumulate: 4097 is more than the 4096 micro-batches"),
        ("--accumulate 0", "--accumulate"),
        ("--eval-data e.txt --val-split 0.1", "cannot be used together"),
        ("--val-split 1", "--val-split"),
        ("--warmup 11 --steps 10", "--warmup: 11 steps"),
        ("--beta1 1", "--beta1"),
        ("--beta2 0.99999999999", "--beta2"),
        ("--beta2=-0.5", "--beta2"),
        ("--lr 0", "--lr"),
        ("--lr nan", "finite"),
        ("--epochs 0", "--epochs"),
        ("--steps 0", "--steps"),
        ("--threads 0", "--threads"),
        ("--checkpoint-every 0", "--checkpoint-every"),
        ("--keep-checkpoints 0", "--keep-checkpoints"),
        ("--eval-every 5", "no held-out data"),
        ("--answers 5", "no held-out data"),
        ("--states f32 --diagnostics", "--diagnostics is about INT8 states"),
        ("--out m", "model's folder"),
        ("--max-grad-norm 0", "--max-grad-norm"),
        ("--min-lr-ratio 2", "--min-lr-ratio"),
        ("--weight-decay=-1", "--weight-decay"),
        ("--lr -1", "--lr: -1 is out of range"),
        ("--beta1 -0.5", "--beta1"),
        ("--batch-size -3", "--batch-size"),
        ("--memory-limit lots", "24GB"),
        ("--memory-limit 0", "not a size"),
        ("--resume --overwrite", "cannot be used together"),
        ("--device tpu", "cuda:N"),
        ("--states int4", "balanced"),
    ] {
        let line = if line.starts_with("--out m") {
            let words = "qft finetune --model m --data d.txt --out m".split(' ');
            let Command::Finetune(args) = Args::try_parse_from(words).unwrap().command else {
                panic!("the command is finetune")
            };
            args.resolve()
        } else {
            finetune(line)
        };
        let error = format!("{:#}", line.expect_err(told));
        assert!(error.contains(told), "expected {told:?} in {error:?}");
    }
    for (positions, window, told) in [
        (512, None, "512 positions"),
        (512, Some(100), "512 positions"),
        (4096, Some(599), "window of 599 tokens"),
    ] {
        let long = finetune("--seq-len 600").unwrap().step.seq_len(&model(positions, window));
        assert!(format!("{:#}", long.unwrap_err()).contains(told));
    }
    let window = model(4096, Some(600));
    assert_eq!(finetune("--seq-len 600").unwrap().step.seq_len(&window).unwrap(), 600);
}

#[test]
fn a_missing_option_is_named() {
    for (line, told) in [
        ("qft finetune --data d --out o", "--model"),
        ("qft finetune --model m --out o", "--data"),
        ("qft finetune --model m --data d", "--out"),
    ] {
        let Command::Finetune(args) = Args::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("the command is finetune")
        };
        let error = args.resolve().unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
}

#[test]
fn flags_go_before_the_settings_file() {
    let file = r#"
        lr = 3e-5
        epochs = 2
        states = "compact"
        warmup = 0.1
        eval-data = ["a.txt", "b.txt"]
        pack = true
        shuffle = false
        seq-len = 128
        template = "chatml"
        device = "cuda:1"
        resume = "latest"
        memory-limit = "24GB"
    "#;
    let options = settings(file, "").unwrap();
    assert_eq!(options.training.optimizer.lr, 3e-5);
    assert_eq!(options.training.length, Length::Epochs(2.0));
    let all = EvalFiles { name: None, files: vec!["a.txt".into(), "b.txt".into()] };
    assert_eq!(options.files.held_out, HeldOut::Sets(vec![all]));
    assert!(options.layout.pack && !options.layout.shuffle);
    assert_eq!(options.machine.device, DeviceChoice::Cuda(1));
    assert_eq!(options.progress.resume, Some(Resume::Latest));
    assert_eq!(options.machine.memory_limit, Some(Size(24_000_000_000)));

    let line = "--lr 1e-6 --steps 7 --val-split 0.2 --pack=false --warmup 3 --resume dir";
    let options = settings(file, line).unwrap();
    assert_eq!(options.training.optimizer.lr, 1e-6);
    assert_eq!(options.training.length, Length::Steps(7));
    assert_eq!(options.training.optimizer.warmup, Span::Steps(3));
    assert_eq!(options.files.held_out, HeldOut::Split(0.2));
    assert_eq!(options.step.seq_len, Some(128));
    assert_eq!(options.state.states, States::Compact);
    assert_eq!(options.progress.resume, Some(Resume::Checkpoint("dir".into())));
    assert!(!options.layout.pack);
    assert!(!settings("shuffle = true", "--no-shuffle").unwrap().layout.shuffle);
}

#[test]
fn a_wrong_settings_file_is_told_apart() {
    for (text, told) in [
        ("outliers = 0.01", "did you mean protected?"),
        ("memory-limit = 'lots'", "24GB"),
        ("learning_rate = 1e-5", "unknown option `learning_rate`; did you mean lr?"),
        ("seqlen = 5", "did you mean seq-len"),
        ("xyzzy = 5", "--help"),
        ("config = 'other.toml'", "unknown option `config`"),
        ("lr = 'fast'", "`lr` is \"fast\": expected a finite number"),
        ("steps = [1, 2]", "`steps` is [1, 2]: expected one value"),
        ("steps = 1.5", "expected a whole number"),
        ("schedule = 'wds'", "expected one of constant, linear, cosine, wsd"),
        ("pack = 3", "expected one of true, false"),
        ("no-cache = 'x'", "expected true or false"),
        ("data = [['a']]", "not lists within lists"),
        ("pateince = 3", "did you mean patience?"),
        (
            "[group-lr]\nnorm = 1e-4",
            "`norm` is no group of parameters; give one of embeddings, head",
        ),
        ("decay = 0.1", "--schedule wsd"),
        ("print-config = true", "unknown option"),
        ("lr = nan", "finite"),
        ("states = 'int4'", "balanced"),
        ("warmup = -3", "neither a fraction"),
        ("seed = -1", "`seed`"),
        ("batch-size = -1", "`batch-size`"),
        ("steps = 3\nepochs = 2", "cannot be used together"),
        ("lr = ", "not valid TOML"),
    ] {
        let error = format!("{:#}", settings(text, "").expect_err(told));
        assert!(error.contains(told), "expected {told:?} in {error:?}");
    }
    let error = format!("{:#}", finetune("--config /no/such.toml").unwrap_err());
    assert!(error.contains("/no/such.toml"), "{error}");
}

#[test]
fn the_other_commands() {
    let parse = |line: &str| Args::try_parse_from(line.split(' ')).unwrap().command;
    let Command::Eval(args) = parse("qft eval --model m --data d --states compact --json") else {
        panic!("the command is eval")
    };
    let options = args.resolve().unwrap();
    assert_eq!(options.state.compute, Products::INT8);
    assert!(options.json);
    let Command::Eval(args) = parse("qft eval --model m --data d") else {
        panic!("the command is eval")
    };
    assert_eq!(args.resolve().unwrap().state.states, States::F32);
    let Command::Generate(args) = parse("qft generate --model m --prompt p --top-p 0.5") else {
        panic!("the command is generate")
    };
    assert!(args.resolve().is_err());
    let Command::Plan(args) = parse("qft plan --model llama-2-7b --protected 0.01") else {
        panic!("the command is plan")
    };
    let options = args.resolve().unwrap();
    assert_eq!((options.model, options.state.protected), ("llama-2-7b".into(), Some(0.01)));
}

#[test]
fn a_settings_file_may_have_lists_tables_and_flags() {
    let file = r#"
        eval-data = ["chats=a.jsonl", "b.txt"]
        sample-prompt = ["Once", "Twice"]
        no-cache = true
        schedule = "wsd"
        decay = 20
        [group-lr]
        embeddings = 5e-6
        norms = 1e-4
        [field]
        prompt = "question"
    "#;
    let options = settings(file, "").unwrap();
    assert_eq!(options.progress.sample_prompts, ["Once", "Twice"]);
    assert_eq!(options.cache.folder, None);
    assert_eq!(options.training.optimizer.decay, Some(Span::Steps(20)));
    assert_eq!(options.reading.fields[0].column, "question");
    let rates = options.training.optimizer.group_lr.given();
    let rates: Vec<String> = rates.into_iter().map(String::from).collect();
    assert_eq!(rates, ["embeddings=5e-6", "norms=1e-4"]);
    let told: Vec<_> = match &options.files.held_out {
        HeldOut::Sets(sets) => sets.iter().map(|set| set.name.as_deref()).collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(told, [Some("chats"), None]);
}

#[test]
fn printed_options_come_to_the_same_when_they_are_read() {
    for line in [
        "",
        "--lr 3e-5 --epochs 2.5 --warmup 7 --schedule wsd --decay 0.1 --weight-decay 0.1 --beta1 0.9 --max-grad-norm 1",
        "--states compact --steps 9 --seed 18446744073709551615 --memory-limit 24GB --threads 3 --device cuda:1 --no-shuffle",
        "--states f32 --optimizer adamw --group-lr norms=1e-4 --group-lr embeddings=0 --cache /c --cache-limit 3.5",
        "--val-split 0.05 --eval-every 5 --patience 3 --keep-best --max-minutes 0.1 --checkpoint-minutes 30 --answers 2",
        "--eval-data a --eval-data x=b --sample-prompt A --sample-prompt B --export gguf:q8_0 --field prompt=q --no-cache",
        "--resume latest --too-long cut --pack --compute forward --checkpoint-every 3 --template x.jinja --profile",
    ] {
        let options = finetune(line).unwrap();
        let printed = given(line).unwrap().to_toml().unwrap();
        let again = settings(&printed, "").unwrap_or_else(|error| panic!("{error:#}\n{printed}"));
        assert_eq!(again, options, "{printed}");
        let printed_again = with_settings(&printed, "", FinetuneArgs::to_toml).unwrap();
        assert_eq!(printed_again, printed, "{line}");
    }
    let printed = given("--lr 3e-5 --no-shuffle --gpus 2").unwrap().to_toml().unwrap();
    for text in [
        "# Files\n",
        "\nlr = 0.00003\n",
        "\nshuffle = false\n",
        "\nprocesses = 2\n",
        "\n# schedule = \"cosine\"\n",
        "\n# batch-size = 4\n",
        "\n# beta1 = 0.95\n",
    ] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
}

#[test]
fn printed_options_leave_defaults_to_what_they_depend_on() {
    let printed = given("").unwrap().to_toml().unwrap();
    for line in ["--states f32", "--states tiny", "--optimizer adamw", "--states compact"] {
        assert_eq!(settings(&printed, line).unwrap(), finetune(line).unwrap(), "{line}");
    }
}

#[test]
fn a_warm_up_and_a_decay_share_the_run() {
    let schedule = |line: &str| finetune(line).unwrap().training.optimizer.schedule(10);
    assert!(schedule("--schedule wsd --warmup 6 --decay 4").is_ok());
    let error = schedule("--schedule wsd --warmup 6 --decay 6").unwrap_err().to_string();
    assert!(error.contains("6 and 6 steps are more than the 10"), "{error}");
}
