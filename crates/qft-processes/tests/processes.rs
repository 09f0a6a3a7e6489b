//! Jobs of several processes, under every MPI that is found and by TCP: what they exchange, and how they end.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Ended, Job, Means, Mpi, found};
use qft_processes::{Deadlines, Launch, Processes, Team, agree};
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
    let deadlines = Deadlines { first: PATIENT, others };
    let opened = Launch::detect().and_then(|launch| match launch {
        Some(launch) => Processes::open(&launch, deadlines),
        None => Processes::start(Team::of_this_program(common::team_size())?, deadlines),
    });
    let processes = opened.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        Processes::leave()
    });
    std::fs::write(
        folder.join(format!("pid-{}", processes.rank())),
        std::process::id().to_string(),
    )
    .unwrap();
    match &*what {
        "data" => data(processes),
        "many-threads" => many_threads(processes),
        "differ" => differ(processes),
        "go-on" | "patient" => go_on(&processes, &folder, |_| ()),
        "fail-alone" => go_on(&processes, &folder, |round| {
            if (processes.rank(), round) == (1, 5) {
                eprintln!("error: the disk is full");
                processes.abort();
            }
        }),
        "panic" => go_on(&processes, &folder, |round| {
            assert!((processes.rank(), round) != (1, 5), "a broken rule")
        }),
        "leave" => go_on(&processes, &folder, |round| {
            if (processes.rank(), round) == (1, 5) {
                std::process::exit(3)
            }
        }),
        "one-finishes" => one_finishes(processes),
        _ => panic!("{what}"),
    }
}

/// Exchanges without an end, but for an error.
fn go_on(processes: &Processes, folder: &Path, on_round: impl Fn(u32)) {
    for round in 0.. {
        let mut values = [round];
        if let Err(error) = processes.max(&mut values) {
            eprintln!("error: {error}");
            let again = processes.max(&mut values).unwrap_err().to_string();
            assert!(again.contains("the job is lost since"), "{again}");
            processes.abort();
        }
        assert_eq!(values, [round]);
        if round == 3 {
            std::fs::write(folder.join(format!("warm-{}", processes.rank())), "").unwrap();
        }
        on_round(round);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn one_finishes(processes: Processes) {
    processes.max(&mut [1]).unwrap();
    if processes.rank() == 1 {
        std::thread::sleep(PATIENT);
    }
    processes.finish();
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

fn data(processes: Processes) {
    check_max(&processes);
    check_gather(&processes);
    for longest in [0, 1, 1000, 5 << 20, 70_000_000] {
        check_exchange(&processes, longest);
    }
    let same = [("version", "0.1.0".to_owned()), ("options", "x".repeat(100_000))];
    assert_eq!(agree(&processes, &same), Ok(()));
    let text =
        format!("whole: {} of {} with {}\n", processes.rank(), processes.size(), processes.about());
    processes.finish();
    print!("{text}");
}

fn check_max(processes: &Processes) {
    let (rank, size) = (processes.rank() as u32, processes.size() as u32);
    for len in [0, 1, 4096, 2_500_000] {
        // Beyond the largest i32 as well, each process with the largest somewhere.
        let value = |i: usize, rank: u32| (i as u32).wrapping_mul(0x9E37_79B9) ^ (rank << 30);
        let mut values: Vec<_> = (0..len).map(|i| value(i, rank)).collect();
        processes.max(&mut values).unwrap();
        let largest = |i| (0..size).map(|rank| value(i, rank)).max().unwrap();
        assert!(values.iter().enumerate().all(|(i, value)| *value == largest(i)), "{len}");
    }
}

fn check_gather(processes: &Processes) {
    let (rank, size) = (processes.rank(), processes.size());
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
        processes.gather(&mut bytes, &parts).unwrap();
        let mut expected = vec![0xAA; len];
        for (r, part) in parts.iter().enumerate() {
            let part = expected[part.clone()].iter_mut();
            part.enumerate().for_each(|(i, b)| *b = byte(r, 0, i));
        }
        assert!(bytes == expected, "{lengths:?}");
    }
}

/// The longest part goes from process 1 to process 0; others are shorter, or empty.
fn check_exchange(processes: &Processes, longest: usize) {
    let (rank, size) = (processes.rank(), processes.size());
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
    processes.exchange(&send, &send_parts, &mut receive, &receive_parts).unwrap();
    let mut expected = vec![0xAA; len];
    for (from, part) in receive_parts.iter().enumerate() {
        let part = expected[part.clone()].iter_mut();
        part.enumerate().for_each(|(i, b)| *b = byte(from, rank, i));
    }
    assert!(receive == expected, "{longest}");
}

/// Calls from threads that take turns, a process that computes while others wait, and no second begin.
fn many_threads(processes: Processes) {
    if let Some(launch) = Launch::detect().unwrap().filter(|launch| launch.master.is_none()) {
        let again = Processes::open(&launch, Deadlines::of(PATIENT));
        assert!(matches!(again, Err(qft_processes::Error::Twice)), "{again:?}");
    }
    for round in 0..20 {
        std::thread::scope(|scope| {
            let call = || processes.max(&mut [round]).unwrap();
            scope.spawn(call).join().unwrap();
        });
    }
    if processes.rank() == 0 {
        std::thread::sleep(Duration::from_millis(500));
    }
    let began = Instant::now();
    processes.max(&mut [1]).unwrap();
    assert!(processes.rank() == 0 || began.elapsed() > Duration::from_millis(100));
    processes.finish();
    println!("took turns");
}

fn differ(processes: Processes) {
    let seed = (processes.rank() / 2).to_string();
    let what = [("version", "0.1.0".to_owned()), ("--seed", seed), ("data", String::new())];
    println!("told: {}", agree(&processes, &what).unwrap_err());
    processes.finish();
}

/// Every MPI that is found, and TCP.
fn all() -> Vec<Means> {
    found().iter().cloned().map(Means::Mpi).chain([Means::Tcp]).collect()
}

/// Tests all of them at the same time: they wait most of it.
fn each(test: impl Fn(&Means) + Sync) {
    let all = all();
    std::thread::scope(|scope| {
        for means in &all {
            scope.spawn(|| test(means));
        }
    });
}

/// Runs a job that comes to its good end.
fn succeed(means: &Means, processes: usize, what: &str) -> Ended {
    let ended = Job::start(means, processes, what).wait();
    assert!(ended.success, "{}\n{}", ended.label, ended.output);
    ended
}

#[test]
fn everything_arrives() {
    for means in &all() {
        for processes in [2, 3] {
            let ended = succeed(means, processes, "data");
            ended.says("whole: ", processes);
            let line = ended.output.lines().find(|line| line.contains("whole: ")).unwrap();
            println!("{line}; {:.1} s", ended.took.as_secs_f64());
        }
    }
}

#[test]
fn threads_take_turns() {
    each(|means| {
        succeed(means, 2, "many-threads").says("took turns", 2);
    });
}

#[test]
fn a_difference_is_named() {
    each(|means| {
        let ended = succeed(means, 3, "differ");
        let told = "told: --seed differs: `0` for process 0, `1` for process 2; all need the same";
        ended.says(told, 3);
    });
}

#[test]
fn a_killed_process_ends_the_job() {
    each(|means| {
        let job = Job::start(means, 2, "patient");
        job.signal(1, "KILL");
        let ended = job.wait();
        ended.failed_within(ENDS_WITHIN);
        match means {
            // The launcher's words.
            Means::Mpi(_) => {
                let output = ended.output.to_lowercase();
                assert!(output.contains("signal 9") || output.contains("signal: 9"), "{output}");
            }
            Means::Tcp => ended.says_some("has ended, or cannot be reached"),
        }
        println!("killed: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_stopped_process_ends_the_job() {
    each(|means| {
        let job = Job::start(means, 2, "go-on");
        job.signal(1, "STOP");
        let ended = job.wait();
        ended.failed_within(SHORT.as_secs() + ENDS_WITHIN);
        ended.says_some("error: process 0 of 2: on ");
        ended.says_some(match means {
            Means::Mpi(_) => "the maximum of 1 values did not end within 3 s: another process",
            Means::Tcp => "has been waited for 3 s: it hangs, is stopped, or cannot be reached",
        });
        println!("stopped: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn an_error_of_one_ends_the_job() {
    each(|means| {
        let ended = Job::start(means, 2, "fail-alone").wait();
        ended.failed_within(ENDS_WITHIN);
        ended.says("error: the disk is full", 1);
        println!("alone: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_panic_ends_the_job() {
    each(|means| {
        let ended = Job::start(means, 2, "panic").wait();
        ended.failed_within(ENDS_WITHIN);
        ended.says_some("a broken rule");
        ended.says("gives up, and ends the others", 1);
        println!("panic: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn a_process_that_leaves_ends_the_job() {
    each(|means| {
        let ended = Job::start(means, 2, "leave").wait();
        ended.failed_within(ENDS_WITHIN);
        println!("left: {:.1} s", ended.took.as_secs_f64());
    });
}

#[test]
fn the_end_does_not_wait_for_ever() {
    each(|means| {
        let ended = Job::start(means, 2, "one-finishes").wait();
        ended.failed_within(SHORT.as_secs() + ENDS_WITHIN);
        ended.says_some(match means {
            Means::Mpi(_) => {
                "gives up, and ends the others: the maximum of 1 values did not end within 3 s"
            }
            Means::Tcp => "gives up, and ends the others: process 1 on",
        });
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
        let ended = Job::start(&Means::Mpi(misfit), 2, "data").wait();
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
        ("MASTER_PORT", "70000"),
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
        (torchrun.to_vec(), "error: MASTER_PORT=70000: expected a port, 0 to 65535"),
    ] {
        let ended = Job::start_one("data", &variables).wait();
        ended.failed_within(ENDS_WITHIN);
        ended.says_some(text);
    }
}

/// Whoever sets the variables of `torchrun` has a job, in any order of starts.
#[test]
fn variables_alone_make_a_job() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let jobs = ["2", "0", "1"].map(|rank| {
        let size = ("WORLD_SIZE", "3");
        let master = [("MASTER_ADDR", "localhost"), ("MASTER_PORT", port.as_str())];
        Job::start_beside("data", &[&[("RANK", rank), size][..], &master].concat())
    });
    for job in jobs {
        let ended = job.wait();
        assert!(ended.success, "{}\n{}", ended.label, ended.output);
        ended.says("whole: ", 1);
    }
}

/// One that cannot start ends all at once, rather than when nobody waits any longer.
#[test]
fn a_team_that_cannot_start_is_told() {
    for (program, told) in
        [("/no/such/program", "cannot be started"), ("false", "process 1 has ended")]
    {
        let team = Team::new(2, program.into(), Vec::new());
        let error = Processes::start(team, Deadlines::of(PATIENT)).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
