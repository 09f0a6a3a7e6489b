//! bf16 conversions against the CPU, bit for bit: they are roundings and moves.

mod common;

use common::{alloc, bits, cpu, devices_under_test, upload};
use half::bf16;
use qft_autograd::LayerOps;
use qft_autograd::ops::{FromBf16, ToBf16};
use qft_tensor::{Device, DeviceKind};

/// Lengths around a vector of 4, a block of 256 threads, and beyond.
const LENGTHS: [usize; 9] = [0, 1, 3, 4, 5, 255, 1023, 1024, 5000];

/// Every kind of float: bit patterns spread over all of them, and the special ones.
fn floats(len: usize) -> Vec<f32> {
    let special = [0x7F80_0000, 0xFF80_0000, 0x7F80_0001, 0xFFC0_0001, 0x8000_0000, 1, 0x7F7F_FFFF];
    let spread = (0..u32::MAX).step_by(858_993);
    special.into_iter().chain(spread).cycle().take(len).map(f32::from_bits).collect()
}

#[test]
fn to_bf16_equals_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for len in LENGTHS {
            let values = floats(len);
            let run = |on: &dyn Device, convert: &dyn Fn(ToBf16<'_>)| -> Vec<u16> {
                let src = upload(on, &values);
                let mut dst = alloc::<bf16>(on, len);
                convert(ToBf16 { src: &src, dst: &mut dst });
                dst.to_vec(on).unwrap().iter().map(|v| v.to_bits()).collect()
            };
            let expected = run(&cpu, &|op| cpu.to_bf16(op).unwrap());
            let got = run(&device, &|op| device.convert_to_bf16(op).unwrap());
            assert_eq!(expected, got, "{name}, {len} elements");
        }
    }
}

#[test]
fn from_bf16_equals_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for len in LENGTHS {
            let values: Vec<bf16> = (0..len).map(|i| bf16::from_bits((i * 7919) as u16)).collect();
            let run = |on: &dyn Device, convert: &dyn Fn(FromBf16<'_>)| {
                let src = upload(on, &values);
                let mut dst = alloc::<f32>(on, len);
                convert(FromBf16 { src: &src, dst: &mut dst });
                bits(&dst.to_vec(on).unwrap())
            };
            let expected = run(&cpu, &|op| cpu.from_bf16(op).unwrap());
            let got = run(&device, &|op| device.convert_from_bf16(op).unwrap());
            assert_eq!(expected, got, "{name}, {len} elements");
        }
    }
}

#[test]
fn a_buffer_of_another_device_is_refused() {
    let (cpu, device) = (cpu(), common::emulator(0));
    let src = upload(&cpu, &[1.0f32]);
    let mut dst = alloc::<bf16>(&device, 1);
    let error = device.convert_to_bf16(ToBf16 { src: &src, dst: &mut dst }).unwrap_err();
    assert_eq!(device.kind(), DeviceKind::Cuda(0));
    assert_eq!(
        error.to_string(),
        "to_bf16: buffer `test` lives on cpu, but the operation runs on cuda:0"
    );
}
