// Quantized Lion on the INT8 planes of a weight: docs/ALGORITHM.md#quantized-lion, and the operation in
// crates/qft-optim/src/ops.rs (LionUpdate), which gives every step of the arithmetic.
//
// Shapes: q, m i8 [N, K]; r as in fixed_point.cuh; scale f32 [N]; m_scale bf16 [N, ceil(K / 128)]; features as in
// features.cuh, or null; grad f32 [rows, K] with a stride, for the rows from `first_row` on; squares f64 [rows] and grown
// u32 [rows] receive each row's sum of squares of the gradient, and whether its scale grew.
// Grid: a block per row, of a warp for each 512 columns, 8 at most. A warp takes 128 columns at a time: the block of one
// momentum scale, whose 128 random words are one counter of Philox per lane. A lane has four neighbours: 16 bytes of the
// gradient, 4 of each plane. Everything is read once and written once: whether a row needs a larger scale is known only at
// its end, so the new weights wait in shared memory (rows up to 16384), or for longer rows in `long_rows` i32
// [gridDim.x, ceil(K / 128) * 128], where a block takes every gridDim.x-th row.
// Rounding: stochastic or to nearest; bit for bit that of the CPU. Squares: f32 within a thread, f64 between threads, in a
// fixed order: deterministic, but not the CPU's order.
// CPU twin: crates/qft-optim/src/cpu/lion.rs.
// Bound: memory, 8 to 10 bytes a weight; about 100 instructions a weight, a fifth of them Philox, take as long on an H100.
#include "features.cuh"
#include "fixed_point.cuh"
#include "stochastic.cuh"
#include "sums.cuh"

constexpr uint32_t MAX_WARPS = 8;

// Elements that share a momentum scale.
constexpr uint32_t BLOCK = 128;

// Below this a momentum block counts as zero.
constexpr float TINY = 1e-30f;
constexpr int32_t MAX_Q = 127;
constexpr int32_t GROWN_MAX = 124;
constexpr float MAX_STEP = 1048576.0f;
constexpr uint32_t RESCALE_PURPOSE = 1u << 31;

// What all rows of an update share.
struct Step {
    float grad_scale, lr, beta1, beta2, weight_decay;
    // 1 to round stochastically, 0 to round to nearest.
    float dither;
    Philox stream;
    uint32_t cols;
};

// To -MAX_STEP..=MAX_STEP; NaN becomes -MAX_STEP.
__device__ __forceinline__ float limit_step(float x) {
    const float raised = x > -MAX_STEP ? x : -MAX_STEP;
    return raised < MAX_STEP ? raised : MAX_STEP;
}

__device__ __forceinline__ int32_t nearest(float x) {
    return static_cast<int32_t>(__float_as_uint(x + 12582912.0f) - __float_as_uint(12582912.0f));
}

// Factor from code |code| (square root) or code (linear) to the momentum.
template <bool SQRT>
__device__ __forceinline__ float momentum_unit(uint16_t scale) {
    return __fdiv_rn(f32_from_bf16(scale), SQRT ? 16129.0f : 127.0f);
}

template <bool SQRT>
__device__ __forceinline__ float decode_momentum(int32_t code, float unit) {
    return static_cast<float>(SQRT ? code * abs(code) : code) * unit;
}

// The next bf16 that is not smaller than `max`: qft_optim::momentum::block_scale.
__device__ __forceinline__ uint16_t block_scale(float max) {
    if (max < TINY) return 0;
    const uint32_t up = (__float_as_uint(max) + 0xFFFFu) >> 16;
    return static_cast<uint16_t>(up < 0x7F7Fu ? up : 0x7F7Fu);
}

template <bool SQRT>
__device__ __forceinline__ int32_t encode_momentum(float m, float inverse, float u) {
    const float scaled = fabsf(m) * inverse;
    // Not a number becomes zero.
    const float a = scaled > 0.0f ? scaled : 0.0f;
    const float floor = floorf(SQRT ? __fsqrt_rn(a) : a);
    const float rest = a - (SQRT ? floor * floor : floor), width = SQRT ? 2.0f * floor + 1.0f : 1.0f;
    const float code = rest > u * width ? floor + 1.0f : floor;
    const float magnitude = code < 127.0f ? code : 127.0f;
    return nearest(m < 0.0f ? -magnitude : magnitude);
}

// Updates a protected weight with the 16 bits of its element.
__device__ __forceinline__ uint16_t update_feature(const Step& step, uint16_t value, float direction, uint32_t bits) {
    const float v = f32_from_bf16(value);
    const float moved = v - step.lr * (direction + step.weight_decay * v);
    // Adding below the last bit kept and cutting there rounds up with the probability of the fraction.
    return step.dither == 0.0f ? bf16_from_f32(moved) : static_cast<uint16_t>((__float_as_uint(moved) + bits) >> 16);
}

// Word e % 64 of random block `first + e / 64`, computed alone.
__device__ __forceinline__ uint32_t word_of(const Philox& stream, uint32_t first, uint32_t e) {
    const uint32_t word = e % BLOCK_WORDS;
    const uint4 drawn = philox_words(stream, PHILOX_LANES * (first + e / BLOCK_WORDS) + word % PHILOX_LANES);
    const uint32_t output = word / PHILOX_LANES;
    return output == 0 ? drawn.x : output == 1 ? drawn.y : output == 2 ? drawn.z : drawn.w;
}

// Expresses a lane's four fixed-point weights in the row's new scale. All lanes of the warp call together.
__device__ __forceinline__ void rescale(int32_t (&k)[QUAD], const Step& step, uint32_t random_block, float ratio,
                                        uint32_t* words) {
    Philox stream = step.stream;
    stream.purpose ^= RESCALE_PURPOSE;
    float u[QUAD];
    draw_words(words, stream, random_block, random_block);
    element_offsets(u, words);
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) k[i] = nearest(static_cast<float>(k[i]) * ratio + step.dither * u[i]);
}

struct Planes {
    int8_t *q, *r, *m;
    float* scale;
    uint16_t *m_scale, *values;
    const uint8_t *feature_cols, *counts;
    const uint32_t* row_start;
};

// Updates the features of row n from the old momentum, and marks their columns.
template <bool SQRT>
__device__ __forceinline__ void update_features(const Step& step, const Planes& planes, const float* grad_row, uint32_t n,
                                                uint32_t* marks) {
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK;
    for (uint32_t i = threadIdx.x; i < blocks * (BLOCK / 32); i += blockDim.x) marks[i] = 0;
    __syncthreads();
    for_each_feature(planes.feature_cols, planes.counts, planes.row_start, n, cols, warp_index(), blockDim.x / WARP,
                     [&](uint32_t feature, uint32_t col) {
        const float g = grad_row[col] * step.grad_scale;
        const uint32_t block = n * blocks + col / BLOCK;
        const uint64_t scale_index = static_cast<uint64_t>(n) * blocks + col / BLOCK;
        const float unit = momentum_unit<SQRT>(planes.m_scale[scale_index]);
        const float m = decode_momentum<SQRT>(planes.m[static_cast<uint64_t>(n) * cols + col], unit);
        const float direction = sign(step.beta1 * m + (1.0f - step.beta1) * g);
        const uint32_t bits = word_of(step.stream, 2 * block, col % BLOCK) & 0xFFFFu;
        planes.values[feature] = update_feature(step, planes.values[feature], direction, bits);
        atomicOr(&marks[col / 32], 1u << col % 32);
    });
    __syncthreads();
}

template <int LOG_F, bool SQRT>
__device__ __forceinline__ void update_row(const Step& step, const Planes& planes, const float* grad_row, bool grad_aligned,
                                           uint32_t n, int32_t* fixed, const uint32_t* marks, uint32_t* words,
                                           double* square, uint32_t* grown) {
    __shared__ int32_t maxima[MAX_WARPS];
    __shared__ double sums[MAX_WARPS];
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, first_block = n * blocks;
    const uint32_t warp = warp_index(), warps = blockDim.x / WARP, lane = lane_index();
    int8_t* const q_row = planes.q + static_cast<uint64_t>(n) * cols;
    int8_t* const r_row = LOG_F == 0 ? nullptr : planes.r + n * residual_bytes<LOG_F>(cols);
    int8_t* const m_row = planes.m + static_cast<uint64_t>(n) * cols;
    uint16_t* const m_scales = planes.m_scale + static_cast<uint64_t>(n) * blocks;
    const bool aligned = quads_aligned(planes.q, cols) && quads_aligned(planes.r, cols) && quads_aligned(planes.m, cols);
    const float scale = planes.scale[n], lr_steps = __fdiv_rn(static_cast<float>(1 << LOG_F) * step.lr, scale);
    const float rest1 = 1.0f - step.beta1, rest2 = 1.0f - step.beta2, decay = step.lr * step.weight_decay;

    float squares = 0.0f;
    int32_t largest = 0;
    for (uint32_t block = warp; block < blocks; block += warps) {
        const uint32_t col = block * BLOCK + QUAD * lane;
        uint32_t word[QUAD];
        draw_words(words, step.stream, 2 * (first_block + block), 2 * (first_block + block) + 1);
        element_words(word, words);
        float g[QUAD], m[QUAD];
        int32_t k[QUAD], code[QUAD];
        load_quad(g, grad_row, col, 0, cols, grad_aligned);
        load_quad(code, m_row, col, 0, cols, aligned);
        join_quad<LOG_F>(k, q_row, r_row, col, cols, aligned);
        const uint32_t mark = marks ? marks[col / 32] >> col % 32 : 0;
        const float unit = momentum_unit<SQRT>(m_scales[block]);
        float m_max = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            g[i] *= step.grad_scale;
            squares += g[i] * g[i];
            m[i] = decode_momentum<SQRT>(code[i], unit);
            const float direction = sign(step.beta1 * m[i] + rest1 * g[i]);
            m[i] = step.beta2 * m[i] + rest2 * g[i];
            // The maximum of a number and NaN is the number.
            m_max = fmaxf(m_max, fabsf(m[i]));
            const float u = offset_from_bits(word[i] & 0xFFFFu) - 0.5f;
            const float change = -(lr_steps * direction) - decay * static_cast<float>(k[i]);
            k[i] += nearest(limit_step(change) + step.dither * u);
            // Protected weights live elsewhere; there are none beyond the row's end.
            if ((mark >> i & 1) != 0 || col + i >= cols) k[i] = 0;
            largest = max(largest, abs(k[i]));
        }
        *reinterpret_cast<int4*>(fixed + col) = make_int4(k[0], k[1], k[2], k[3]);

        const uint16_t m_scale = block_scale(warp_max(m_max));
        const float new_unit = momentum_unit<SQRT>(m_scale), inverse = new_unit > 0.0f ? __fdiv_rn(1.0f, new_unit) : 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) code[i] = encode_momentum<SQRT>(m[i], inverse, offset_from_bits(word[i] >> 16));
        store_quad(m_row, col, 0, cols, aligned, code);
        // Behind this the old scale has been read by all lanes; a shuffle promises no order.
        __syncwarp();
        if (lane == 0) m_scales[block] = m_scale;
    }

    largest = static_cast<int32_t>(warp_max(static_cast<uint32_t>(largest)));
    if (lane == 0) maxima[warp] = largest;
    // Its barrier shows the maxima, too.
    const double sum = block_total(squares, sums, warps);
    for (uint32_t other = 0; other < warps; ++other) largest = max(largest, maxima[other]);
    const bool grows = largest > MAX_Q << LOG_F;
    const float new_scale =
        grows ? scale * __fdiv_rn(static_cast<float>(largest), static_cast<float>(GROWN_MAX << LOG_F)) : scale;
    const float ratio = __fdiv_rn(scale, new_scale);
    for (uint32_t block = warp; block < blocks; block += warps) {
        const uint32_t col = block * BLOCK + QUAD * lane;
        const int4 kept = *reinterpret_cast<const int4*>(fixed + col);
        int32_t k[QUAD] = {kept.x, kept.y, kept.z, kept.w};
        if (grows) rescale(k, step, first_block + block, ratio, words);
        split_quad<LOG_F>(k, q_row, r_row, col, cols, aligned);
    }
    if (threadIdx.x == 0) {
        planes.scale[n] = new_scale;
        *square = sum;
        *grown = grows;
    }
}

template <int LOG_F, bool SQRT>
__device__ __forceinline__ void update_rows(const Step& step, const Planes& planes, const float* grad, uint64_t stride,
                                            int32_t* long_rows, double* squares, uint32_t* grown, uint32_t first_row,
                                            uint32_t rows) {
    // Random words of each warp, a bit per column that marks features, and the row's new weights.
    DYN_SHARED(uint32_t, shared);
    const uint32_t padded = (step.cols + BLOCK - 1) / BLOCK * BLOCK;
    uint32_t* const words = shared + warp_index() * WARP_WORDS;
    uint32_t* const marks = planes.values ? shared + blockDim.x / WARP * WARP_WORDS : nullptr;
    uint32_t* const behind = shared + blockDim.x / WARP * WARP_WORDS + (planes.values ? padded / 32 : 0);
    int32_t* const fixed =
        long_rows ? long_rows + static_cast<uint64_t>(blockIdx.x) * padded : reinterpret_cast<int32_t*>(behind);
    const bool grad_aligned = quads_aligned(grad, stride);
    for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const uint32_t n = first_row + row;
        const float* const grad_row = grad + row * stride;
        if (marks) update_features<SQRT>(step, planes, grad_row, n, marks);
        update_row<LOG_F, SQRT>(step, planes, grad_row, grad_aligned, n, fixed, marks, words, squares + row, grown + row);
        __syncthreads();
    }
}

template <int LOG_F>
__device__ __forceinline__ void update(uint32_t sqrt_codes, const Step& step, const Planes& planes, const float* grad,
                                       uint64_t stride, int32_t* long_rows, double* squares, uint32_t* grown,
                                       uint32_t first_row, uint32_t rows) {
    if (sqrt_codes) update_rows<LOG_F, true>(step, planes, grad, stride, long_rows, squares, grown, first_row, rows);
    else update_rows<LOG_F, false>(step, planes, grad, stride, long_rows, squares, grown, first_row, rows);
}

extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, 2)
lion_update_f32_i8(int8_t* __restrict__ q, int8_t* __restrict__ r, float* __restrict__ scale, int8_t* __restrict__ m,
                   uint16_t* __restrict__ m_scale, uint16_t* __restrict__ values, const uint8_t* __restrict__ feature_cols,
                   const uint8_t* __restrict__ counts, const uint32_t* __restrict__ row_start,
                   const float* __restrict__ grad, uint64_t stride, int32_t* __restrict__ long_rows,
                   double* __restrict__ squares, uint32_t* __restrict__ grown, uint32_t first_row, uint32_t rows,
                   uint32_t cols, uint32_t log_f, uint32_t sqrt_codes, float grad_scale, float lr, float beta1, float beta2,
                   float weight_decay, float dither, uint64_t seed, uint32_t step, uint32_t tensor, uint32_t purpose) {
    const Step shared_step = {grad_scale, lr, beta1, beta2, weight_decay, dither, philox(seed, step, tensor, purpose), cols};
    const Planes planes = {q, r, m, scale, m_scale, values, feature_cols, counts, row_start};
    if (log_f == 8) update<8>(sqrt_codes, shared_step, planes, grad, stride, long_rows, squares, grown, first_row, rows);
    else if (log_f == 4) update<4>(sqrt_codes, shared_step, planes, grad, stride, long_rows, squares, grown, first_row, rows);
    else update<0>(sqrt_codes, shared_step, planes, grad, stride, long_rows, squares, grown, first_row, rows);
}
