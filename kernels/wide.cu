// Wide channels: the maxima of an activation's columns, and the choice they lead to.
//
// Shapes: q i8 [rows, cols], scale f32 [rows], channels u32 [8], high i8 [rows, 8] or null; maxima f32 [cols], not
// negative; the choice u32 [8], rising, then NO_CHANNEL.
// Numerics: one product per element; comparisons, and a product by two. Maxima have no order, so results are the CPU's
// bit for bit. CPU twins: raise_maxima in crates/qft-tensor/src/cpu/wide.rs, select in crates/qft-tensor/src/wide.rs.
// Bound: the maxima memory, a byte an element; the choice latency, about 5 us: rounds read the maxima from L1.
#include "quad_access.cuh"
#include "wide.cuh"

constexpr uint32_t WARPS = 8;
constexpr uint32_t THREADS = WARPS * WARP;
constexpr uint32_t COLS = QUAD * WARP;

// Raises maxima[c] to the largest magnitude of column c in a strip of rows. A warp reads 128 columns of a row, a lane
// four. Magnitudes are ordered like their bits, so an integer maximum joins the strips. The first digit of a wide value
// is smaller than the whole, which follows. Grid: (ceil(cols / 128), ceil(rows / strip)).
extern "C" __global__ void __launch_bounds__(THREADS)
raise_maxima_i8_f32(const int8_t* __restrict__ q, const float* __restrict__ scale, const uint32_t* __restrict__ channels,
                    const int8_t* __restrict__ high, float* __restrict__ maxima, uint32_t rows, uint32_t cols,
                    uint32_t strip) {
    __shared__ float found[WARPS][COLS];
    const uint32_t warp = warp_index(), first_col = blockIdx.x * COLS, col = first_col + QUAD * lane_index();
    const uint32_t first_row = blockIdx.y * strip, last_row = min(rows - first_row, strip) + first_row;
    const bool aligned = quads_aligned(q, cols);
    float largest[QUAD] = {};
    for (uint32_t row = first_row + warp; row < last_row; row += WARPS) {
        int32_t digits[QUAD];
        load_quad(digits, q + static_cast<uint64_t>(row) * cols, col, 0, cols, aligned);
        const float unit = scale[row];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i)
            largest[i] = fmaxf(largest[i], __fmul_rn(static_cast<float>(abs(digits[i])), unit));
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) found[warp][QUAD * lane_index() + i] = largest[i];
    __syncthreads();
    auto raise = [&](uint32_t c, float magnitude) {
        atomicMax(reinterpret_cast<int*>(maxima) + c, __float_as_int(magnitude));
    };
    if (threadIdx.x < COLS && first_col + threadIdx.x < cols) {
        float column = 0.0f;
        for (uint32_t other = 0; other < WARPS; ++other) column = fmaxf(column, found[other][threadIdx.x]);
        raise(first_col + threadIdx.x, column);
    }
    if (high == nullptr) return;
    for (uint32_t place = 0; place < WIDE; ++place) {
        const uint32_t channel = channels[place];
        if (channel >= cols) return;
        if (channel - first_col >= COLS) continue;
        float whole = 0.0f;
        for (uint32_t row = first_row + threadIdx.x; row < last_row; row += THREADS) {
            const int32_t n = q[static_cast<uint64_t>(row) * cols + channel] +
                              WIDE_RADIX * high[static_cast<uint64_t>(row) * WIDE + place];
            whole = fmaxf(whole, __fmul_rn(static_cast<float>(abs(n)), scale[row]));
        }
        whole = warp_max(whole);
        if (lane_index() == 0) raise(channel, whole);
    }
}

constexpr uint32_t SELECT_THREADS = 1024;
constexpr uint32_t SELECT_WARPS = SELECT_THREADS / WARP;

__device__ __forceinline__ uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ __forceinline__ uint64_t warp_largest(uint64_t key) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        key = larger(key, __shfl_xor_sync(FULL_MASK, key, distance));
    return key;
}

// Of the 8 columns with the largest maxima (of equal ones the first), those whose maximum exceeds twice the largest of
// the others; `maxima` as bits. Grid: one block. Nine rounds, each of which finds the largest key below the last one's; a
// key is a maximum and, below it, its column inverted, so that keys differ and of equal maxima the first column has the
// largest.
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
