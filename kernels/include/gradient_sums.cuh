// Sums of squares of gradients, and what both kinds of update share.
#pragma once
#include "common.cuh"

// 1, -1, or 0 for zero and NaN.
__device__ __forceinline__ float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; }

// A butterfly from distance 16 to 1; every lane gets the sum.
__device__ __forceinline__ double warp_total(double value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(FULL_MASK, value, distance);
    return value;
}

// The sum over a block of `warps` warps, warp after warp; every thread gets it. `shared` has a place for each warp and is
// free again after the block's next barrier.
__device__ __forceinline__ double block_total(double value, double* shared, uint32_t warps) {
    const double own = warp_total(value);
    if (lane_index() == 0) shared[warp_index()] = own;
    __syncthreads();
    double total = 0.0;
    for (uint32_t warp = 0; warp < warps; ++warp) total += shared[warp];
    return total;
}
