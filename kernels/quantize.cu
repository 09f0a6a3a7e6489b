// Quantization: `q = round(x f / s)` with `s = absmax(x f) / 127` per row or column; and back.
//
// Shapes: x, out f32 [rows, cols] with a stride; q i8 [rows, cols], dense; fold f32, one factor per column (rows)
// or per row (columns), or null; scale f32 [rows] or [cols].
// Rounding: to nearest, ties to even, or stochastic with the 16 bits of row random_row + r, element c (stochastic.cuh); NaN
// gives 0.
// Accumulator: none, maxima only; they have no order, so results are the CPU's bit for bit, whatever the grid.
// CPU twin: crates/qft-tensor/src/cpu/quantize.rs.
// Bound: memory. quantize_rows 5 bytes an element and a second read of x that a cache serves (a row of 16384 is 64 KiB);
// columns 9, since the maximum of a column is known only at its end. Random bits cost about 15 instructions an element.
#include "numeric.cuh"
#include "stochastic.cuh"

constexpr uint32_t WARPS = 8;
constexpr uint32_t THREADS = WARP * WARPS;

// Columns of a row that a warp handles between two draws of random words.
constexpr uint32_t WINDOW = 2 * HALF_BLOCK;

// A block per row, of 1 to 8 warps as its length asks for; a warp takes every `warps`-th window of the row. A lane has two quads
// in a window. Grid: rows.
extern "C" __global__ void __launch_bounds__(THREADS)
quantize_rows_f32_i8(const float* __restrict__ x, uint64_t stride, const float* __restrict__ fold, int8_t* __restrict__ q,
                     float* __restrict__ scale, uint32_t cols, uint32_t stochastic, uint64_t seed,
                     uint32_t step, uint32_t tensor, uint32_t purpose, uint32_t random_row) {
    __shared__ float maxima[WARPS];
    __shared__ __align__(16) uint32_t words[WARPS][WARP_WORDS];
    const uint32_t warps = blockDim.x / WARP, warp = warp_index(), lane = lane_index();
    const uint32_t row = blockIdx.x;
    const float* const x_row = x + row * stride;
    int8_t* const q_row = q + static_cast<uint64_t>(row) * cols;
    const bool x_aligned = quads_aligned(x, stride), q_aligned = quads_aligned(q, cols);
    const bool fold_aligned = is_aligned(fold, 16);
    const uint32_t windows = (cols - 1) / WINDOW + 1;

    float absmax = 0.0f;
    for (uint32_t window = warp; window < windows; window += warps) {
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
            const uint32_t col = window * WINDOW + half * HALF_BLOCK + QUAD * lane;
            float v[QUAD], f[QUAD];
            load_quad(v, x_row, col, 0, cols, x_aligned);
            if (fold) load_quad(f, fold, col, 0, cols, fold_aligned);
            // The maximum of a number and NaN is the number: a NaN raises nothing.
#pragma unroll
            for (uint32_t i = 0; i < QUAD; ++i) absmax = fmaxf(absmax, fabsf(fold ? v[i] * f[i] : v[i]));
        }
    }
    absmax = warp_max(absmax);
    if (lane == 0) maxima[warp] = absmax;
    __syncthreads();
    for (uint32_t other = 0; other < warps; ++other) absmax = fmaxf(absmax, maxima[other]);
    if (threadIdx.x == 0) scale[row] = scale_of(absmax);
    const float inverse = inverse_scale_of(absmax);

    const Philox stream = philox(seed, step, tensor, purpose);
    const uint32_t first_block = (random_row + row) * blocks_per_row(cols);
    for (uint32_t window = warp; window < windows; window += warps) {
        if (stochastic) draw_words(words[warp], stream, first_block + 2 * window, first_block + 2 * window + 1);
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
            const uint32_t col = window * WINDOW + half * HALF_BLOCK + QUAD * lane;
            float v[QUAD], f[QUAD], u[QUAD] = {};
            load_quad(v, x_row, col, 0, cols, x_aligned);
            if (fold) load_quad(f, fold, col, 0, cols, fold_aligned);
            if (stochastic) element_offsets(u, words[warp] + half * SECOND_BLOCK);
            int32_t rounded[QUAD];
#pragma unroll
            for (uint32_t i = 0; i < QUAD; ++i)
                rounded[i] = nearest_i8((fold ? v[i] * f[i] : v[i]) * inverse + u[i]);
            store_quad(q_row, col, 0, cols, q_aligned, rounded);
        }
    }
}

// Raises scale[c] to the largest magnitude of column c in a strip of rows; it must be zero before. A warp reads 128
// columns of a row, a lane four. Magnitudes are ordered like their bits, so an integer maximum joins the strips.
// Grid: (ceil(cols / 128), ceil(rows / strip)).
extern "C" __global__ void __launch_bounds__(THREADS)
column_absmax_f32(const float* __restrict__ x, uint64_t stride, const float* __restrict__ fold, float* __restrict__ scale,
                  uint32_t rows, uint32_t cols, uint32_t strip) {
    __shared__ float maxima[WARPS][HALF_BLOCK];
    const uint32_t warp = warp_index(), first_col = blockIdx.x * HALF_BLOCK, col = first_col + QUAD * lane_index();
    const uint32_t first_row = blockIdx.y * strip, last_row = min(rows - first_row, strip) + first_row;
    const bool aligned = quads_aligned(x, stride);
    float absmax[QUAD] = {};
    for (uint32_t row = first_row + warp; row < last_row; row += WARPS) {
        const float factor = fold ? fold[row] : 1.0f;
        float v[QUAD];
        load_quad(v, x + row * stride, col, 0, cols, aligned);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) absmax[i] = fmaxf(absmax[i], fabsf(v[i] * factor));
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) maxima[warp][QUAD * lane_index() + i] = absmax[i];
    __syncthreads();
    if (threadIdx.x < HALF_BLOCK && first_col + threadIdx.x < cols) {
        float largest = 0.0f;
        for (uint32_t other = 0; other < WARPS; ++other) largest = fmaxf(largest, maxima[other][threadIdx.x]);
        atomicMax(reinterpret_cast<int*>(scale) + first_col + threadIdx.x, __float_as_int(largest));
    }
}

// Quantizes columns whose largest magnitudes stand in `absmax`. A warp takes 128 columns of two rows at a time, since a
// row's 128 columns need half of what it draws. Grid as column_absmax_f32.
extern "C" __global__ void __launch_bounds__(THREADS)
quantize_cols_f32_i8(const float* __restrict__ x, uint64_t stride, const float* __restrict__ fold,
                     const float* __restrict__ absmax, int8_t* __restrict__ q, uint32_t rows, uint32_t cols,
                     uint32_t strip, uint32_t stochastic, uint64_t seed, uint32_t step, uint32_t tensor, uint32_t purpose,
                     uint32_t random_row) {
    __shared__ __align__(16) uint32_t words[WARPS][WARP_WORDS];
    const uint32_t warp = warp_index(), col = blockIdx.x * HALF_BLOCK + QUAD * lane_index();
    const uint32_t first_row = blockIdx.y * strip, last_row = min(rows - first_row, strip) + first_row;
    const bool x_aligned = quads_aligned(x, stride), q_aligned = quads_aligned(q, cols);
    float inverse[QUAD];
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) inverse[i] = col + i < cols ? inverse_scale_of(absmax[col + i]) : 0.0f;
    const Philox stream = philox(seed, step, tensor, purpose);
    for (uint32_t pair = first_row + 2 * warp; pair < last_row; pair += 2 * WARPS) {
        const uint32_t block = (random_row + pair) * blocks_per_row(cols) + blockIdx.x;
        if (stochastic) draw_words(words[warp], stream, block, block + blocks_per_row(cols));
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
            const uint32_t row = pair + half;
            if (row >= last_row) break;
            const float factor = fold ? fold[row] : 1.0f;
            float v[QUAD], u[QUAD] = {};
            load_quad(v, x + row * stride, col, 0, cols, x_aligned);
            if (stochastic) element_offsets(u, words[warp] + half * SECOND_BLOCK);
            int32_t rounded[QUAD];
#pragma unroll
            for (uint32_t i = 0; i < QUAD; ++i) rounded[i] = nearest_i8(v[i] * factor * inverse[i] + u[i]);
            store_quad(q + static_cast<uint64_t>(row) * cols, col, 0, cols, q_aligned, rounded);
        }
    }
}

// Turns largest magnitudes into scales, in place. A thread per column.
extern "C" __global__ void __launch_bounds__(THREADS) column_scales_f32(float* __restrict__ scale, uint32_t cols) {
    const uint32_t col = blockIdx.x * THREADS + threadIdx.x;
    if (col < cols) scale[col] = scale_of(scale[col]);
}

// out = q * scale, one per row or per column. A warp per row and 1024 columns, a lane a quad at a time. Grid: (ceil(rows / 8), ceil(cols / 1024)).
constexpr uint32_t STRETCH = 1024;

extern "C" __global__ void __launch_bounds__(THREADS)
dequantize_i8_f32(const int8_t* __restrict__ q, const float* __restrict__ scale, uint32_t per_row,
                  float* __restrict__ out, uint64_t stride, uint32_t rows, uint32_t cols) {
    const uint32_t row = blockIdx.x * WARPS + warp_index();
    if (row >= rows) return;
    const int8_t* const q_row = q + static_cast<uint64_t>(row) * cols;
    float* const out_row = out + row * stride;
    const bool q_aligned = quads_aligned(q, cols), out_aligned = quads_aligned(out, stride);
    const uint32_t first = blockIdx.y * STRETCH, last = min(cols - first, STRETCH) + first;
    for (uint32_t col = first + QUAD * lane_index(); col < last; col += QUAD * WARP) {
        int32_t code[QUAD];
        float factor[QUAD], value[QUAD];
        load_quad(code, q_row, col, 0, cols, q_aligned);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) factor[i] = per_row ? scale[row] : col + i < cols ? scale[col + i] : 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) value[i] = static_cast<float>(code[i]) * factor[i];
        store_quad(out_row, col, 0, cols, out_aligned, value);
    }
}
