// Quantized Lion on the INT8 planes of a weight: docs/ALGORITHM.md#quantized-lion, and the operation in
// crates/qft-optim/src/ops.rs (LionUpdate), which gives every step of the arithmetic.
//
// Shapes: q, m i8 [N, K]; r as in fixed_point.cuh; scale f32 [N]; m_scale bf16 [N, ceil(K / 128)]; protected weights as in
// protected.cuh, or null; grad f32 [rows, K] with a stride, for the rows from `first_row` on; squares f64 [rows] and grown u32
// [rows] receive each row's sum of squares of the gradient, and whether its scale grew.
// Grid: a block per row, of a warp for each 512 columns, 8 at most. A warp takes 128 columns at a time: the block of one
// momentum scale, whose 128 random words are one counter of Philox per lane. A lane has four neighbours: 16 bytes of the
// gradient, 4 of each plane, loaded while the block before is computed. Everything is read once and written once. First the
// momentum moves, and leaves the signs of the step's directions, which a rotated matrix needs of the whole row (rotation.cuh);
// then the weights. Whether a row needs a larger scale is known only at its end. Random words wait for the weights, and new
// weights for the scale, in shared memory (rows up to 16384), or for longer rows in `long_rows` i32
// [gridDim.x, ceil(K / 128) * 128], where a block takes every gridDim.x-th row.
// Rounding: stochastic or to nearest; bit for bit that of the CPU. Squares: f32 within a thread, f64 between threads, in a
// fixed order: deterministic, but not the CPU's order.
// CPU twin: crates/qft-optim/src/cpu/lion.rs.
// Entries: lion_update_f32_i8_r{bits of the residual}_{code of the momentum}.
// Bound: 8 to 10 bytes and about 120 instructions a weight, a sixth of them Philox: docs/KERNELS.md.
#include "fixed_point.cuh"
#include "gradient_sums.cuh"
#include "protected.cuh"
#include "rotation.cuh"
#include "stochastic.cuh"

constexpr uint32_t MAX_WARPS = 8;

// Blocks that a multiprocessor is to hold at a time, with 64 registers to a thread; rows of more columns than its shared memory
// can hold four of leave it fewer.
constexpr uint32_t BLOCKS = 4;

// Elements that share a momentum scale.
constexpr uint32_t BLOCK = 128;

constexpr int32_t MAX_Q = 127;
constexpr int32_t GROWN_MAX = 124;
constexpr float MAX_STEP = 1048576.0f;
constexpr uint32_t RESCALING = 0x80000000u;

// What all rows of an update share.
struct Step {
    float grad_scale, lr, beta1, beta2, weight_decay;
    // 1 to round stochastically, 0 to round to nearest.
    float dither;
    Philox stream;
    uint32_t cols;
    // Whether the weights are stored rotated.
    bool rotated;

    __device__ __forceinline__ float direction(const GroupSigns& signs, const GroupPlace& place) const {
        return rotated ? signs.rotated(place) : signs.plain(place);
    }
};

// To -MAX_STEP..=MAX_STEP; NaN becomes -MAX_STEP.
__device__ __forceinline__ float limit_step(float x) {
    const float raised = x > -MAX_STEP ? x : -MAX_STEP;
    return raised < MAX_STEP ? raised : MAX_STEP;
}

// Factor from code |code| (square root) or code (linear) to the momentum: the scale divided by 16129 or 127. One correction of
// the product with the inverse gives the nearest float for every finite bf16, and takes no branch as a division does.
template <bool SQRT>
__device__ __forceinline__ float momentum_unit(uint16_t scale) {
    constexpr float DIVISOR = SQRT ? 16129.0f : 127.0f, INVERSE = 1.0f / DIVISOR;
    const float x = f32_from_bf16(scale), quotient = x * INVERSE;
    return __fmaf_rn(__fmaf_rn(-quotient, DIVISOR, x), INVERSE, quotient);
}

// The product of codes is an exact integer.
template <bool SQRT>
__device__ __forceinline__ float decode_momentum(float code, float unit) {
    return (SQRT ? code * fabsf(code) : code) * unit;
}

// The next bf16 that is not smaller than `max`: qft_optim::momentum::block_scale.
__device__ __forceinline__ uint16_t block_scale(float max) {
    if (max < TINY) return 0;
    const uint32_t up = (__float_as_uint(max) + 0xFFFFu) >> 16;
    return static_cast<uint16_t>(up < 0x7F7Fu ? up : 0x7F7Fu);
}

// (bits + 1/2) / 65536 - shift, as offset_from_bits has it, in one operation: every sum and product of it is exact.
__device__ __forceinline__ float offset_from_half(uint32_t bits, float shift) {
    return __fmaf_rn(static_cast<float>(static_cast<int32_t>(bits)), 1.0f / 65536.0f, 1.0f / 131072.0f - shift);
}

// About 1 / sqrt(x), for x that is not subnormal.
__device__ __forceinline__ float approximate_rsqrt(float x) {
#ifdef QFT_EMULATE
    return rsqrtf(x);
#else
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// The square root to nearest as __fsqrt_rn computes it for x in the middle of the range, without its branch for others:
// NaN for infinity.
__device__ __forceinline__ float square_root(float x) {
    const float inverse = approximate_rsqrt(x), root = x * inverse;
    return __fmaf_rn(__fmaf_rn(-root, root, x), 0.5f * inverse, root);
}

// `x` with its sign changed if `sign` is negative.
__device__ __forceinline__ float times_sign(float x, float sign) {
    return __uint_as_float(__float_as_uint(x) ^ (__float_as_uint(sign) & 0x80000000u));
}

// The code in the lowest byte.
template <bool SQRT>
__device__ __forceinline__ uint32_t encode_momentum(float m, float inverse, float u) {
    const float scaled = fabsf(m) * inverse;
    // Not a number becomes a code of zero, as does what is so small: a square root needs no less.
    const float a = scaled > 1e-18f ? scaled : 1e-18f;
    const float floor = floorf(SQRT ? square_root(a) : a);
    const float rest = SQRT ? __fmaf_rn(-floor, floor, a) : a - floor, width = SQRT ? __fmaf_rn(2.0f, floor, 1.0f) : 1.0f;
    const float code = rest > u * width ? floor + 1.0f : floor;
    // An infinite momentum has 127, too: the root is NaN then.
    const float magnitude = code < 127.0f ? code : 127.0f;
    return __float_as_uint(times_sign(magnitude, m) + MAGIC);
}

// Updates a protected weight with the 16 bits of its element.
__device__ __forceinline__ uint16_t update_protected(const Step& step, uint16_t value, float direction, uint32_t bits) {
    const float v = f32_from_bf16(value);
    const float moved = v - step.lr * (direction + step.weight_decay * v);
    // Adding below the last bit kept and cutting there rounds up with the probability of the fraction.
    return step.dither == 0.0f ? bf16_from_f32(moved) : static_cast<uint16_t>((__float_as_uint(moved) + bits) >> 16);
}

// Expresses a lane's four fixed-point weights in the row's new scale. All lanes of the warp call together.
__device__ __forceinline__ void rescale(int32_t (&k)[QUAD], const Step& step, uint32_t random_block, float ratio,
                                        uint32_t* words) {
    Philox stream = step.stream;
    stream.purpose ^= RESCALING;
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
    const uint8_t *protected_cols, *counts;
    const uint32_t* row_start;
};

// Updates the protected weights of row n, whose random words are at hand, and marks their columns.
__device__ __forceinline__ void update_protected_row(const Step& step, const Planes& planes, const GroupSigns& signs,
                                                     const int32_t* random, uint32_t n, uint32_t* marks) {
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK;
    for (uint32_t i = threadIdx.x; i < blocks * (BLOCK / 32); i += blockDim.x) marks[i] = 0;
    __syncthreads();
    for_each_protected(planes.protected_cols, planes.counts, planes.row_start, n, cols, warp_index(), blockDim.x / WARP,
                     [&](uint32_t index, uint32_t col) {
        const float direction = step.direction(signs, group_place(col, cols));
        const uint32_t bits = static_cast<uint32_t>(random[col]) & 0xFFFFu;
        planes.values[index] = update_protected(step, planes.values[index], direction, bits);
        atomicOr(&marks[col / 32], 1u << col % 32);
    });
    __syncthreads();
}

// Where a lane's quad of a block lies.
struct Place {
    const float* grad;
    int8_t *q, *r, *m;
    uint16_t* m_scale;
    uint32_t col;
};

// The lane's first column of a block, in a row that starts at `row`.
template <int LOG_F>
__device__ __forceinline__ Place place_in(const Place& row, uint32_t block) {
    const uint32_t col = block * BLOCK + QUAD * lane_index();
    return {row.grad + col, row.q + col, LOG_F == 0 ? nullptr : row.r + residual_bytes<LOG_F>(col), row.m + col,
            row.m_scale + block, col};
}

// Moves by whole blocks.
template <int LOG_F>
__device__ __forceinline__ void advance(Place& place, uint32_t blocks) {
    place.grad += blocks * BLOCK;
    place.q += blocks * BLOCK;
    if (LOG_F != 0) place.r += residual_bytes<LOG_F>(blocks * BLOCK);
    place.m += blocks * BLOCK;
    place.m_scale += blocks;
    place.col += blocks * BLOCK;
}

// What a lane reads of a block, for the momentum and for the weights: four neighbours, their bytes as they lie in memory, the first
// one lowest. With 4 bits of residual, two columns share a byte.
struct MomentumQuad {
    float grad[QUAD];
    uint32_t m;
    uint16_t m_scale;
};
struct WeightQuad {
    uint32_t q, r;
};

// Four bytes of a row of which `left` exist, the others being zero.
__device__ __forceinline__ uint32_t load_bytes(const int8_t* bytes, uint32_t left, bool aligned) {
    if (aligned) return *reinterpret_cast<const uint32_t*>(bytes);
    uint32_t packed = 0;
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) {
        if (i < left) packed |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])) << 8 * i;
    }
    return packed;
}

// Start the loads of a quad of which `left` columns exist, the others being zero; where quads are `aligned`, nothing waits for
// the loads here.
__device__ __forceinline__ MomentumQuad load_momentum(const Place& place, uint32_t left, bool aligned) {
    MomentumQuad x = {};
    x.m_scale = *place.m_scale;
    if (left == 0) return x;
    x.m = load_bytes(place.m, left, aligned);
    if (aligned) {
        const float4 grad = *reinterpret_cast<const float4*>(place.grad);
        x.grad[0] = grad.x;
        x.grad[1] = grad.y;
        x.grad[2] = grad.z;
        x.grad[3] = grad.w;
        return x;
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) {
        if (i < left) x.grad[i] = place.grad[i];
    }
    return x;
}
template <int LOG_F>
__device__ __forceinline__ WeightQuad load_weights(const Place& place, uint32_t left, bool aligned) {
    WeightQuad x = {};
    if (left == 0) return x;
    x.q = load_bytes(place.q, left, aligned);
    if (LOG_F == 8) x.r = load_bytes(place.r, left, aligned);
    if (LOG_F == 4 && aligned) x.r = *reinterpret_cast<const uint16_t*>(place.r);
    if (LOG_F == 4 && !aligned) {
        x.r = static_cast<uint8_t>(place.r[0]);
        if (left > 2) x.r |= static_cast<uint32_t>(static_cast<uint8_t>(place.r[1])) << 8;
    }
    return x;
}

// Columns of a row from `col` on.
__device__ __forceinline__ uint32_t columns_left(uint32_t col, uint32_t cols) { return cols - min(col, cols); }

__device__ __forceinline__ int32_t signed_byte(uint32_t bytes, uint32_t i) { return static_cast<int8_t>(bytes >> 8 * i); }

// The fixed-point weight of column i of a quad; arbitrary beyond the row's end.
template <int LOG_F>
__device__ __forceinline__ int32_t fixed_point(const WeightQuad& x, uint32_t i) {
    if (LOG_F == 0) return signed_byte(x.q, i);
    if (LOG_F == 4) return signed_byte(x.q, i) * 16 + (static_cast<int32_t>(x.r << (28 - 4 * i)) >> 28);
    // Both bytes side by side, of two columns at a time, are the weight if the residual counts from -128.
    const uint32_t pair = __byte_perm(x.r ^ 0x80808080u, x.q, i < 2 ? 0x5140 : 0x7362);
    return static_cast<int16_t>(pair >> 16 * (i % 2)) - 128;
}

// Moves the momentum of row n, and leaves the random words in `random` and the signs of the directions; returns the thread's
// share of the sum of squares.
template <int LOG_F, bool SQRT>
__device__ __forceinline__ float update_momentum(const Step& step, const Place& row, bool aligned, uint32_t n, int32_t* random,
                                                 const GroupSigns& signs, uint32_t* words) {
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, first_block = n * blocks;
    const uint32_t warp = warp_index(), warps = blockDim.x / WARP;
    const float rest1 = 1.0f - step.beta1, rest2 = 1.0f - step.beta2;
    Place place = place_in<LOG_F>(row, warp);
    MomentumQuad next = load_momentum(place, columns_left(place.col, cols), aligned);
    float squares = 0.0f;
    for (uint32_t block = warp; block < blocks; block += warps) {
        const uint32_t col = place.col, left = columns_left(col, cols);
        int8_t* const m_quad = place.m;
        uint16_t* const m_scale_place = place.m_scale;
        const MomentumQuad x = next;
        // Before all else: they are under way while this block is computed, and draw_words keeps them above itself.
        advance<LOG_F>(place, warps);
        if (block + warps < blocks) next = load_momentum(place, columns_left(place.col, cols), aligned);
        uint32_t word[QUAD];
        draw_words(words, step.stream, 2 * (first_block + block), 2 * (first_block + block) + 1);
        element_words(word, words);
        *reinterpret_cast<uint4*>(random + col) = make_uint4(word[0], word[1], word[2], word[3]);
        const float unit = momentum_unit<SQRT>(x.m_scale);
        float m[QUAD], m_max = 0.0f;
        GroupPlace member = group_place(col, cols);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            const float g = x.grad[i] * step.grad_scale;
            squares += g * g;
            m[i] = decode_momentum<SQRT>(static_cast<float>(signed_byte(x.m, i)), unit);
            if (i < left) signs.set(member, sign(step.beta1 * m[i] + rest1 * g));
            if (i + 1 < left) next_place(member, col + i + 1, cols);
            m[i] = step.beta2 * m[i] + rest2 * g;
            // The maximum of a number and NaN is the number; none of them is negative, so that their bits have their order.
            m_max = fmaxf(m_max, fabsf(m[i]));
        }
        const uint16_t m_scale = block_scale(__uint_as_float(__reduce_max_sync(FULL_MASK, __float_as_uint(m_max))));
        const float new_unit = momentum_unit<SQRT>(m_scale), inverse = new_unit > 0.0f ? __frcp_rn(new_unit) : 0.0f;
        int32_t code[QUAD];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i)
            code[i] = static_cast<int32_t>(encode_momentum<SQRT>(m[i], inverse, offset_from_half(word[i] >> 16, 0.0f)));
        store_quad(m_quad, 0, 0, left, aligned, code);
        // All lanes have read the old scale: the barriers of draw_words lie between.
        if (lane_index() == 0) *m_scale_place = m_scale;
    }
    return squares;
}

// Moves the weights of row n, which replace the random words in `fixed`; returns the largest magnitude the thread has seen.
template <int LOG_F>
__device__ __forceinline__ int32_t update_weights(const Step& step, const Place& row, bool aligned, float scale,
                                                  int32_t* fixed, const GroupSigns& signs, const uint32_t* marks) {
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK;
    const uint32_t warp = warp_index(), warps = blockDim.x / WARP;
    // One lane's value is every lane's; but as a shuffle's result it is not computed anew for each block.
    const float lr_steps = __shfl_sync(FULL_MASK, __fdiv_rn(static_cast<float>(1 << LOG_F) * step.lr, scale), 0);
    const float decay = step.lr * step.weight_decay;
    Place place = place_in<LOG_F>(row, warp);
    WeightQuad next = load_weights<LOG_F>(place, columns_left(place.col, cols), aligned);
    int32_t largest = 0;
    for (uint32_t block = warp; block < blocks; block += warps) {
        const uint32_t col = place.col, left = columns_left(col, cols);
        const WeightQuad x = next;
        advance<LOG_F>(place, warps);
        if (block + warps < blocks) next = load_weights<LOG_F>(place, columns_left(place.col, cols), aligned);
        const int4 random = *reinterpret_cast<const int4*>(fixed + col);
        const int32_t word[QUAD] = {random.x, random.y, random.z, random.w};
        // Protected weights live elsewhere; there are none beyond the row's end.
        uint32_t absent = marks ? marks[col / 32] >> col % 32 : 0;
        if (left < QUAD) absent |= 0xFu << left;
        GroupPlace member = group_place(col, cols);
        int32_t k[QUAD];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            const float direction = i < left ? step.direction(signs, member) : 0.0f;
            if (i + 1 < left) next_place(member, col + i + 1, cols);
            const float u = offset_from_half(static_cast<uint32_t>(word[i]) & 0xFFFFu, 0.5f);
            k[i] = fixed_point<LOG_F>(x, i);
            // Not a number if the scale is zero and the direction, too.
            const float change = -(lr_steps * direction) - decay * static_cast<float>(k[i]);
            k[i] += nearest(limit_step(change) + step.dither * u);
            if ((absent >> i & 1) != 0) k[i] = 0;
            largest = max(largest, abs(k[i]));
        }
        *reinterpret_cast<int4*>(fixed + col) = make_int4(k[0], k[1], k[2], k[3]);
    }
    return largest;
}

template <int LOG_F, bool SQRT>
__device__ __forceinline__ void update_row(const Step& step, const Planes& planes, const Place& row, bool aligned,
                                           uint32_t n, int32_t* fixed, const GroupSigns& signs, uint32_t* marks,
                                           uint32_t* words, double* square, uint32_t* grown) {
    __shared__ int32_t maxima[MAX_WARPS];
    __shared__ double sums[MAX_WARPS];
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, first_block = n * blocks;
    const uint32_t warp = warp_index(), warps = blockDim.x / WARP;
    signs.clear(cols);
    __syncthreads();
    const float squares = update_momentum<LOG_F, SQRT>(step, row, aligned, n, fixed, signs, words);
    __syncthreads();
    if (marks) update_protected_row(step, planes, signs, fixed, n, marks);
    const float scale = planes.scale[n];
    int32_t largest = update_weights<LOG_F>(step, row, aligned, scale, fixed, signs, marks);

    largest = static_cast<int32_t>(__reduce_max_sync(FULL_MASK, static_cast<uint32_t>(largest)));
    if (lane_index() == 0) maxima[warp] = largest;
    // Its barrier shows the maxima, too.
    const double sum = block_total(squares, sums, warps);
    for (uint32_t other = 0; other < warps; ++other) largest = max(largest, maxima[other]);
    const bool grows = largest > MAX_Q << LOG_F;
    const float new_scale =
        grows ? scale * __fdiv_rn(static_cast<float>(largest), static_cast<float>(GROWN_MAX << LOG_F)) : scale;
    const float ratio = __fdiv_rn(scale, new_scale);
    Place place = place_in<LOG_F>(row, warp);
    for (uint32_t block = warp; block < blocks; block += warps) {
        const int4 kept = *reinterpret_cast<const int4*>(fixed + place.col);
        int32_t k[QUAD] = {kept.x, kept.y, kept.z, kept.w};
        if (grows) rescale(k, step, first_block + block, ratio, words);
        split_quad<LOG_F>(k, place.q, place.r, 0, columns_left(place.col, cols), aligned);
        advance<LOG_F>(place, warps);
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
    // Random words of each warp, the signs of the row, a bit per column that marks protected weights, and the row's new weights.
    DYN_SHARED(uint32_t, shared);
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, padded = blocks * BLOCK;
    uint32_t* const words = shared + warp_index() * WARP_WORDS;
    const uint32_t sign_words = (2 * most_groups(cols) + QUAD - 1) / QUAD * QUAD;
    const GroupSigns signs = {shared + blockDim.x / WARP * WARP_WORDS, shared + blockDim.x / WARP * WARP_WORDS + sign_words};
    uint32_t* const marks = planes.values ? signs.nonzero + sign_words : nullptr;
    uint32_t* const behind = signs.nonzero + sign_words + (planes.values ? padded / 32 : 0);
    int32_t* const fixed =
        long_rows ? long_rows + static_cast<uint64_t>(blockIdx.x) * padded : reinterpret_cast<int32_t*>(behind);
    const bool aligned = quads_aligned(grad, stride) && quads_aligned(planes.q, cols) && quads_aligned(planes.r, cols) &&
                         quads_aligned(planes.m, cols);
    for (uint32_t i = blockIdx.x; i < rows; i += gridDim.x) {
        const uint32_t n = first_row + i;
        const uint64_t first = static_cast<uint64_t>(n) * cols;
        const Place row = {grad + i * stride, planes.q + first,
                           LOG_F == 0 ? nullptr : planes.r + n * residual_bytes<LOG_F>(cols), planes.m + first,
                           planes.m_scale + static_cast<uint64_t>(n) * blocks, 0};
        update_row<LOG_F, SQRT>(step, planes, row, aligned, n, fixed, signs, marks, words, squares + i,
                                grown + i);
        __syncthreads();
    }
}

// What an entry takes, and how it passes it on.
#define LION_PARAMETERS                                                                                                   \
    int8_t *__restrict__ q, int8_t *__restrict__ r, float *__restrict__ scale, int8_t *__restrict__ m,                    \
        uint16_t *__restrict__ m_scale, uint16_t *__restrict__ values, const uint8_t *__restrict__ protected_cols,          \
        const uint8_t *__restrict__ counts, const uint32_t *__restrict__ row_start, const float *__restrict__ grad,       \
        uint64_t stride, int32_t *__restrict__ long_rows, double *__restrict__ squares, uint32_t *__restrict__ grown,     \
        uint32_t first_row, uint32_t rows, uint32_t cols, float grad_scale, float lr, float beta1, float beta2,           \
        float weight_decay, float dither, uint32_t rotated, uint64_t seed, uint32_t step, uint32_t tensor, uint32_t purpose
#define LION_UPDATE(LOG_F, SQRT)                                                                                          \
    update_rows<LOG_F, SQRT>({grad_scale, lr, beta1, beta2, weight_decay, dither, philox(seed, step, tensor, purpose), cols, \
                              rotated != 0},                                                                              \
                             {q, r, m, scale, m_scale, values, protected_cols, counts, row_start}, grad, stride, long_rows, \
                             squares, grown, first_row, rows)

extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, BLOCKS)
lion_update_f32_i8_r8_sqrt(LION_PARAMETERS) {
    LION_UPDATE(8, true);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, BLOCKS)
lion_update_f32_i8_r8_linear(LION_PARAMETERS) {
    LION_UPDATE(8, false);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, BLOCKS)
lion_update_f32_i8_r4_sqrt(LION_PARAMETERS) {
    LION_UPDATE(4, true);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, BLOCKS)
lion_update_f32_i8_r4_linear(LION_PARAMETERS) {
    LION_UPDATE(4, false);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, BLOCKS)
lion_update_f32_i8_r0_sqrt(LION_PARAMETERS) {
    LION_UPDATE(0, true);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, BLOCKS)
lion_update_f32_i8_r0_linear(LION_PARAMETERS) {
    LION_UPDATE(0, false);
}
