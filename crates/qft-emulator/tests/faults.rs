//! What the emulator is for: mistakes of kernels are found, and correct kernels are left alone.

use qft_cuda::{Arg, Driver, Error, Launch};
use qft_emulator::Emulator;

/// Runs one block of a kernel of `emulate/faulty.cu` whose first argument is its output of `threads` words.
fn run(kernel: &'static str, seed: u64, threads: u32, more: &[Arg]) -> Result<Vec<u32>, Error> {
    launch(kernel, seed, Launch::blocks(1, threads), threads, more)
}

/// Runs such a kernel, whose output has `words` words that are zero before.
fn launch(
    kernel: &'static str,
    seed: u64,
    launch: Launch,
    words: u32,
    more: &[Arg],
) -> Result<Vec<u32>, Error> {
    let emulator = Emulator::new(1 << 20, seed);
    let bytes = 4 * words as usize;
    let out = emulator.alloc(bytes)?;
    emulator.zero(out, bytes)?;
    let args: Vec<Arg> = [Arg::Ptr(out)].iter().chain(more).copied().collect();
    emulator.launch(kernel, launch, &args)?;
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

fn assert_race(result: Result<Vec<u32>, Error>, expected: &str) {
    let text = result.expect_err("the kernel is faulty").to_string();
    assert!(text.contains("a race: ") && text.contains(expected), "{text}");
}

#[test]
fn a_missing_barrier_is_a_race_under_any_order_of_warps() {
    let sums: Vec<u32> = (0..64).map(|i| i + 1 + (i + 32) % 64 + 1).collect();
    let opposite: Vec<u32> = (0..64).map(|i| (i + 32) % 64).collect();
    for seed in 0..8 {
        let run = |kernel, barrier| run(kernel, seed, 64, &[Arg::U32(barrier)]);
        assert_eq!(run("faulty_missing_barrier", 1).unwrap(), sums, "seed {seed}");
        assert_race(run("faulty_missing_barrier", 0), "by thread");
        assert_eq!(run("faulty_overwritten", 1).unwrap(), opposite, "seed {seed}");
        assert_race(run("faulty_overwritten", 0), "by thread");
    }
}

#[test]
fn lanes_of_a_warp_are_ordered_by_its_barrier_alone() {
    let run = |kernel, more: &[u32]| {
        run(kernel, 0, 32, &more.iter().map(|&x| Arg::U32(x)).collect::<Vec<_>>())
    };
    let neighbours: Vec<u32> = (0..32).map(|i| i ^ 1).collect();
    assert_eq!(run("faulty_lanes", &[1, 0]).unwrap(), neighbours);
    assert_race(run("faulty_lanes", &[0, 0]), "by thread");
    assert_race(run("faulty_lanes", &[0, 1]), "by thread");
    let rows: Vec<u32> = (0..32).map(|i| i / 4).collect();
    assert_eq!(run("faulty_matrices", &[1]).unwrap(), rows);
    assert_race(run("faulty_matrices", &[0]), "of 16 bytes");
}

#[test]
fn neighbouring_bytes_and_atomic_operations_are_no_race() {
    let run = |kernel, flag| run(kernel, 0, 64, &[Arg::U32(flag)]);
    let words = (0..16).map(|i| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| 4 * i + byte)));
    assert_eq!(run("faulty_bytes", 0).unwrap()[..16], words.collect::<Vec<_>>());
    assert_race(run("faulty_bytes", 1), "by thread");
    assert_eq!(run("faulty_counter", 1).unwrap(), [64; 64]);
    assert_race(run("faulty_counter", 0), "an atomic operation");
}

#[test]
fn blocks_are_not_ordered() {
    let run = |sharing| launch("faulty_blocks", 0, Launch::blocks(3, 1), 4, &[Arg::U32(sharing)]);
    assert_eq!(run(0).unwrap(), [1, 1, 1, 0]);
    assert_eq!(run(1).unwrap(), [0; 4]);
    assert_eq!(run(2).unwrap(), [3, 0, 0, 0]);
    for (sharing, expected) in [(3, "with a write"), (4, "of block"), (5, "an atomic operation")] {
        assert_race(run(sharing), expected);
        assert_race(run(sharing), "at byte 0 of the allocation");
    }
}

#[test]
fn launches_are_ordered() {
    let emulator = Emulator::new(1 << 20, 0);
    let out = emulator.alloc(4).unwrap();
    for _ in 0..3 {
        // Each alone writes the word.
        let args = [Arg::Ptr(out), Arg::U32(3)];
        emulator.launch("faulty_blocks", Launch::blocks(1, 1), &args).unwrap();
    }
    assert_eq!(read(&emulator, out, 4).unwrap(), [1]);
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
fn an_asynchronous_copy_is_not_there_before_its_wait_and_a_barrier() {
    let emulator = Emulator::new(1 << 20, 0);
    let (input, output) = (emulator.alloc(128).unwrap(), emulator.alloc(128).unwrap());
    emulator.zero(input, 128).unwrap();
    let run = |wait, barrier| {
        let args = [Arg::Ptr(input), Arg::Ptr(output), Arg::U32(wait), Arg::U32(barrier)];
        emulator.launch("faulty_missing_wait", Launch::blocks(1, 32), &args)?;
        read(&emulator, output, 128)
    };
    assert_eq!(run(1, 1).unwrap(), [0; 32]);
    assert_race(run(1, 0), "by thread");
    assert_race(run(0, 1), "with an asynchronous copy under way");
}

/// `faulty_warpgroup` with that swizzle and fault on `[64, 32]` and `[256, 32]` of these elements.
fn warpgroup(a: &[i8], b: &[i8], swizzle: u32, fault: u32) -> Result<Vec<u32>, Error> {
    let emulator = Emulator::new(1 << 20, 0);
    let upload = |values: &[i8]| -> Result<Arg, Error> {
        let address = emulator.alloc(values.len())?;
        emulator.upload(address, &values.iter().map(|&x| x as u8).collect::<Vec<_>>())?;
        Ok(Arg::Ptr(address))
    };
    let bytes = 64 * 256 * 4;
    let out = emulator.alloc(bytes)?;
    let args = [Arg::Ptr(out), upload(a)?, upload(b)?, Arg::U32(swizzle), Arg::U32(fault)];
    // The operands, and what their alignment takes.
    let row_bytes = if swizzle == 0 { 32 } else { 256 >> swizzle };
    let launch = Launch::blocks(1, 128).with_shared(1024 + (64 + 256) * row_bytes);
    emulator.launch("faulty_warpgroup", launch, &args)?;
    read(&emulator, out, bytes)
}

fn warpgroup_operands() -> (Vec<i8>, Vec<i8>) {
    let values = |len: usize, step: usize, modulus: usize| -> Vec<i8> {
        (0..len).map(|i| (i * step % modulus) as u8 as i8).collect()
    };
    (values(64 * 32, 89, 251), values(256 * 32, 57, 241))
}

#[test]
fn products_of_warpgroups_read_every_swizzle() {
    let (a, b) = warpgroup_operands();
    let dot = |x: &[i8], y: &[i8]| -> i32 {
        x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
    };
    let sums = |row| b.chunks(32).map(move |column| (3 + dot(row, column)) as u32);
    let expected: Vec<u32> = a.chunks(32).flat_map(sums).collect();
    for swizzle in 0..4 {
        assert!(warpgroup(&a, &b, swizzle, 0).unwrap() == expected, "swizzle {swizzle}");
        assert!(
            warpgroup(&a, &b, swizzle, 13).unwrap() == expected,
            "registers, swizzle {swizzle}"
        );
    }
}

#[test]
fn mistakes_around_products_of_warpgroups_are_found() {
    let (a, b) = warpgroup_operands();
    for (fault, expected) in [
        (1, "before the wait of the asynchronous copy"),
        (2, "without a fence of the async proxy"),
        (3, "without wgmma.fence"),
        (4, "whose swizzle does not begin at its alignment"),
        (5, "outside of dynamic shared memory"),
        (6, "ends before it has waited for a product"),
        (8, "sums that are written while a product computes them"),
        (9, "overwritten while a product reads them"),
        (10, "warps differ"),
        (11, "warps differ"),
        (12, "not all warps of the warpgroup reach"),
        (14, "behind the loading of its registers"),
        (15, "registers that are overwritten"),
    ] {
        let text = warpgroup(&a, &b, 1, fault).expect_err("the kernel is faulty").to_string();
        assert!(text.contains(expected), "fault {fault}: {text}");
    }
    // Sums that are read too early are garbage.
    let got = warpgroup(&a, &b, 1, 7).unwrap();
    assert_eq!((got[0], got[1]), (0xC3C3_C3C3, warpgroup(&a, &b, 1, 0).unwrap()[1]));
}
