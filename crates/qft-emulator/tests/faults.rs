//! What the emulator is for: mistakes of kernels are found, and correct kernels are left alone.

use qft_cuda::{Arg, Driver, Error, Launch};
use qft_emulator::Emulator;

/// Runs one block of a kernel of `emulate/faulty.cu` whose first argument is its output of `threads` words.
fn run(kernel: &'static str, seed: u64, threads: u32, more: &[Arg]) -> Result<Vec<u32>, Error> {
    let emulator = Emulator::new(1 << 20, seed);
    let bytes = 4 * threads as usize;
    let out = emulator.alloc(bytes)?;
    let args: Vec<Arg> = [Arg::Ptr(out)].iter().chain(more).copied().collect();
    emulator.launch(kernel, Launch::blocks(1, threads), &args)?;
    read(&emulator, out, bytes)
}

fn read(emulator: &Emulator, address: u64, bytes: usize) -> Result<Vec<u32>, Error> {
    let mut got = vec![0; bytes];
    emulator.download(&mut got, address)?;
    Ok(got.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect())
}

fn failure(kernel: &'static str, threads: u32, more: &[Arg]) -> String {
    run(kernel, 0, threads, more).expect_err("the kernel is faulty").to_string()
}

#[test]
fn a_missing_barrier_is_a_wrong_result_under_any_order_of_warps() {
    let sums: Vec<u32> = (0..64).map(|i| i + 1 + (i + 32) % 64 + 1).collect();
    for seed in 0..8 {
        let run = |barrier| run("faulty_missing_barrier", seed, 64, &[Arg::U32(barrier)]).unwrap();
        assert_eq!(run(1), sums, "seed {seed}");
        assert_ne!(run(0), sums, "seed {seed}");
    }
}

#[test]
fn warp_wide_calls_need_the_lanes_of_their_mask() {
    let text = failure("faulty_divergent_shuffle", 32, &[]);
    assert!(text.contains("a warp-wide call that not all lanes of its mask reach"), "{text}");
    let got = run("faulty_not_half_shuffle", 0, 32, &[]).unwrap();
    let swapped = |i: u32| if i < 16 { i ^ 1 } else { i };
    assert_eq!(got, (0..32).map(swapped).collect::<Vec<_>>());
}

#[test]
fn a_block_barrier_needs_all_threads() {
    let text = failure("faulty_early_exit", 64, &[]);
    assert!(text.contains("a block barrier that not all threads reach"), "{text}");
}

#[test]
fn accesses_must_be_aligned_and_within_their_arrays() {
    let text = failure("faulty_misaligned", 1, &[]);
    assert!(text.contains("misaligned"), "{text}");
    assert_eq!(run("faulty_index", 0, 1, &[Arg::U32(7)]).unwrap(), [1]);
    let text = failure("faulty_index", 1, &[Arg::U32(9)]);
    assert!(text.contains("index out of bounds"), "{text}");
    let text = failure("faulty_shared_size", 1, &[]);
    assert!(text.contains("outside of device memory"), "{text}");
}

#[test]
fn an_asynchronous_copy_is_not_there_before_its_wait() {
    let emulator = Emulator::new(1 << 20, 0);
    let (input, output) = (emulator.alloc(128).unwrap(), emulator.alloc(128).unwrap());
    emulator.zero(input, 128).unwrap();
    let run = |wait| {
        let args = [Arg::Ptr(input), Arg::Ptr(output), Arg::U32(wait)];
        emulator.launch("faulty_missing_wait", Launch::blocks(1, 32), &args).unwrap();
        read(&emulator, output, 128).unwrap()
    };
    assert_eq!(run(1), [0; 32]);
    assert_eq!(run(0), [0xC3C3_C3C3; 32]);
}
