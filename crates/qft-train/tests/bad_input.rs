//! What is wrong with files and options ends in an error that names the place and a remedy, and leaves nothing
//! half-written.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, copy_dir, finetune, qft, said, succeed};
use qft_testing::material;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// A folder for one test: a copy of the model, data, and a place for output.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        copy_dir(&material::stories260k(), &place.model());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self) -> PathBuf {
        self.path("model")
    }

    fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// The arguments of a run of two steps with this model, and `more`, which goes before those of the same name.
    fn args(&self, more: &[&str]) -> Vec<String> {
        let model = format!("--model={}", self.model().display());
        let mut args = finetune(&self.out(), &["--steps=2"]);
        for option in [model.as_str()].iter().chain(more) {
            let name = |arg: &str| arg.split('=').next().unwrap_or_default().to_owned();
            args.retain(|arg| name(arg) != name(option));
            args.push((*option).to_owned());
        }
        args
    }

    /// Runs, expects to be refused with all of `words`, and nothing in the output folder.
    fn refuses(&self, more: &[&str], words: &[&str]) {
        let output = qft(&self.args(more));
        check_refusal(&output, words);
        let out = self.out();
        assert!(!out.exists(), "{} exists\n{}", out.display(), said(&output));
    }

    /// Changes `config.json`.
    fn configure(&self, key: &str, value: Value) {
        let path = self.model().join("config.json");
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Changes the bytes of the weight file.
    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        damage(&self.model().join("model.safetensors"), change);
    }
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// An error, not a panic or a signal, and all of `words` in it.
fn check_refusal(output: &Output, words: &[&str]) {
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 2)), "{words:?}: {}", said(output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{}", said(output));
    for word in words {
        // A line break of the option parser is as good as a space.
        let flat = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(word), "`{word}` is not in: {}", said(output));
    }
}

/// The header of a safetensors file, changed, before the same data.
fn with_header(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Value)) {
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    change(&mut header);
    let text = header.to_string();
    let mut new = (text.len() as u64).to_le_bytes().to_vec();
    new.extend_from_slice(text.as_bytes());
    new.extend_from_slice(&bytes[8 + size..]);
    *bytes = new;
}

#[test]
fn missing_files() {
    let place = Place::new();
    let nowhere = format!("--model={}", place.path("nowhere").display());
    place.refuses(&[&nowhere], &["--model", "nowhere", "give a Hugging Face model folder"]);
    let nowhere = format!("--data={}", place.path("nowhere.txt").display());
    place.refuses(&[&nowhere], &["nowhere.txt"]);
    for (name, words) in [
        ("model.safetensors", &["model.safetensors"][..]),
        ("tokenizer.json", &["tokenizer.json", "needs"]),
        ("config.json", &["config.json", "Hugging Face folder"]),
    ] {
        std::fs::remove_file(place.model().join(name)).unwrap();
        place.refuses(&[], words);
    }
}

#[test]
fn truncated_and_lying_weights() {
    for cut in [600_000, 3000, 5, 0] {
        let place = Place::new();
        place.damage(|bytes| bytes.truncate(cut));
        place.refuses(&[], &["model.safetensors", "fetch the file again"]);
    }
    let name = "model.layers.2.mlp.up_proj.weight";
    type Change = fn(&mut Value);
    let lies: [(Change, &str); 6] = [
        (|tensor| tensor["data_offsets"][1] = json!(1_u64 << 60), "up_proj"),
        (|tensor| tensor["data_offsets"] = json!([100, 50]), "up_proj"),
        (|tensor| tensor["shape"] = json!([u64::MAX, u64::MAX]), "up_proj"),
        (|tensor| tensor["shape"] = json!([64, 172]), "up_proj"),
        (|tensor| tensor["dtype"] = json!("I64"), "up_proj"),
        (|tensor| *tensor = json!(7), "model.safetensors"),
    ];
    for (lie, word) in lies {
        let place = Place::new();
        place.damage(|bytes| with_header(bytes, |header| lie(&mut header[name])));
        place.refuses(&[], &["model.safetensors", word]);
    }
    let place = Place::new();
    place.damage(|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    place.refuses(&[], &["model.safetensors", "fetch the file again"]);
    let place = Place::new();
    place.damage(|bytes| bytes[8..40].fill(b'x'));
    place.refuses(&[], &["model.safetensors"]);
    let place = Place::new();
    place.damage(|bytes| {
        with_header(bytes, |header| {
            let tensors = header.as_object_mut().unwrap();
            let tensor = tensors.remove(name).unwrap();
            tensors.insert("another".to_owned(), tensor);
        });
    });
    place.refuses(&[], &[name, "is missing", "fetch the model again"]);
}

#[test]
fn weights_that_are_no_numbers() {
    for value in [f32::NAN, f32::INFINITY] {
        let place = Place::new();
        place.damage(|bytes| {
            let at = bytes.len() - 4000;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        });
        for states in ["--states=full", "--states=f32"] {
            place.refuses(&[states], &["model.safetensors", "row", "column", "finite"]);
        }
    }
}

#[test]
fn a_tokenizer_of_another_model() {
    let place = Place::new();
    place.configure("vocab_size", json!(300));
    let words = ["tokenizer.json", "expected an id below 300", "use the tokenizer that belongs"];
    place.refuses(&[], &words);
    let place = Place::new();
    damage(&place.model().join("tokenizer.json"), |bytes| bytes.truncate(5000));
    place.refuses(&[], &["tokenizer.json", "restore"]);
}

#[test]
fn configurations_that_cannot_be_honoured() {
    for (key, value) in [
        ("model_type", json!("gpt2")),
        ("hidden_act", json!("gelu")),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 0.5})),
        ("num_attention_heads", json!(0)),
        ("hidden_size", json!(-1)),
        ("intermediate_size", json!(173)),
    ] {
        let place = Place::new();
        place.configure(key, value);
        let word = if key == "intermediate_size" { "config.json" } else { key };
        place.refuses(&[], &[word]);
    }
    let place = Place::new();
    std::fs::write(place.model().join("config.json"), "{").unwrap();
    place.refuses(&[], &["config.json", "restore"]);
}

#[test]
fn data_with_nothing_in_it() {
    let place = Place::new();
    for (name, text) in [("empty.txt", ""), ("empty.jsonl", ""), ("blank.jsonl", "\n\n")] {
        let data = format!("--data={}", place.write(name, text).display());
        place.refuses(&[&data], &[name, "give"]);
    }
    let not_text = format!("--data={}", place.write("binary.txt", [0xff, 0xfe, 0x00]).display());
    place.refuses(&[&not_text], &["binary.txt"]);
}

#[test]
fn a_broken_line_is_named() {
    let place = Place::new();
    let good = "{\"text\": \"To be, or not to be.\"}\n";
    for broken in ["{\"text\": \"cut", "[1, 2]", "{\"text\": 7}", "{\"body\": \"no text\"}"] {
        let text = format!("{good}{good}{broken}\n{good}");
        let data = format!("--data={}", place.write("lines.jsonl", text).display());
        place.refuses(&[&data], &["lines.jsonl:3"]);
    }
}

#[test]
fn sequences_longer_than_the_model() {
    let place = Place::new();
    let words = ["--seq-len", "513", "512 positions", "give at most 512"];
    place.refuses(&["--seq-len=513"], &words);
    let model = format!("--model={}", place.model().display());
    let data = format!("--data={}", common::excerpt().display());
    check_refusal(&qft(&["eval", &model, &data, "--seq-len=513"]), &words);
    let prompt = format!("--prompt={}", "To be, or not to be. ".repeat(200));
    check_refusal(&qft(&["generate", &model, &prompt]), &["at most 512", "shorter"]);
}

#[test]
fn options_that_exclude_each_other() {
    let place = Place::new();
    let data = format!("--eval-data={}", common::excerpt().display());
    for (options, words) in [
        (&["--epochs=1"][..], &["--steps and --epochs cannot be used together"][..]),
        (&[&data, "--val-split=0.1"], &["--eval-data and --val-split cannot be used together"]),
        (&["--optimizer=adamw", "--states=tiny"], &["--optimizer adamw", "--states compact"]),
        (&["--optimizer=adamw", "--momentum-code=linear"], &["--optimizer adamw", "leave out"]),
        (&["--states=f32", "--rounding=nearest"], &["--rounding", "--states f32"]),
        (&["--states=f32", "--compute=int8"], &["--compute", "--states f32"]),
        (&["--states=f32", "--gradients=stored"], &["--gradients stored"]),
        (&["--shuffle", "--no-shuffle"], &["--shuffle", "--no-shuffle", "cannot be used with"]),
        (&["--eval-every=2"], &["--eval-every", "there is no held-out data"]),
        (&["--protected=0.5"], &["--protected", "0.05"]),
        (&["--warmup=3"], &["--warmup", "more than the run's 2"]),
        (&["--threads=0"], &["--threads"]),
        (&["--lr=nan"], &["--lr"]),
        (&["--device=cuda"], &["--device", "--device cpu"]),
    ] {
        place.refuses(options, words);
    }
}

#[test]
fn unknown_settings() {
    let place = Place::new();
    for (text, words) in [
        ("learning_rate = 1e-5", &["run.toml", "learning_rate", "did you mean lr?"][..]),
        ("steps = \"many\"", &["run.toml"]),
        ("steps = = 2", &["run.toml", "not valid TOML"]),
    ] {
        let config = format!("--config={}", place.write("run.toml", text).display());
        check_refusal(&qft(&[&place.args(&[])[..], &[config]].concat()), words);
        assert!(!place.out().exists());
    }
    check_refusal(
        &qft(&[&place.args(&[])[..], &["--config=no.toml".to_owned()]].concat()),
        &["no.toml"],
    );
}

#[test]
fn output_that_cannot_be() {
    let place = Place::new();
    let file = place.write("file", "mine");
    for out in [file.clone(), file.join("below")] {
        let out = format!("--out={}", out.display());
        place.refuses(&[&out], &["--out", "file"]);
    }
    assert_eq!(std::fs::read(file).unwrap(), b"mine");
    let out = format!("--out={}", place.model().display());
    let before = std::fs::read(place.model().join("model.safetensors")).unwrap();
    place.refuses(&[&out], &["--out", "choose another folder"]);
    let out = format!("--out={}/../model", place.model().display());
    place.refuses(&[&out], &["choose another"]);
    assert!(before == std::fs::read(place.model().join("model.safetensors")).unwrap());
    assert!(!place.model().join("metrics.jsonl").exists(), "the model's folder must stay as it is");
}

/// All files and folders below `dir`.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// The program, allowed to write no more than `blocks` of 512 bytes to a file: as on a full disk, a write fails.
#[cfg(unix)]
fn with_little_space(args: &[String], blocks: usize) -> Output {
    let program = command(args);
    std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""))
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .unwrap()
}

/// Whether every process that runs a part of a run writes the file anew.
#[cfg(unix)]
fn is_of_a_session(path: &Path) -> bool {
    ["metrics.jsonl", "run.json", "report.html", ".qft.lock"]
        .iter()
        .any(|name| path.ends_with(name))
}

#[cfg(unix)]
#[test]
fn a_full_disk_while_saving() {
    let words = ["cannot", "out", "disk"];
    // The model does not fit, nor does a checkpoint.
    let place = Place::new();
    let output = with_little_space(&place.args(&[]), 200);
    check_refusal(&output, &words);
    let names: Vec<_> = tree(&place.out());
    let names_of_a_run =
        ["metrics.jsonl", "run.json", "report.html", "tensorboard", "checkpoints", ".qft.lock"];
    let clean = |path: &PathBuf| {
        let below = path.strip_prefix(place.out()).unwrap();
        names_of_a_run.iter().any(|name| below.starts_with(name))
    };
    assert!(names.iter().all(clean), "{names:?}\n{}", said(&output));

    // The model fits, and a checkpoint does not: the result of the run is there.
    let place = Place::new();
    let output = with_little_space(&place.args(&[]), 1300);
    check_refusal(&output, &words);
    assert!(place.out().join("model.safetensors").exists(), "{}", said(&output));
    assert_eq!(std::fs::read_dir(place.out().join("checkpoints")).unwrap().count(), 0);

    // An older model and an older checkpoint stay as they are.
    let place = Place::new();
    let options = ["--steps=4", "--checkpoint-every=2", "--keep-checkpoints=9"];
    succeed(&place.args(&options));
    let checkpoints = place.out().join("checkpoints");
    std::fs::remove_dir_all(checkpoints.join("step-000004")).unwrap();
    let before: Vec<_> = tree(&place.out())
        .into_iter()
        .filter(|path| path.is_file())
        .filter(|path| !is_of_a_session(path))
        .map(|path| (std::fs::read(&path).unwrap(), path))
        .collect();
    assert!(before.len() >= 5, "a model and a checkpoint");
    let args = place.args(&[&options[..], &["--resume=latest"]].concat());
    let output = with_little_space(&args, 200);
    check_refusal(&output, &words);
    for (bytes, path) in before {
        assert!(std::fs::read(&path).unwrap() == bytes, "{} changed", path.display());
    }
    let partial = |path: &PathBuf| path.extension().is_some_and(|e| e == "partial");
    assert!(!tree(&place.out()).iter().any(partial));
    // With space again, it goes on.
    succeed(&args);
}

#[test]
fn learning_rates_that_change_nothing_or_everything() {
    let place = Place::new();
    let words = ["--lr", "lost when rounded to nearest", "--rounding stochastic", "--insist"];
    let options = ["--states=compact", "--rounding=nearest", "--lr=1e-6"];
    place.refuses(&options, &words);
    place.refuses(&["--states=compact", "--lr=1e-9"], &["--lr", "finer than the random bits"]);
    let words = ["--lr: 1 moves", "ruins the model", "up to", "--insist"];
    place.refuses(&["--lr=1"], &words);
    place.refuses(&["--lr=0.1", "--states=compact"], &["ruins the model"]);
    succeed(&place.args(&[&options[..], &["--insist"]].concat()));
}

#[test]
fn a_loss_that_explodes_ends_the_run_and_keeps_what_was_saved() {
    let place = Place::new();
    let options = ["--states=f32", "--lr=1", "--steps=60", "--warmup=20", "--checkpoint-every=1"];
    let output = qft(&place.args(&options));
    check_refusal(&output, &["error: step ", "the loss", "--lr"]);
    assert!(!place.out().join("model.safetensors").exists(), "{}", said(&output));
    let kept = std::fs::read_dir(place.out().join("checkpoints")).unwrap().count();
    // The newest, and the one before it, since no good step has come after the newest.
    assert_eq!(kept, 2, "{}", said(&output));
    // It is from before the loss rose, or while it did not yet look lost.
    let dir = qft_train::step::checkpoint::latest(&place.out().join("checkpoints")).unwrap();
    let progress = qft_train::step::checkpoint::read_progress(&dir.unwrap()).unwrap();
    assert!(!progress.guard.is_suspect(), "{progress:?}");
}

#[test]
fn folders_that_hold_something_are_not_written_over() {
    let place = Place::new();
    let files = |out: &Path| -> Vec<_> {
        let all = tree(out).into_iter().filter(|path| path.is_file());
        all.map(|path| (std::fs::read(&path).unwrap(), path)).collect()
    };
    // A run that is not done: refused until it is said what is to become of it.
    succeed(&place.args(&["--steps=4", "--checkpoint-every=1", "--keep-checkpoints=9"]));
    let summary = place.out().join("summary.json");
    let done = std::fs::read(&summary).unwrap();
    std::fs::remove_file(&summary).unwrap();
    let before = files(&place.out());
    let words = ["--out", "already holds a run", "--resume", "--overwrite", "another folder"];
    for option in ["--steps=4", "--seed=7"] {
        check_refusal(&qft(&place.args(&[option])), &words);
    }
    // Neither does an error of the new run cost the old one.
    let data = format!("--data={}", place.path("nowhere.txt").display());
    check_refusal(&qft(&place.args(&["--overwrite", &data])), &["nowhere.txt"]);
    check_refusal(&qft(&place.args(&["--overwrite", "--lr=1"])), &["ruins"]);
    assert!(files(&place.out()) == before, "a refused run changed the output folder");
    // The same run, done: refused too.
    std::fs::write(&summary, done).unwrap();
    let again = ["--out", "already holds this run, and it is done", "--resume", "--overwrite"];
    check_refusal(&qft(&place.args(&["--steps=4"])), &again);
    // Another one, done: moved aside, and all of it is still there.
    let printed = succeed(&place.args(&["--steps=3", "--seed=7"]));
    assert!(printed.contains("earlier-1"), "{printed}");
    for (bytes, path) in before {
        let name = path.strip_prefix(place.out()).unwrap();
        let now = std::fs::read(place.out().join("earlier-1").join(name));
        assert!(name == Path::new(".qft.lock") || now.unwrap() == bytes, "{}", name.display());
    }
    assert_eq!(common::json_lines(&place.out().join("metrics.jsonl")).len(), 3);
    // What no run wrote stays, and a run that is to be written over goes with all that it wrote.
    place.write("out/notes.txt", "mine");
    succeed(&place.args(&["--overwrite", "--steps=1"]));
    let steps: Vec<_> = std::fs::read_dir(place.out().join("checkpoints")).unwrap().collect();
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert_eq!(common::json_lines(&place.out().join("metrics.jsonl")).len(), 1);
    assert_eq!(std::fs::read(place.out().join("notes.txt")).unwrap(), b"mine");
    assert!(place.out().join("earlier-1").exists() && !place.out().join("earlier-2").exists());
    // A model that no run wrote.
    let place = Place::new();
    copy_dir(&place.model(), &place.out());
    let before = files(&place.out());
    for option in ["--steps=2", "--overwrite"] {
        let words =
            ["--out", "a model that was not written by a run", "config.json", "another folder"];
        check_refusal(&qft(&place.args(&[option])), &words);
    }
    // Nor does a checkpoint that is brought along give a right to what lies there.
    let other = place.path("other");
    let run = place.args(&[&format!("--out={}", other.display()), "--checkpoint-every=1"]);
    succeed(&run);
    let resume = format!("--resume={}", other.join("checkpoints/step-000002").display());
    check_refusal(&qft(&place.args(&[&resume])), &["a model that was not written by a run"]);
    assert!(files(&place.out()) == before);
    // Where there is nothing, it goes on.
    let third = format!("--out={}", place.path("third").display());
    succeed(&place.args(&[&resume, &third]));
    // A file that a model would bring is as good as a model, and a link must lead somewhere.
    let fourth = place.path("fourth");
    std::fs::create_dir(&fourth).unwrap();
    std::fs::write(fourth.join("chat_template.jinja"), "mine").unwrap();
    let out = format!("--out={}", fourth.display());
    check_refusal(&qft(&place.args(&[&out])), &["chat_template.jinja", "another folder"]);
    #[cfg(unix)]
    {
        let link = place.path("link");
        std::os::unix::fs::symlink(place.path("nowhere"), &link).unwrap();
        let out = format!("--out={}", link.display());
        check_refusal(&qft(&place.args(&[&out])), &["--out", "a link to what does not exist"]);
    }
    // Where nothing can be written is found out before anything is read.
    #[cfg(target_os = "linux")]
    {
        let args = place.args(&["--out=/proc/self/tuned", "--data=/no/such/data"]);
        check_refusal(&qft(&args), &["cannot make a file in: /proc/self", "another folder"]);
    }
}

#[test]
fn a_step_of_too_many_tokens_is_refused_before_it_is_planned() {
    let place = Place::new();
    let words =
        ["--batch-size 100000000", "tokens in a step need more", "make one of them smaller"];
    place.refuses(&["--batch-size=100000000"], &words);
    let words = ["takes", "the program itself", "--memory-limit"];
    place.refuses(&["--memory-limit=3MB"], &words);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let place = Place::new();
    let options = ["--steps=4", "--checkpoint-every=2", "--keep-checkpoints=9"];
    succeed(&place.args(&options));
    damage(&place.out().join("checkpoints/step-000004/trainer.json"), |bytes| bytes.truncate(40));
    let printed = succeed(&place.args(&[&options[..], &["--resume"]].concat()));
    assert!(printed.contains("step-000002 after step 2"), "{printed}");
}

#[test]
fn resuming_what_does_not_fit() {
    let place = Place::new();
    place
        .refuses(&["--resume"], &["--resume latest", "there is no checkpoint", "without --resume"]);
    let nowhere = format!("--resume={}", place.path("nowhere").display());
    place.refuses(&[&nowhere], &["nowhere", "--resume takes a checkpoint"]);

    let options = ["--steps=4", "--checkpoint-every=2", "--keep-checkpoints=9"];
    succeed(&place.args(&options));
    let checkpoint = place.out().join("checkpoints/step-000002");
    let resume = format!("--resume={}", checkpoint.display());
    let files = || -> Vec<_> {
        let all = tree(&place.out()).into_iter().filter(|path| path.is_file());
        all.map(|path| (std::fs::read(&path).unwrap(), path)).collect()
    };
    let before = files();
    let refuses = |more: &[&str], words: &[&str]| {
        let args = place.args(&[&options[..], &[&resume], more].concat());
        check_refusal(&qft(&args), words);
    };
    let text = std::fs::read_to_string(common::excerpt()).unwrap();
    // As many tokens, and another one.
    let other = place.write("other.txt", text.replacen("First", "Fifth", 1));
    let other = format!("--data={}", other.display());
    for (option, word) in [
        ("--lr=1e-4", "--lr 5e-4, this run has 1e-4"),
        ("--seed=1", "--seed 0, this run has 1"),
        ("--states=compact", "--states full, this run has compact"),
        ("--batch-size=1", "--batch-size 2, this run has 1"),
        ("--weight-decay=0.1", "--weight-decay 0.0, this run has 0.1"),
        ("--gradients=stored", "--gradients released, this run has stored"),
        ("--train-on=all", "--train-on completion, this run has all"),
        ("--pack", "--pack false, this run has true"),
        ("--val-split=0.5", "--val-split not given, this run has 0.5"),
        (&other, "--data of "),
    ] {
        refuses(&[option], &["--resume", "step-000002", word, "give the same options"]);
    }
    refuses(
        &["--steps=6"],
        &["--steps 4, this run has 6", "learning rates", "--schedule constant"],
    );
    assert!(files() == before, "a refused resume changed the output folder");

    let state = checkpoint.join("state.safetensors");
    let whole = std::fs::read(&state).unwrap();
    type Change = fn(&mut Vec<u8>);
    let damages: [(Change, &str); 5] = [
        (|bytes| bytes.truncate(bytes.len() - 1), "truncated"),
        (|bytes| bytes.truncate(4), "length of the file, expected 8 bytes"),
        (|bytes| bytes[..8].copy_from_slice(&(1_u64 << 62).to_le_bytes()), "length of the header"),
        (|bytes| bytes[8..20].fill(b'?'), "expected a safetensors header"),
        (
            |bytes| {
                with_header(bytes, |header| {
                    let tensor = &mut header["model.norm.weight/gain"];
                    tensor["data_offsets"] = json!([0, u64::MAX]);
                });
            },
            "data_offsets of `model.norm.weight/gain`, expected a region from",
        ),
    ];
    for (change, word) in damages {
        damage(&state, change);
        refuses(&[], &["state.safetensors", word, "choose another checkpoint"]);
        std::fs::write(&state, &whole).unwrap();
    }
    damage(&checkpoint.join("trainer.json"), |bytes| bytes.truncate(40));
    refuses(&[], &["trainer.json", "damaged", "resume from another checkpoint"]);
    std::fs::remove_file(&state).unwrap();
}
