// The choice of wide channels: of the 8 columns with the largest maxima (of equal ones the first), those whose maximum
// exceeds twice the largest of the others.
//
// Shapes: maxima u32 [cols], the bits of floats that are not negative; channels u32 [8], rising, then NO_CHANNEL.
// Grid: one block. Nine rounds, each of which finds the largest key below the last one's; a key is a maximum and, below
// it, its column inverted, so that keys differ and of equal maxima the first column has the largest.
// Numerics: comparisons and one product by two. CPU twin: crates/qft-tensor/src/wide.rs, select.
// Bound: latency, about 5 us: rounds read the maxima from L1.
#include "wide.cuh"

constexpr uint32_t SELECT_THREADS = 1024;
constexpr uint32_t SELECT_WARPS = SELECT_THREADS / WARP;

__device__ __forceinline__ uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ __forceinline__ uint64_t warp_largest(uint64_t key) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        key = larger(key, __shfl_xor_sync(FULL_MASK, key, distance));
    return key;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
wide_select_u32(const uint32_t* __restrict__ maxima, uint32_t* __restrict__ channels, uint32_t cols) {
    __shared__ uint64_t found[SELECT_WARPS];
    uint64_t top[WIDE + 1], below = ~0ull;
#pragma unroll
    for (uint32_t round = 0; round <= WIDE; ++round) {
        uint64_t best = 0;
        for (uint32_t col = threadIdx.x; col < cols; col += SELECT_THREADS) {
            const uint64_t key = static_cast<uint64_t>(maxima[col]) << 32 | (NO_CHANNEL - col);
            if (key < below) best = larger(best, key);
        }
        best = warp_largest(best);
        if (lane_index() == 0) found[warp_index()] = best;
        __syncthreads();
        top[round] = below = warp_largest(found[lane_index()]);
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    const float border = __fmul_rn(2.0f, __uint_as_float(static_cast<uint32_t>(top[WIDE] >> 32)));
    uint32_t chosen[WIDE];
#pragma unroll
    for (uint32_t place = 0; place < WIDE; ++place) {
        const bool stands_out = cols > WIDE && __uint_as_float(static_cast<uint32_t>(top[place] >> 32)) > border;
        chosen[place] = stands_out ? NO_CHANNEL - static_cast<uint32_t>(top[place]) : NO_CHANNEL;
    }
    // A place is the number of smaller ones; those that are not used stay behind all others, in their order.
#pragma unroll
    for (uint32_t i = 0; i < WIDE; ++i) {
        uint32_t place = 0;
#pragma unroll
        for (uint32_t j = 0; j < WIDE; ++j) place += chosen[j] < chosen[i] || (chosen[j] == chosen[i] && j < i);
        channels[place] = chosen[i];
    }
}
