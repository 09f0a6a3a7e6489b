//! Signals that ask a run of the program to stop.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, finetune, said};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One step that outlasts the test, or nearly so.
const LONG_STEP: [&str; 3] = ["--steps=2", "--states=f32", "--accumulate=2000"];

/// The program with `args` and both outputs piped, once a shell has done `before`.
fn start(before: &str, args: &[String]) -> Child {
    let program = command(args);
    Command::new("sh")
        .arg("-c")
        .arg(format!("{before}; exec \"$0\" \"$@\""))
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(program.get_current_dir().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the run catches SIGTERM.
fn wait_for_handlers(child: &Child) {
    let start = Instant::now();
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0
    };
    while !catches() {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the run is in its first step, or behind it: the page is the last that is written before.
fn wait_for_step(child: &Child, out: &Path) {
    wait_for_handlers(child);
    let start = Instant::now();
    while !out.join("report.html").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(300));
}

/// Whether this process ignores SIGINT, and with it all that it starts: shells that start it in the background see to that.
fn interrupts_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 1) != 0
}

/// Sends signals, one right after the other.
fn send(child: &Child, signals: &[&str]) {
    let pid = child.id();
    let kills: Vec<_> = signals.iter().map(|signal| format!("kill -{signal} {pid}")).collect();
    assert!(Command::new("sh").args(["-c", &kills.join(" && ")]).status().unwrap().success());
}

fn checkpoints(out: &Path) -> usize {
    std::fs::read_dir(out.join("checkpoints")).map_or(0, Iterator::count)
}

#[test]
fn nohup_keeps_a_run_going() {
    let temp = tempfile::tempdir().unwrap();
    let child = start("trap '' HUP", &finetune(temp.path(), &["--steps=60"]));
    wait_for_handlers(&child);
    send(&child, &["HUP"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(temp.path().join("model.safetensors").exists(), "{}", said(&output));
}

#[test]
fn a_signal_saves_a_checkpoint_and_tells_its_number() {
    for (signal, code) in [("HUP", 129), ("TERM", 143), ("USR1", 138), ("XCPU", 152)] {
        let temp = tempfile::tempdir().unwrap();
        let child = start(":", &finetune(temp.path(), &["--steps=2000"]));
        wait_for_step(&child, temp.path());
        send(&child, &[signal]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert_eq!(checkpoints(temp.path()), 1, "{}", said(&output));
    }
}

#[test]
fn signals_that_come_together_are_one_and_nobody_need_read_the_warning() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--steps=2", "--states=f32", "--accumulate=80"];
    let mut child = start(":", &finetune(temp.path(), &options));
    drop(child.stderr.take());
    wait_for_step(&child, temp.path());
    let start = Instant::now();
    send(&child, &["TERM", "TERM", "TERM"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    assert_eq!(checkpoints(temp.path()), 1, "{}", said(&output));
    println!("the step went on for {:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (second, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        if second == "INT" && interrupts_are_ignored() {
            println!("skipped: whoever started this test ignores SIGINT, and so does the run");
            continue;
        }
        let temp = tempfile::tempdir().unwrap();
        let mut child = start(":", &finetune(temp.path(), &LONG_STEP));
        wait_for_step(&child, temp.path());
        send(&child, &["TERM"]);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("again to stop at once")));
        send(&child, &[second]);
        let start = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert_eq!(checkpoints(temp.path()), 0);
    }
}

/// Whether there is a checkpoint, and not only what is being written.
fn any_whole(out: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(out.join("checkpoints")) else { return false };
    entries.into_iter().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().trim_start_matches("step-").parse::<u32>().is_ok()
    })
}

#[test]
fn killed_while_checkpoints_are_written_a_run_goes_on_to_the_same_bits() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--steps=40", "--checkpoint-every=1", "--checkpoint-copy=always"];
    let whole = temp.path().join("whole");
    assert!(command(&finetune(&whole, &options)).output().unwrap().status.success());
    let model = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    let out = temp.path().join("killed");
    let mut kills = 0;
    for delay in (0..12).map(|number| 3 + 5 * number) {
        let resume = if any_whole(&out) { "--resume=latest" } else { "--overwrite" };
        let mut child = start(":", &finetune(&out, &[&options[..], &[resume]].concat()));
        wait_for_handlers(&child);
        let began = Instant::now();
        while !any_whole(&out) && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(delay));
        if child.try_wait().unwrap().is_none() {
            send(&child, &["KILL"]);
            kills += 1;
        }
        child.wait().unwrap();
        if out.join("summary.json").exists() {
            break;
        }
    }
    println!("killed {kills} times");
    assert!(kills > 0);
    let resumed = finetune(&out, &[&options[..], &["--resume=latest"]].concat());
    let output = command(&resumed).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(model(&out) == model(&whole), "the bits differ");
    assert_eq!(checkpoints(&out), 1, "nothing is left of what was killed");
}
