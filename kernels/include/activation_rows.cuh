// Rows of activations, one block of ROW_THREADS threads to a row: sums in the order of the CPU backend, and
// quantization to nearest with one scale.
#pragma once
#include "numeric.cuh"
#include "rotation.cuh"

constexpr uint32_t ROW_THREADS = 256;
constexpr uint32_t ROW_WARPS = ROW_THREADS / WARP;

// The sum of 16 lanes, as a tree: halves onto each other. Called by a whole warp whose thread l holds lane l % 16;
// every thread gets the result. Addition commutes, so the butterfly has the bits of the tree.
__device__ __forceinline__ float sum_lanes(float lane) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance >>= 1)
        lane = __fadd_rn(lane, __shfl_xor_sync(FULL_MASK, lane, distance));
    return lane;
}

// A sum over the row of which `stage(i)` leaves operand i in shared memory at i % TILE, and `add(lane, at)` adds the
// operand at a place to a lane. All threads get the result. `total` is one float of shared memory.
//
// The first warp walks the lanes, at most TILE / 16 steps a tile: that is the price of the CPU's bits, and it
// overlaps the loads of the other blocks of the multiprocessor. Both halves of the warp do the same work.
template <uint32_t TILE, class Stage, class Add>
__device__ __forceinline__ float sum_row(uint32_t cols, float* total, Stage stage, Add add) {
    float lane = 0.0f;
    for (uint32_t first = 0; first < cols; first += TILE) {
        const uint32_t end = min(cols - first, TILE);
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < end; i += ROW_THREADS) stage(first + i, i);
        __syncthreads();
        if (threadIdx.x < WARP) {
#pragma unroll 8
            for (uint32_t i = threadIdx.x % LANES; i < end; i += LANES) lane = add(lane, i);
        }
        __syncthreads();
    }
    if (threadIdx.x < WARP) {
        lane = sum_lanes(lane);
        if (threadIdx.x == 0) *total = lane;
    }
    __syncthreads();
    return *total;
}

// Quantizes the row `value(i)`, rotated or as it is, and returns to q and scale what QuantizeRows does. A rotated row waits for its
// scale in `staged`, cols floats of shared memory, which may be where `value` reads it; a row that is not rotated, or has no such
// place, is computed twice. A NaN raises no maximum and becomes 0; a row whose absmax is below 1e-30 gets scale 0. `shared` holds
// ROW_WARPS floats.
template <class Value>
__device__ __forceinline__ void quantize_row(uint32_t cols, bool rotated, float* staged, float* shared, int8_t* __restrict__ q,
                                             float* scale, Value value) {
    float largest = 0.0f;
    const auto raise = [&](uint32_t, float v) { largest = fmaxf(largest, fabsf(v)); };
    if (rotated && staged != nullptr) {
        walk_rotated(cols, value, [&](uint32_t i, float v) {
            raise(i, v);
            staged[i] = v;
        });
    } else if (rotated) {
        // Few values at a time: they may take many registers each.
        walk_rotated<8>(cols, value, raise);
    } else {
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) raise(i, value(i));
    }
    largest = block_max<ROW_WARPS>(largest, shared);
    const float inverse = inverse_scale_of(largest);
    const auto store = [&](uint32_t i, float v) { q[i] = static_cast<int8_t>(nearest_i8(__fmul_rn(v, inverse))); };
    if (rotated && staged != nullptr) {
        // Shown by the barrier of the maximum.
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) store(i, staged[i]);
    } else if (rotated) {
        walk_rotated<8>(cols, value, store);
    } else {
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) store(i, value(i));
    }
    if (threadIdx.x == 0) *scale = scale_of(largest);
}
