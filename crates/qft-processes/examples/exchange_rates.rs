//! How fast processes exchange: `mpirun -n 2 target/release/examples/exchange_rates`, or alone, which starts another and meets it by TCP.
#![allow(clippy::unwrap_used, reason = "an example ends with its first error")]

use qft_processes::{Deadlines, Launch, Processes, Team};
use qft_tensor::Communicator;
use std::time::{Duration, Instant};

/// Of each, this many are measured.
const REPETITIONS: usize = 9;

/// Maxima that are found in a row, for one time.
const MAXIMA: usize = 200;

/// Values of a maximum.
const VALUES: usize = 4096;

/// Bytes that a process has in an exchange: its own part, and as much for each other.
const BYTES: usize = 40_000_000;

fn main() {
    let deadlines = Deadlines::of(Duration::from_secs(60));
    let processes = match Launch::detect().unwrap() {
        Some(launch) => Processes::open(&launch, deadlines).unwrap(),
        None => Processes::start(Team::of_this_program(2).unwrap(), deadlines).unwrap(),
    };
    let mut values = vec![processes.rank() as u32; VALUES];
    let max = time(&processes, || (0..MAXIMA).for_each(|_| processes.max(&mut values).unwrap()));
    let parts: Vec<_> = (0..processes.size())
        .map(|r| BYTES * r / processes.size()..BYTES * (r + 1) / processes.size())
        .collect();
    let (send, mut receive) = (vec![1; BYTES], vec![0; BYTES]);
    let exchange =
        time(&processes, || processes.exchange(&send, &parts, &mut receive, &parts).unwrap());
    let gather = time(&processes, || processes.gather(&mut receive, &parts).unwrap());
    if processes.rank() == 0 {
        println!("{} processes, {}", processes.size(), processes.about());
        println!("maximum of {VALUES} values: {}", text(&max, 1e6 / MAXIMA as f64, "us"));
        println!("exchange of {} MB: {}", BYTES / 1_000_000, text(&exchange, 1e3, "ms"));
        println!("gathering of {} MB: {}", BYTES / 1_000_000, text(&gather, 1e3, "ms"));
    }
    processes.finish();
}

/// Seconds, in order, after all have come to the same place.
fn time(processes: &Processes, mut what: impl FnMut()) -> Vec<f64> {
    let mut seconds = Vec::new();
    for _ in 0..REPETITIONS {
        processes.max(&mut [0]).unwrap();
        let began = Instant::now();
        what();
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds
}

fn text(seconds: &[f64], factor: f64, unit: &str) -> String {
    let [best, median] = [seconds[0], seconds[REPETITIONS / 2]].map(|time| time * factor);
    format!("best {best:.1} {unit}, median {median:.1} {unit}")
}
