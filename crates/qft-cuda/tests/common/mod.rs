//! Devices and data for parity tests.

#![allow(dead_code, unused_imports, unused_macros)] // Every test uses a part of it.

use qft_cuda::Cuda;
use qft_emulator::Emulator;
use qft_tensor::{Buffer, Cpu, CpuConfig, Device, Element, Host, Owner, QMatrix};
use qft_testing::rng::TestRng;
use std::sync::{Arc, LazyLock};

/// Memory of an emulated device.
const EMULATED_BYTES: u64 = 4 << 30;

/// Seeds by which the emulator orders warps.
const SEEDS: [u64; 2] = [1, 2];

/// The CPU backend: the specification.
pub(crate) fn cpu() -> Cpu {
    Cpu::new(CpuConfig::detect().expect("the instruction set is known")).expect("threads start")
}

/// What works for the devices of a test.
pub(crate) fn host() -> Arc<Host> {
    static HOST: LazyLock<Arc<Host>> = LazyLock::new(|| {
        let config = CpuConfig::detect().expect("the instruction set is known");
        Arc::new(Host::new(config).expect("threads start"))
    });
    Arc::clone(&HOST)
}

/// An emulated device whose warps are ordered by `seed`.
pub(crate) fn emulator(seed: u64) -> Cuda {
    Cuda::new(Arc::new(Emulator::new(EMULATED_BYTES, seed)), host()).expect("memory for scratch")
}

/// What a parity test runs on, with a name for messages: emulators, and the GPU where there is one. With
/// `QFT_REQUIRE_GPU=1` there must be one; with `QFT_ONLY_GPU=1` it is all.
pub(crate) fn devices_under_test() -> Vec<(String, Cuda)> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let alone = is_set("QFT_ONLY_GPU");
    let emulated = SEEDS.into_iter().filter(|_| !alone);
    let mut devices: Vec<_> =
        emulated.map(|seed| (format!("emulator, seed {seed}"), emulator(seed))).collect();
    match qft_cuda::open(0, host()) {
        Ok(gpu) => devices.push((gpu.driver().properties().name.clone(), gpu)),
        Err(error) if alone || is_set("QFT_REQUIRE_GPU") => {
            panic!("QFT_REQUIRE_GPU is set: {error}")
        }
        Err(error) => println!("tested without a GPU: {error}"),
    }
    devices
}

/// A buffer with these values.
pub(crate) fn upload<T: Element>(device: &dyn Device, values: &[T]) -> Buffer<T> {
    Buffer::from_host(device, Owner::Workspace, "test", values).expect("memory")
}

/// A buffer of unspecified values.
pub(crate) fn alloc<T: Element>(device: &dyn Device, len: usize) -> Buffer<T> {
    Buffer::alloc(device, Owner::Workspace, "test", len).expect("memory")
}

/// The bits of floats, for comparisons in which NaN equals itself and the sign of zero matters.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The functions of a `Driver` that a wrapper in field `$driver` passes on: all but what tells of the device, waits for it
/// and starts kernels.
macro_rules! pass_on {
    ($driver:tt) => {
        fn memory_info(&self) -> Result<qft_cuda::MemoryInfo, qft_cuda::Error> {
            self.$driver.memory_info()
        }
        fn alloc(&self, bytes: usize) -> Result<u64, qft_cuda::Error> {
            self.$driver.alloc(bytes)
        }
        fn free(&self, address: u64) -> Result<(), qft_cuda::Error> {
            self.$driver.free(address)
        }
        fn upload(&self, dst: u64, src: &[u8]) -> Result<(), qft_cuda::Error> {
            self.$driver.upload(dst, src)
        }
        fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<(), qft_cuda::Error> {
            self.$driver.copy(dst, src, bytes)
        }
        fn copy_pieces(
            &self,
            dst: u64,
            to: qft_tensor::Pieces,
            src: u64,
            from: qft_tensor::Pieces,
        ) -> Result<(), qft_cuda::Error> {
            self.$driver.copy_pieces(dst, to, src, from)
        }
        fn zero(&self, dst: u64, bytes: usize) -> Result<(), qft_cuda::Error> {
            self.$driver.zero(dst, bytes)
        }
        fn signature(&self, kernel: &str) -> Result<qft_cuda::Signature, qft_cuda::Error> {
            self.$driver.signature(kernel)
        }
    };
}
pub(crate) use pass_on;
