//! What the program says and where: help, completions, manual pages, exit codes, colours and the log file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, finetune, qft, said, succeed};
use qft_testing::material;
use std::process::Output;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = succeed(&["--help"]);
    for text in ["Exit codes:", "128+N", "--verbose", "--quiet", "--log-file", "completions"] {
        assert!(help.contains(text), "{text} in {help}");
    }
    let commands = [
        "finetune",
        "eval",
        "export",
        "generate",
        "chat",
        "plan",
        "data show",
        "completions",
        "man",
    ];
    for name in commands {
        let words: Vec<_> = name.split(' ').chain(["--help"]).collect();
        let help = succeed(&words);
        assert!(help.contains("Examples:") && help.contains(&format!("qft {name}")), "{help}");
        assert!(help.contains("--log-file"), "options of every command: {help}");
    }
    // What the examples show is understood, though the files are not there.
    let shown = [succeed(&["eval", "--help"]), succeed(&["export", "--help"])].concat();
    for line in shown.lines().filter(|line| line.trim().starts_with("qft ")) {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        assert_eq!(qft(&words).status.code(), Some(1), "{line}");
    }
}

#[test]
fn every_shell_has_a_script() {
    for (shell, text) in [
        ("bash", "complete -F _qft"),
        ("zsh", "#compdef qft"),
        ("fish", "complete -c qft"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = succeed(&["completions", shell]);
        for text in [text, "finetune", "limit-questions", "log-file"] {
            assert!(script.contains(text), "{shell}: {text}");
        }
    }
    assert_eq!(qft(&["completions", "tcsh"]).status.code(), Some(2));
    // The shell itself takes it, where there is one.
    let mut bash = std::process::Command::new("bash");
    let program = command::<&str>(&[]);
    let script = "eval \"$(\"$0\" completions bash)\" && COMP_WORDS=(qft ev) COMP_CWORD=1 && _qft qft ev qft \
                  && echo \"${COMPREPLY[@]}\"";
    match bash.args(["-c", script]).arg(program.get_program()).output() {
        Ok(output) => assert_eq!(output.stdout, b"eval\n", "{}", said(&output)),
        Err(error) => println!("skipped: no bash: {error}"),
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let page = succeed(&["man"]);
    for text in [".TH", "qft\\-finetune", "Exit codes"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("share/man1");
    succeed(&["man", &format!("--out={}", folder.display())]);
    for (name, text) in [
        ("qft.1", "SUBCOMMANDS"),
        ("qft-finetune.1", "weight\\-decay"),
        ("qft-eval.1", "limit\\-questions"),
        ("qft-plan.1", "log\\-file"),
        ("qft-data-show.1", "too\\-long"),
    ] {
        let page = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(page.contains(text), "{name}: {text}");
    }
    assert!(!folder.join("qft-help.1").exists());
    let file = temp.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let output = qft(&["man", &format!("--out={}", file.display())]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(stderr(&output).contains("--out: cannot create"), "{}", said(&output));
}

#[test]
fn exit_codes_tell_wrong_options_from_failures() {
    let model = format!("--model={}", material::stories260k().display());
    for (args, code) in [
        (vec!["plan", &*model], 0),
        (vec!["plan", "--model=/no/such/model"], 1),
        (vec!["plan", &model, "--batch-size=0"], 2),
        (vec!["plan", &model, "--batch-sise=1"], 2),
        (vec!["generate", &model, "--prompt=a", "--temperature=-1"], 2),
        (vec!["finetune", "--steps=0"], 2),
        (vec!["data", "show", &model, "--data=x", "--from=0"], 2),
        (vec!["plan", &model, "--quiet", "--verbose"], 2),
        (vec![], 2),
    ] {
        let output = qft(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
    }
    let told = stderr(&qft(&["plan", &model, "--batch-sise=1"]));
    assert!(told.contains("--batch-size"), "the nearest name: {told}");
}

#[test]
fn quiet_leaves_progress_out_and_the_log_file_is_added_to() {
    let temp = tempfile::tempdir().unwrap();
    let log = temp.path().join("qft.log");
    let log_file = format!("--log-file={}", log.display());
    let run = |name: &str, more: &[&str]| {
        let output = qft(&finetune(&temp.path().join(name), &[&["--steps=2"], more].concat()));
        assert!(output.status.success(), "{}", said(&output));
        (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
    };
    let (results, progress) = run("loud", &[]);
    assert!(progress.contains("step 2/2"), "{progress}");
    let (same, nothing) = run("quiet", &["--quiet", &log_file]);
    assert_eq!(nothing, "");
    assert_eq!(same.lines().count(), results.lines().count(), "results stay: {same}");
    let output = qft(&["plan", "--model=/no/such/model", &log_file]);
    assert_eq!(output.status.code(), Some(1));
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("INFO qft ") && lines[0].contains(" finetune --model="), "{text}");
    assert!(lines.iter().any(|line| line.ends_with("INFO done")), "{text}");
    let last = lines[lines.len() - 1];
    assert!(last.contains("ERROR") && last.contains("/no/such/model"), "{text}");
    // Every line begins with the time, as 2026-11-30T12:00:00.
    let timed = |line: &&str| line.as_bytes()[4] == b'-' && line.as_bytes()[10] == b'T';
    assert!(lines.iter().all(timed) && !text.contains('\u{1b}'), "{text}");
    let output = qft(&["plan", "--model=llama-2-7b", "--log-file=/no/such/folder/log"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--log-file: cannot write"), "{}", said(&output));
}

#[test]
fn verbose_says_more_and_colours_are_as_asked_for() {
    let run = |more: &[&str], variables: &[(&str, &str)]| {
        let questions = material::repository().join("crates/qft-testing/data/questions");
        let model = format!("--model={}", material::stories260k().display());
        let questions = format!("--questions={}", questions.display());
        let mut command = command(&[&["eval", &model, &questions], more].concat());
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "QFT_LOG"] {
            command.env_remove(name);
        }
        stderr(&command.envs(variables.iter().copied()).output().unwrap())
    };
    assert_eq!(run(&[], &[]), "");
    let told = run(&["-v"], &[]);
    assert!(told.contains("5 questions of contexts") && !told.contains('\u{1b}'), "{told}");
    assert!(run(&[], &[("QFT_LOG", "info")]).contains("5 questions of contexts"));
    assert_eq!(run(&["-q"], &[("QFT_LOG", "info")]), "", "an option goes before the variable");
    let forced = [("CLICOLOR_FORCE", "1")];
    assert!(run(&["-v"], &forced).contains('\u{1b}'));
    assert!(!run(&["-v"], &[forced[0], ("NO_COLOR", "1")]).contains('\u{1b}'));
    // The line of an error too.
    let failed = |variables: &[(&str, &str)]| {
        let mut command = command(&["plan", "--model=/no/such/model"]);
        command.env_remove("NO_COLOR").envs(variables.iter().copied());
        stderr(&command.output().unwrap())
    };
    assert!(failed(&[]).starts_with("error: "), "{}", failed(&[]));
    assert!(failed(&forced).starts_with('\u{1b}'));
    assert!(failed(&[forced[0], ("NO_COLOR", "1")]).starts_with("error: "));
}

/// What a terminal of so many columns gets, by util-linux's `script`; none where there is no such program.
fn on_terminal(columns: usize, args: &[String]) -> Option<String> {
    let program = command::<&str>(&[]);
    let quoted = |word: &str| format!("'{word}'");
    let words: Vec<_> = [program.get_program().to_str().unwrap()]
        .into_iter()
        .chain(args.iter().map(String::as_str))
        .map(quoted)
        .collect();
    let line = format!("stty cols {columns} rows 50 && {}", words.join(" "));
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).current_dir(material::repository());
    match script.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", said(&output));
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) => {
            println!("skipped: no `script`, which gives a program a terminal: {error}");
            None
        }
    }
}

/// Text without the sequences that move the cursor and colour it.
fn plain(text: &str) -> String {
    let (mut plain, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                let end = |c: &char| c.is_ascii_alphabetic();
                chars.next();
                while chars.next().is_some_and(|c| !end(&c)) {}
            }
            c => plain.push(c),
        }
    }
    plain
}

#[test]
fn the_live_view_fits_its_terminal_and_a_file_has_plain_lines() {
    let temp = tempfile::tempdir().unwrap();
    let args = |name: &str| {
        let more = ["--steps=30", "--val-split=0.1", "--eval-every=10", "--eval-batches=2"];
        finetune(&temp.path().join(name), &more)
    };
    for (columns, lines) in [(60, 3), (200, 2)] {
        let Some(text) = on_terminal(columns, &args(&columns.to_string())) else { return };
        let plain = plain(&text);
        // Lines are filled with blanks to the width, and the terminal goes on in the next one.
        let rows = |text: &str| -> Vec<String> {
            let chars: Vec<char> = text.chars().collect();
            chars.chunks(columns).map(|row| row.iter().collect()).collect()
        };
        let texts = plain.split(['\r', '\n']).map(rows);
        let is_view = |rows: &Vec<String>| rows[..].first().is_some_and(|row| row.contains("ETA"));
        let views: Vec<_> = texts.filter(is_view).collect();
        assert!(views.len() >= 2, "{plain}");
        let place = |view: &[String]| {
            let text = view.concat();
            text[..text.find("tok/s").unwrap()].chars().count()
        };
        for view in &views {
            assert!(view.len() >= lines, "{view:#?}");
            assert!(view[0].starts_with(['█', '░']), "{view:#?}");
            assert!(view[1].starts_with("loss "), "{view:#?}");
            assert!(view[..lines].iter().all(|row| row.ends_with(' ')), "{view:#?}");
            assert_eq!(place(view), place(&views[0]), "{view:#?}");
        }
        // The last state of the view stays.
        let view = &views[views.len() - 1][..lines];
        assert!(view[0].contains("30/30  100 %   ETA      0s"), "{view:?}");
        for part in ["loss ", "held-out ", "lr ", "tok/s", "MB", "checkpoint at the end"] {
            assert!(view.concat().contains(part), "{part}: {view:?}");
        }
        for step in [10, 20] {
            assert_eq!(plain.matches(&format!("step {step}/30 held-out loss ")).count(), 1);
        }
    }
    let output = qft(&args("file"));
    let text = stderr(&output);
    assert!(text.contains("step 30/30 loss ") && !text.contains(['█', '\r', '\u{1b}']), "{text}");
    assert!(text.lines().all(|line| line.starts_with("step ")), "{text}");
}
