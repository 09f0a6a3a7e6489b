//! Jobs of several processes, under every MPI that is found: what they exchange, and how they end.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Ended, Job, Mpi, found};
use qft_mpi::{Deadlines, Launch, agree};
use qft_tensor::Communicator;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than any pause of a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// For a process that does not answer.
const SHORT: Duration = Duration::from_secs(3);

/// How long a job may take to end once one of its processes has, in seconds.
const ENDS_WITHIN: u64 = 10;

/// What a process of a job does, if this is one.
#[test]
fn one_of_a_job() {
    let Some((what, folder)) = common::task() else { return };
    let others = if what == "patient" { PATIENT } else { SHORT };
    let others =
        if matches!(&*what, "data" | "differ" | "many-threads") { PATIENT } else { others };
    let opened = Launch::detect()
        .map(|launch| launch.expect("a launcher"))
        .and_then(|launch| qft_mpi::Mpi::open(&launch, Deadlines { first: PATIENT, others }));
    let mpi = opened.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        qft_mpi::Mpi::leave()
    });
    std::fs::write(folder.join(format!("pid-{}", mpi.rank())), std::process::id().to_string())
        .unwrap();
    match &*what {
        "data" => data(mpi),
        "many-threads" => many_threads(mpi),
        "differ" => differ(mpi),
        "go-on" | "patient" => go_on(&mpi, &folder, |_| ()),
        "fail-alone" => go_on(&mpi, &folder, |round| {
            if (mpi.rank(), round) == (1, 5) {
                eprintln!("error: the disk is full");
                mpi.abort();
            }
        }),
        "panic" => {
            go_on(&mpi, &folder, |round| assert!((mpi.rank(), round) != (1, 5), "a broken rule"))
        }
        "leave" => go_on(&mpi, &folder, |round| {
            if (mpi.rank(), round) == (1, 5) {
                std::process::exit(3)
            }
        }),
        "one-finishes" => one_finishes(mpi),
        _ => panic!("{what}"),
    }
}

/// Exchanges without an end, but for an error.
fn go_on(mpi: &qft_mpi::Mpi, folder: &Path, on_round: impl Fn(u32)) {
    for round in 0.. {
        let mut values = [round];
        if let Err(error) = mpi.max(&mut values) {
            eprintln!("error: {error}");
            let again = mpi.max(&mut values).unwrap_err().to_string();
            assert!(again.contains("the job is lost since"), "{again}");
            mpi.abort();
        }
        assert_eq!(values, [round]);
        if round == 3 {
            std::fs::write(folder.join(format!("warm-{}", mpi.rank())), "").unwrap();
        }
        on_round(round);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn one_finishes(mpi: qft_mpi::Mpi) {
    mpi.max(&mut [1]).unwrap();
    if mpi.rank() == 1 {
        std::thread::sleep(PATIENT);
    }
    mpi.finish();
}

/// A byte that tells who sends it to whom, and where it is.
fn byte(from: usize, to: usize, index: usize) -> u8 {
    (index % 251) as u8 ^ (16 * from + to) as u8
}

/// Parts of these lengths, in reverse order, with three bytes of nobody around each; and the length of all.
fn parts(lengths: &[usize]) -> (Vec<Range<usize>>, usize) {
    let mut end = 3;
    let mut parts = vec![0..0; lengths.len()];
    for (part, length) in parts.iter_mut().zip(lengths).rev() {
        *part = end..end + length;
        end = part.end + 3;
    }
    (parts, end)
}

fn data(mpi: qft_mpi::Mpi) {
    check_max(&mpi);
    check_gather(&mpi);
    for longest in [0, 1, 1000, 5 << 20, 70_000_000] {
        check_exchange(&mpi, longest);
    }
    let same = [("version", "0.1.0".to_owned()), ("options", "x".repeat(100_000))];
    assert_eq!(agree(&mpi, &same), Ok(()));
    let text = format!("whole: {} of {} with {}\n", mpi.rank(), mpi.size(), mpi.library());
    mpi.finish();
    print!("{text}");
}

fn check_max(mpi: &qft_mpi::Mpi) {
    let (rank, size) = (mpi.rank() as u32, mpi.size() as u32);
    for len in [0, 1, 4096, 2_500_000] {
        // Beyond the largest i32 as well, each process with the largest somewhere.
        let value = |i: usize, rank: u32| (i as u32).wrapping_mul(0x9E37_79B9) ^ (rank << 30);
        let mut values: Vec<_> = (0..len).map(|i| value(i, rank)).collect();
        mpi.max(&mut values).unwrap();
        let largest = |i| (0..size).map(|rank| value(i, rank)).max().unwrap();
        assert!(values.iter().enumerate().all(|(i, value)| *value == largest(i)), "{len}");
    }
}

fn check_gather(mpi: &qft_mpi::Mpi) {
    let (rank, size) = (mpi.rank(), mpi.size());
    // Of the first process nothing, or of all but it; even; nothing at all; more than a round.
    let cases: [&dyn Fn(usize) -> usize; 5] =
        [&|r| 1000 * r, &|r| if r == 0 { 77 } else { 0 }, &|_| 4096, &|_| 0, &|r| {
            9_000_000 + 1000 * r
        }];
    for lengths in cases {
        let lengths: Vec<_> = (0..size).map(lengths).collect();
        let (parts, len) = parts(&lengths);
        let mut bytes = vec![0xAA; len];
        bytes[parts[rank].clone()].iter_mut().enumerate().for_each(|(i, b)| *b = byte(rank, 0, i));
        mpi.gather(&mut bytes, &parts).unwrap();
        let mut expected = vec![0xAA; len];
        for (r, part) in parts.iter().enumerate() {
            let part = expected[part.clone()].iter_mut();
            part.enumerate().for_each(|(i, b)| *b = byte(r, 0, i));
        }
        assert!(bytes == expected, "{lengths:?}");
    }
}

/// The longest part goes from process 1 to process 0; others are shorter, or empty.
fn check_exchange(mpi: &qft_mpi::Mpi, longest: usize) {
    let (rank, size) = (mpi.rank(), mpi.size());
    let length = |from: usize, to: usize| match (from, to) {
        (1, 0) => longest,
        (from, to) if from == to => 10 * from,
        (from, to) => (longest / 100).min(1_000 * from + to),
    };
    let (send_parts, len) = parts(&(0..size).map(|to| length(rank, to)).collect::<Vec<_>>());
    let mut send = vec![0x55; len];
    for (to, part) in send_parts.iter().enumerate() {
        send[part.clone()].iter_mut().enumerate().for_each(|(i, b)| *b = byte(rank, to, i));
    }
    let (receive_parts, len) = parts(&(0..size).map(|from| length(from, rank)).collect::<Vec<_>>());
    let mut receive = vec![0xAA; len];
    mpi.exchange(&send, &send_parts, &mut receive, &receive_parts).unwrap();
    let mut expected = vec![0xAA; len];
    for (from, part) in receive_parts.iter().enumerate() {
        let part = expected[part.clone()].iter_mut();
        part.enumerate().for_each(|(i, b)| *b = byte(from, rank, i));
    }
    assert!(receive == expected, "{longest}");
}

/// Calls from threads that take turns, a process that computes while others wait, and no second begin.
fn many_threads(mpi: qft_mpi::Mpi) {
    let launch = Launch::detect().unwrap().unwrap();
    let again = qft_mpi::Mpi::open(&launch, Deadlines::of(PATIENT));
    assert!(matches!(again, Err(qft_mpi::Error::Twice)), "{again:?}");
    for round in 0..20 {
        std::thread::scope(|scope| {
            let call = || mpi.max(&mut [round]).unwrap();
            scope.spawn(call).join().unwrap();
        });
    }
    if mpi.rank() == 0 {
        std::thread::sleep(Duration::from_millis(500));
    }
    let began = Instant::now();
    mpi.max(&mut [1]).unwrap();
    assert!(mpi.rank() == 0 || began.elapsed() > Duration::from_millis(100));
    mpi.finish();
    println!("took turns");
}

fn differ(mpi: qft_mpi::Mpi) {
    let seed = (mpi.rank() / 2).to_string();
    let what = [("version", "0.1.0".to_owned()), ("--seed", seed), ("data", String::new())];
    println!("told: {}", agree(&mpi, &what).unwrap_err());
    mpi.finish();
}

/// Tests every MPI that is found, all at the same time: they wait most of it.
fn each(test: impl Fn(&Mpi) + Sync) {
    std::thread::scope(|scope| {
        for mpi in found() {
            scope.spawn(|| test(mpi));
        }
    });
}

/// Runs a job that comes to its good end.
fn succeed(mpi: &Mpi, processes: usize, what: &str) -> Ended {
    let ended = Job::start(mpi, processes, what).wait();
    assert!(ended.success, "{}\n{}", ended.label, ended.output);
    ended
}

#[test]
fn everything_arrives() {
    for mpi in found() {
        for processes in [2, 3] {
            let ended = succeed(mpi, processes, "data");
            ended.says("whole: ", processes);
            let line = ended.output.lines().find(|line| line.contains("whole: ")).unwrap();
            println!("{line}; {:.1} s", ended.took.as_secs_f64());
        }
    }
}

#[test]
fn threads_take_turns() {
    each(|mpi| {
        succeed(mpi, 2, "many-threads").says("took turns", 2);
    });
}

#[test]
fn a_difference_is_named() {
    each(|mpi| {
        let ended = succeed(mpi, 3, "differ");
        let told = "told: --seed differs: `0` for process 0, `1` for process 2; all need the same";
        ended.says(told, 3);
    });
}

#[test]
fn a_killed_process_ends_the_job() {
    each(|mpi| {
        let job = Job::start(mpi, 2, "patient");
        job.signal(1, "KILL");
        let ended = job.wait();
        ended.failed_within(ENDS_WITHIN);
        // The launcher's words.
        let output = ended.output.to_lowercase();
        assert!(output.contains("signal 9") || output.contains("signal: 9"), "{output}");
        println!("killed: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_stopped_process_ends_the_job() {
    each(|mpi| {
        let job = Job::start(mpi, 2, "go-on");
        job.signal(1, "STOP");
        let ended = job.wait();
        ended.failed_within(SHORT.as_secs() + ENDS_WITHIN);
        ended.says_some("error: process 0 of 2: on ");
        ended.says_some("the maximum of 1 values did not end within 3 s: another process");
        println!("stopped: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn an_error_of_one_ends_the_job() {
    each(|mpi| {
        let ended = Job::start(mpi, 2, "fail-alone").wait();
        ended.failed_within(ENDS_WITHIN);
        ended.says("error: the disk is full", 1);
        println!("alone: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_panic_ends_the_job() {
    each(|mpi| {
        let ended = Job::start(mpi, 2, "panic").wait();
        ended.failed_within(ENDS_WITHIN);
        ended.says_some("a broken rule");
        ended.says("gives up, and ends the others", 1);
        println!("panic: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_process_that_leaves_ends_the_job() {
    each(|mpi| {
        let ended = Job::start(mpi, 2, "leave").wait();
        ended.failed_within(ENDS_WITHIN);
        println!("left: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn the_end_does_not_wait_for_ever() {
    each(|mpi| {
        let ended = Job::start(mpi, 2, "one-finishes").wait();
        ended.failed_within(SHORT.as_secs() + ENDS_WITHIN);
        ended.says_some(
            "gives up, and ends the others: the maximum of 1 values did not end within 3 s",
        );
        println!("one finishes: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_library_of_another_launcher_is_refused() {
    for launcher in found() {
        let Some(other) = found().iter().find(|other| other.is_open_mpi != launcher.is_open_mpi)
        else {
            println!("skipped: no library that does not fit {}", launcher.launcher.display());
            continue;
        };
        let system = if other.is_open_mpi { "libmpi.so.40" } else { "libmpich.so.12" };
        let library = other.library.clone().unwrap_or_else(|| system.into());
        let misfit = Mpi { library: Some(library), ..launcher.clone() };
        let ended = Job::start(&misfit, 2, "data").wait();
        ended.failed_within(2 * ENDS_WITHIN);
        // Some libraries end the process before we can.
        let refused =
            "they belong to different MPIs; set QFT_MPI_LIB to the libmpi of the launcher";
        let note = "if MPI does not begin, set QFT_MPI_LIB to the libmpi of the launcher";
        assert!(ended.output.contains(refused) || ended.output.contains(note), "{}", ended.output);
        println!("refused: {:.1} s, {}", ended.took.as_secs_f64(), ended.output.contains(refused));
    }
}

#[test]
fn what_cannot_be_loaded_is_told() {
    let ompi = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")];
    let torchrun = [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "29500"),
    ];
    for (variables, text) in [
        (
            [&ompi[..], &[("QFT_MPI_LIB", "/no/libmpi.so")]].concat(),
            "error: no MPI library: tried /no/libmpi.so: ",
        ),
        (
            [&ompi[..], &[("QFT_MPI_LIB", "libc.so.6")]].concat(),
            "error: libc.so.6: has no function MPI_",
        ),
        (torchrun.to_vec(), "error: torchrun starts processes without MPI; start them by mpirun"),
    ] {
        let ended = Job::start_one("data", &variables).wait();
        ended.failed_within(ENDS_WITHIN);
        ended.says_some(text);
    }
}
