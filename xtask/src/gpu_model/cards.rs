//! Cards, as far as the model needs to know them.
//!
//! Rates of tensor cores, clocks and numbers of multiprocessors are of NVIDIA's data sheets: H200 (that of H100 SXM's chip: 1979
//! INT8 TOPS, 989 bf16 TFLOPS), "NVIDIA Ada GPU Architecture" (RTX 4090: 660.6, 165.2) and "NVIDIA Ampere GA102 GPU Architecture"
//! (RTX A6000: 309.7, 154.8), all dense. Rates of other units are of the CUDA C++ Programming Guide, "Arithmetic Instructions".

use super::resources::Resource;

/// A card.
#[derive(Debug, Clone, Copy)]
pub(super) struct Card {
    pub(super) name: &'static str,
    pub(super) compute_capability: (u32, u32),
    pub(super) multiprocessors: u32,
    /// The most shared memory that a block can have.
    pub(super) max_shared_bytes: u32,
    /// The threads that a multiprocessor can hold.
    pub(super) threads: u32,
    pub(super) memory_bytes: u64,
    /// Cycles in a second while it computes.
    pub(super) hertz: f64,
    /// Bytes that copying within its memory reads and writes in a second: measured on an H200, of the others nine tenths of what their
    /// data sheets say (1008 and 768 GB/s).
    pub(super) copy_bytes_per_second: f64,
    /// Bytes that a multiprocessor gets from the second cache in a cycle while all of them ask. Assumed.
    pub(super) cache_bytes_per_cycle: f64,
    /// Multiplications of INT8 and of bf16, by instructions of a warp, in a cycle of a multiprocessor.
    int8: f64,
    bf16: f64,
    /// Instructions of warps in double precision in a cycle of a multiprocessor.
    double: f64,
}

const GIB: u64 = 1 << 30;

/// The cards of the model.
pub(super) const CARDS: [Card; 3] = [
    Card {
        name: "H200",
        compute_capability: (9, 0),
        multiprocessors: 132,
        max_shared_bytes: 227 << 10,
        threads: 2048,
        memory_bytes: 139 * GIB,
        hertz: 1.83e9,
        copy_bytes_per_second: 4.3e12,
        cache_bytes_per_cycle: 36.0,
        // By instructions of a warp five eighths of what those of warpgroups reach: assumed, as `ops/gemm.rs` of qft-cuda does.
        int8: 4096.0 * 0.625,
        bf16: 2048.0 * 0.625,
        double: 2.0,
    },
    Card {
        name: "RTX 4090",
        compute_capability: (8, 9),
        multiprocessors: 128,
        max_shared_bytes: 99 << 10,
        threads: 1536,
        memory_bytes: 24 * GIB,
        hertz: 2.52e9,
        copy_bytes_per_second: 0.92e12,
        cache_bytes_per_cycle: 16.0,
        int8: 1024.0,
        bf16: 256.0,
        double: 1.0 / 16.0,
    },
    Card {
        name: "RTX A6000",
        compute_capability: (8, 6),
        multiprocessors: 84,
        max_shared_bytes: 99 << 10,
        threads: 1536,
        memory_bytes: 48 * GIB,
        hertz: 1.8e9,
        copy_bytes_per_second: 0.68e12,
        cache_bytes_per_cycle: 16.0,
        int8: 1024.0,
        bf16: 512.0,
        double: 1.0 / 16.0,
    },
];

impl Card {
    /// How much of a resource a multiprocessor has in a cycle.
    pub(super) fn rate(&self, resource: Resource) -> f64 {
        match resource {
            Resource::Issue => 4.0,
            Resource::Special => 0.5,
            Resource::Double => self.double,
            Resource::Shared => 1.0,
            Resource::Int8 => self.int8,
            Resource::Warpgroup => 4096.0,
            Resource::Bf16 => self.bf16,
        }
    }
}
