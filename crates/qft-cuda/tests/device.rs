//! The device itself: known answers, memory, and what it refuses.

mod common;

use common::{devices_under_test, emulator, host, upload};
use qft_cuda::{Arg, Driver, Error, Launch, ptx};
use qft_emulator::Emulator;
use qft_tensor::{Buffer, Device, Owner};
use std::collections::BTreeSet;

#[test]
fn devices_give_known_answers() {
    for (name, device) in devices_under_test() {
        if let Err(error) = device.self_test() {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn every_kernel_is_compiled_for_both_sides_with_the_same_parameters() {
    let emulated: BTreeSet<_> = qft_emulator::kernels().map(|(_, name)| name).collect();
    let compiled: BTreeSet<_> = ptx::entries().keys().copied().collect();
    assert_eq!(emulated, compiled, "run `cargo xtask kernels`");
    assert_eq!(emulated.len(), qft_emulator::kernels().count(), "names of kernels are unique");
    let emulator = Emulator::new(0, 0);
    for name in compiled {
        let expected = &ptx::entry(name).unwrap().signature;
        assert_eq!(&emulator.signature(name).unwrap(), expected, "{name}");
    }
}

#[test]
fn freed_blocks_come_back_and_are_counted() {
    let device = emulator(0);
    let driver_free = || device.driver().memory_info().unwrap().free_bytes;
    let before = driver_free();
    let pooled = Buffer::<f32>::zeros(&device, Owner::Activations, "pooled", 1000).unwrap();
    let state = Buffer::<i8>::zeros(&device, Owner::Weights, "state", 1000).unwrap();
    assert_eq!(before - driver_free(), 4032 + 1024);
    drop((pooled, state));
    assert_eq!(before - driver_free(), 4032, "a state goes back to the driver at once");
    let again = Buffer::<f32>::alloc(&device, Owner::Loss, "again", 1000).unwrap();
    assert_eq!(before - driver_free(), 4032, "a kept block is used again");
    drop(again);
    device.trim();
    assert_eq!(before, driver_free());
    assert_eq!(device.ledger().report().reserved_bytes, 0);
}

#[test]
fn too_much_memory_is_an_error_with_the_name_of_the_buffer() {
    let device = emulator(0);
    let error = Buffer::<f32>::alloc(&device, Owner::Loss, "logits", 1 << 40).unwrap_err();
    assert_eq!(error.to_string(), "out of memory: `logits` needs 4398046511104 bytes");
}

#[test]
fn copies_move_bytes() {
    for (name, device) in devices_under_test() {
        // More than goes through the staging memory at once.
        let values: Vec<u32> = (0..300_000).collect();
        let source = upload(&device, &values);
        let mut target = Buffer::<u32>::zeros(&device, Owner::Data, "target", 1000).unwrap();
        target.copy_from(&device, 10, &source, 500..600).unwrap();
        let got = target.to_vec(&device).unwrap();
        let copied = |i: u32| if (10..110).contains(&i) { i + 490 } else { 0 };
        assert_eq!(got, (0..1000).map(copied).collect::<Vec<_>>(), "{name}");
        assert_eq!(source.to_vec(&device).unwrap(), values, "{name}");
    }
}

#[test]
fn without_a_gpu_opening_one_is_an_error_that_says_so() {
    match qft_cuda::probe::device_count() {
        Ok(count) => {
            let error = qft_cuda::open(count, host()).unwrap_err();
            assert!(matches!(error, Error::NoDevice { .. }), "{error}");
        }
        Err(expected) => {
            assert_eq!(qft_cuda::open(0, host()).unwrap_err().to_string(), expected.to_string());
        }
    }
}

/// What a wrong kernel or launch does on the emulator, without the checks of the device in front of it.
#[test]
fn the_emulator_finds_accesses_outside_of_an_allocation() {
    let emulator = Emulator::new(1 << 20, 0);
    let (src, dst) = (emulator.alloc(4096).unwrap(), emulator.alloc(2048).unwrap());
    let run = |count: u64| {
        let args = [Arg::Ptr(src), Arg::Ptr(dst), Arg::U64(count)];
        emulator.launch("to_bf16_f32_bf16", Launch::blocks(4, 256), &args)
    };
    run(1024).unwrap();
    let error = run(1025).unwrap_err().to_string();
    assert!(error.contains("access outside of device memory"), "{error}");
    assert!(error.contains("block (0, 0, 0), thread (0, 0, 0)"), "{error}");
    // And goes on working.
    run(1024).unwrap();
    assert!(emulator.upload(dst + 2000, &[0; 64]).is_err());
}
