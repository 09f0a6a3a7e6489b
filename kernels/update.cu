// Quantized updates of the INT8 planes of a weight: docs/ALGORITHM.md#quantized-updates, and the operation in
// crates/qft-optim/src/ops.rs (MatrixUpdate), which gives every step of the arithmetic.
//
// Shapes: q i8 [N, K]; r as in fixed_point.cuh; scale f32 [N]; first and second moments: codes i8 [N, K], or [N, ceil(K / 2)] in 4
// bits, and scales bf16 [N, ceil(K / 128)], the second null for Lion; protected weights as in protected.cuh, or null; grad f32
// [rows, K] with a stride, for the rows from `first_row` on; squares f64 [rows] and grown u32 [rows] receive each row's sum of
// squares of the gradient, and whether its scale grew.
// Grid: a block per row, of a warp for each 512 columns, 8 at most. A warp takes 128 columns at a time: the block of one
// scale of a moment, whose 128 random words are one counter of Philox per lane. A lane has four neighbours: 16 bytes of the
// gradient, 4 of each plane, loaded while the block before is computed. Everything is read once and written once. First the row of
// the gradient comes to the place of its random words, turned back on its way if it is rotated (rotation.cuh). Then the moments move, and leave the step's directions, which a rotated matrix needs of the whole row: of Lion the signs
// (rotation.cuh), of AdamW floats; then the weights. Whether a row needs a larger scale is known only at its end. Random words wait
// for the weights, and new weights for the scale, in shared memory (rows up to 16384 columns; directions that are floats take as much
// again, so 8192), or for longer rows in `long_rows` [gridDim.x, ceil(K / 128) * 128] words, or twice as many, where a block takes
// every gridDim.x-th row.
// Rounding: stochastic or to nearest; bit for bit that of the CPU. Squares: f32 within a thread, f64 between threads, in a
// fixed order: deterministic, but not the CPU's order.
// CPU twin: crates/qft-optim/src/cpu/update.rs.
// Entries: lion_update_f32_i8_r{bits of the residual}_{code of the momentum}, adamw_update_f32_i8_r{bits of the residual}.
// Bound: 7 to 12 bytes and about 120 instructions a weight, a sixth of them Philox: docs/KERNELS.md.
#include "fixed_point.cuh"
#include "gradient_sums.cuh"
#include "moments.cuh"
#include "protected.cuh"
#include "rotation.cuh"
#include "stochastic.cuh"

constexpr uint32_t MAX_WARPS = 8;

// Blocks that a multiprocessor is to hold at a time, with 64 registers to a thread, or 128; rows of more columns than its shared
// memory can hold four of leave it fewer.
constexpr uint32_t LION_BLOCKS = 4, ADAMW_BLOCKS = 2;

constexpr int32_t MAX_Q = 127;
constexpr int32_t GROWN_MAX = 124;
constexpr float MAX_STEP = 1048576.0f;
constexpr float MAX_DIRECTION = 16.0f;
constexpr uint32_t RESCALING = 0x80000000u;

// What all rows of an update share.
struct Step {
    float grad_scale, lr, beta1, beta2, weight_decay;
    // Of AdamW alone.
    float eps, unbias1, unbias2;
    // 1 to round weights stochastically, 0 to round them to nearest.
    float noise;
    Philox stream;
    uint32_t dither, cols;
    // Whether the weights are stored rotated.
    bool rotated;
};

// To -MAX_STEP..=MAX_STEP; NaN becomes -MAX_STEP.
__device__ __forceinline__ float limit_step(float x) {
    const float raised = x > -MAX_STEP ? x : -MAX_STEP;
    return raised < MAX_STEP ? raised : MAX_STEP;
}

// The directions of a row where they are signs.
struct SignDirections {
    GroupSigns signs;
    bool is_rotated;

    using Place = GroupPlace;
    __device__ __forceinline__ Place place(uint32_t col, uint32_t cols) const { return group_place(col, cols); }
    __device__ __forceinline__ void next(Place& place, uint32_t col, uint32_t cols) const { next_place(place, col, cols); }
    __device__ __forceinline__ void set(const Place& place, float direction) const { signs.set(place, direction); }
    __device__ __forceinline__ float get(const Place& place) const {
        return is_rotated ? signs.rotated(place) : signs.plain(place);
    }
    // All zero; a barrier must follow.
    __device__ __forceinline__ void clear(uint32_t cols) const { signs.clear(cols); }
    // Rotations are computed as they are needed.
    __device__ __forceinline__ void rotate(uint32_t) const {}
};

// The directions of a row where they are floats.
struct FloatDirections {
    float* row;
    bool is_rotated;

    using Place = uint32_t;
    __device__ __forceinline__ Place place(uint32_t col, uint32_t) const { return col; }
    __device__ __forceinline__ void next(Place& place, uint32_t, uint32_t) const { ++place; }
    __device__ __forceinline__ void set(Place place, float direction) const { row[place] = direction; }
    __device__ __forceinline__ float get(Place place) const { return row[place]; }
    __device__ __forceinline__ void clear(uint32_t) const {}
    // The threads of the block share the work; a barrier must follow.
    __device__ __forceinline__ void rotate(uint32_t cols) const {
        if (!is_rotated) return;
        walk_rotated(
            cols, [&](uint32_t col) { return row[col]; }, [&](uint32_t col, float x) { row[col] = x; });
    }
};

// Lion: one moment.
template <class Code>
struct Lion {
    using First = Code;
    using Second = Code;
    using Directions = SignDirections;
    static constexpr bool TWO = false;

    __device__ __forceinline__ static float advance(const Step& step, float& m, float&, float g) {
        const float c = step.beta1 * m + (1.0f - step.beta1) * g;
        m = step.beta2 * m + (1.0f - step.beta2) * g;
        return sign(c);
    }
};

struct AdamW {
    using First = Sqrt;
    using Second = Quartic;
    using Directions = FloatDirections;
    static constexpr bool TWO = true;

    __device__ __forceinline__ static float advance(const Step& step, float& m, float& v, float g) {
        m = step.beta1 * m + (1.0f - step.beta1) * g;
        v = step.beta2 * v + (1.0f - step.beta2) * (g * g);
        const float direction = __fdiv_rn(m * step.unbias1, __fsqrt_rn(v * step.unbias2) + step.eps);
        const float magnitude = fabsf(direction) < MAX_DIRECTION ? fabsf(direction) : MAX_DIRECTION;
        return direction > 0.0f ? magnitude : direction < 0.0f ? -magnitude : 0.0f;
    }
};

// Updates a protected weight with the 16 bits of its element.
__device__ __forceinline__ uint16_t update_protected(const Step& step, uint16_t value, float direction, uint32_t bits) {
    const float v = f32_from_bf16(value);
    const float moved = v - step.lr * (direction + step.weight_decay * v);
    // Adding below the last bit kept and cutting there rounds up with the probability of the fraction.
    return step.noise == 0.0f ? bf16_from_f32(moved) : static_cast<uint16_t>((__float_as_uint(moved) + bits) >> 16);
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
    for (uint32_t i = 0; i < QUAD; ++i) k[i] = nearest(static_cast<float>(k[i]) * ratio + step.noise * u[i]);
}

struct Planes {
    int8_t *q, *r;
    float* scale;
    int8_t *first, *second;
    uint16_t *first_scale, *second_scale, *values;
    const uint8_t *protected_cols, *counts;
    const uint32_t* row_start;
};

// Updates the protected weights of row n, whose random words are at hand, and marks their columns.
template <class Directions>
__device__ __forceinline__ void update_protected_row(const Step& step, const Planes& planes, const Directions& directions,
                                                     const int32_t* random, uint32_t n, uint32_t* marks) {
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK;
    for (uint32_t i = threadIdx.x; i < blocks * (BLOCK / 32); i += blockDim.x) marks[i] = 0;
    __syncthreads();
    for_each_protected(planes.protected_cols, planes.counts, planes.row_start, n, cols, warp_index(), blockDim.x / WARP,
                     [&](uint32_t index, uint32_t col) {
        const float direction = directions.get(directions.place(col, cols));
        const uint32_t bits = static_cast<uint32_t>(random[col]) & 0xFFFFu;
        planes.values[index] = update_protected(step, planes.values[index], direction, bits);
        atomicOr(&marks[col / 32], 1u << col % 32);
    });
    __syncthreads();
}

// Where a lane's quad of a block lies in the planes of the weight.
struct Place {
    int8_t *q, *r;
    uint32_t col;
};

// The lane's first column of a block, in a row that starts at `row`.
template <int LOG_F>
__device__ __forceinline__ Place place_in(const Place& row, uint32_t block) {
    const uint32_t col = block * BLOCK + QUAD * lane_index();
    return {row.q + col, LOG_F == 0 ? nullptr : row.r + residual_bytes<LOG_F>(col), col};
}

// Moves by whole blocks.
template <int LOG_F>
__device__ __forceinline__ void advance(Place& place, uint32_t blocks) {
    place.q += blocks * BLOCK;
    if (LOG_F != 0) place.r += residual_bytes<LOG_F>(blocks * BLOCK);
    place.col += blocks * BLOCK;
}

// What a lane reads of a block of the weight: four neighbours, their bytes as they lie in memory, the first one lowest.
struct WeightQuad {
    uint32_t q, r;
};

// Brings a row of the gradient, turned back if it is rotated and zero behind its end, to where its random words will be. A
// barrier must follow.
__device__ __forceinline__ void turn_gradient(const Step& step, const float* grad, int32_t* row) {
    const uint32_t cols = step.cols, padded = (cols + BLOCK - 1) / BLOCK * BLOCK;
    const auto value = [&](uint32_t col) { return grad[col]; };
    const auto use = [&](uint32_t col, float x) { row[col] = __float_as_int(x); };
    if (step.rotated) {
        walk_rotated<8>(cols, value, use);
    } else {
        for (uint32_t col = threadIdx.x; col < cols; col += blockDim.x) use(col, value(col));
    }
    for (uint32_t col = cols + threadIdx.x; col < padded; col += blockDim.x) use(col, 0.0f);
}

// Starts the loads of a quad of which `left` columns exist, the others being zero; where quads are `aligned`, nothing waits for
// the loads here.
template <int LOG_F>
__device__ __forceinline__ WeightQuad load_weights(const Place& place, uint32_t left, bool aligned) {
    WeightQuad x = {};
    if (left == 0) return x;
    x.q = load_bytes(place.q, left, aligned);
    if (LOG_F == 8) x.r = load_bytes(place.r, left, aligned);
    if (LOG_F == 4) x.r = load_nibbles(place.r, left, aligned);
    return x;
}

// Columns of a row from `col` on.
__device__ __forceinline__ uint32_t columns_left(uint32_t col, uint32_t cols) { return cols - min(col, cols); }

// The fixed-point weight of column i of a quad; arbitrary beyond the row's end.
template <int LOG_F>
__device__ __forceinline__ int32_t fixed_point(const WeightQuad& x, uint32_t i) {
    if (LOG_F == 0) return signed_byte(x.q, i);
    if (LOG_F == 4) return signed_byte(x.q, i) * 16 + signed_nibble(x.r, i);
    // Both bytes side by side, of two columns at a time, are the weight if the residual counts from -128.
    const uint32_t pair = __byte_perm(x.r ^ 0x80808080u, x.q, i < 2 ? 0x5140 : 0x7362);
    return static_cast<int16_t>(pair >> 16 * (i % 2)) - 128;
}

// Moves the moments of row n by the gradient in `row`, and leaves there the random words, and the directions; returns the thread's
// share of the sum of squares.
template <class Rule>
__device__ __forceinline__ float update_moments(const Step& step, const Planes& planes, bool aligned, uint32_t n, int32_t* row,
                                                const typename Rule::Directions& directions, uint32_t* words) {
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, first_block = n * blocks;
    const uint32_t warp = warp_index(), warps = blockDim.x / WARP;
    uint32_t col = warp * BLOCK + QUAD * lane_index();
    MomentRow<typename Rule::First> first(planes.first, planes.first_scale, n, cols, warp);
    MomentRow<typename Rule::Second> second(planes.second, planes.second_scale, n, cols, warp);
    uint32_t left = columns_left(col, cols);
    MomentQuad next_first = {}, next_second = {};
    if (warp < blocks) {
        next_first = first.load(left, aligned);
        if (Rule::TWO) next_second = second.load(left, aligned);
    }
    float squares = 0.0f;
    for (uint32_t block = warp; block < blocks; block += warps) {
        const uint32_t here = col, left_here = left;
        auto first_here = first;
        auto second_here = second;
        const MomentQuad x = next_first, y = next_second;
        // Before all else: they are under way while this block is computed, and draw_words keeps them above itself.
        col += warps * BLOCK;
        left = columns_left(col, cols);
        first.advance(warps);
        if (Rule::TWO) second.advance(warps);
        if (block + warps < blocks) {
            next_first = first.load(left, aligned);
            if (Rule::TWO) next_second = second.load(left, aligned);
        }
        uint32_t word[QUAD], even[QUAD];
        draw_words(words, step.stream, 2 * (first_block + block), 2 * (first_block + block) + 1);
        element_words(word, words);
        const int4 turned = *reinterpret_cast<const int4*>(row + here);
        const float grads[QUAD] = {__int_as_float(turned.x), __int_as_float(turned.y), __int_as_float(turned.z),
                                   __int_as_float(turned.w)};
        *reinterpret_cast<uint4*>(row + here) = make_uint4(word[0], word[1], word[2], word[3]);
        if (Rule::First::DITHERED || Rule::TWO) dither_words(even, step.dither, n, here);
        float m[QUAD], v[QUAD] = {};
        MomentRow<typename Rule::First>::decode(m, x);
        if (Rule::TWO) MomentRow<typename Rule::Second>::decode(v, y);
        auto member = directions.place(here, cols);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            const float g = grads[i] * step.grad_scale;
            squares += g * g;
            const float direction = Rule::advance(step, m[i], v[i], g);
            if (i < left_here) directions.set(member, direction);
            if (i + 1 < left_here) directions.next(member, here + i + 1, cols);
        }
        // All lanes have read the old scales: the barriers of draw_words lie between.
        const uint32_t columns = min(BLOCK, cols - block * BLOCK);
        first_here.store(m, Rule::First::DITHERED ? even : word, left_here, columns, aligned);
        if (Rule::TWO) second_here.store(v, even, left_here, columns, aligned);
    }
    return squares;
}

// Moves the weights of row n, which replace the random words in `fixed`; returns the largest magnitude the thread has seen.
template <int LOG_F, class Directions>
__device__ __forceinline__ int32_t update_weights(const Step& step, const Place& row, bool aligned, float scale,
                                                  int32_t* fixed, const Directions& directions, const uint32_t* marks) {
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
        auto member = directions.place(col, cols);
        int32_t k[QUAD];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            const float direction = i < left ? directions.get(member) : 0.0f;
            if (i + 1 < left) directions.next(member, col + i + 1, cols);
            const float u = offset_from_half(static_cast<uint32_t>(word[i]) & 0xFFFFu, 0.5f);
            k[i] = fixed_point<LOG_F>(x, i);
            // Not a number if the scale is zero and the direction, too.
            const float change = -(lr_steps * direction) - decay * static_cast<float>(k[i]);
            k[i] += nearest(limit_step(change) + step.noise * u);
            if ((absent >> i & 1) != 0) k[i] = 0;
            largest = max(largest, abs(k[i]));
        }
        *reinterpret_cast<int4*>(fixed + col) = make_int4(k[0], k[1], k[2], k[3]);
    }
    return largest;
}

template <int LOG_F, class Rule>
__device__ __forceinline__ void update_row(const Step& step, const Planes& planes, const Place& row, const float* grad,
                                           bool aligned, uint32_t n, int32_t* fixed,
                                           const typename Rule::Directions& directions, uint32_t* marks, uint32_t* words,
                                           double* square, uint32_t* grown) {
    __shared__ int32_t maxima[MAX_WARPS];
    __shared__ double sums[MAX_WARPS];
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, first_block = n * blocks;
    const uint32_t warp = warp_index(), warps = blockDim.x / WARP;
    turn_gradient(step, grad, fixed);
    directions.clear(cols);
    __syncthreads();
    const float squares = update_moments<Rule>(step, planes, aligned, n, fixed, directions, words);
    __syncthreads();
    if (Rule::TWO) {
        directions.rotate(cols);
        __syncthreads();
    }
    if (marks) update_protected_row(step, planes, directions, fixed, n, marks);
    const float scale = planes.scale[n];
    int32_t largest = update_weights<LOG_F>(step, row, aligned, scale, fixed, directions, marks);

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

// Words of shared memory that the signs of a row take: of each kind.
__device__ __forceinline__ uint32_t sign_words(uint32_t cols) { return (2 * most_groups(cols) + QUAD - 1) / QUAD * QUAD; }

template <int LOG_F, class Rule>
__device__ __forceinline__ void update_rows(const Step& step, const Planes& planes, const float* grad, uint64_t stride,
                                            int32_t* long_rows, double* squares, uint32_t* grown, uint32_t first_row,
                                            uint32_t rows) {
    using Directions = typename Rule::Directions;
    // Random words of each warp, the signs of the row, a bit per column that marks protected weights, the row's new weights, and
    // directions that are floats.
    DYN_SHARED(uint32_t, shared);
    const uint32_t cols = step.cols, blocks = (cols + BLOCK - 1) / BLOCK, padded = blocks * BLOCK;
    uint32_t* const words = shared + warp_index() * WARP_WORDS;
    uint32_t* const signs = shared + blockDim.x / WARP * WARP_WORDS;
    uint32_t* const marks_place = signs + (Rule::TWO ? 0 : 2 * sign_words(cols));
    uint32_t* const marks = planes.values ? marks_place : nullptr;
    uint32_t* const behind = marks_place + (planes.values ? padded / 32 : 0);
    int32_t* const fixed = long_rows ? long_rows + static_cast<uint64_t>(blockIdx.x) * padded * (Rule::TWO ? 2 : 1)
                                     : reinterpret_cast<int32_t*>(behind);
    Directions directions;
    if constexpr (Rule::TWO) {
        directions = {reinterpret_cast<float*>(fixed + padded), step.rotated};
    } else {
        directions = {{signs, signs + sign_words(cols)}, step.rotated};
    }
    const bool aligned = quads_aligned(planes.q, cols) && quads_aligned(planes.r, cols) &&
                         quads_aligned(planes.first, cols) && quads_aligned(planes.second, cols);
    for (uint32_t i = blockIdx.x; i < rows; i += gridDim.x) {
        const uint32_t n = first_row + i;
        const Place row = {planes.q + static_cast<uint64_t>(n) * cols,
                           LOG_F == 0 ? nullptr : planes.r + n * residual_bytes<LOG_F>(cols), 0};
        update_row<LOG_F, Rule>(step, planes, row, grad + i * stride, aligned, n, fixed, directions, marks, words, squares + i,
                                grown + i);
        __syncthreads();
    }
}

// What an entry takes, and how it passes it on.
#define UPDATE_PARAMETERS                                                                                                 \
    int8_t *__restrict__ q, int8_t *__restrict__ r, float *__restrict__ scale, int8_t *__restrict__ first,                \
        uint16_t *__restrict__ first_scale, int8_t *__restrict__ second, uint16_t *__restrict__ second_scale,             \
        uint16_t *__restrict__ values, const uint8_t *__restrict__ protected_cols, const uint8_t *__restrict__ counts,    \
        const uint32_t *__restrict__ row_start, const float *__restrict__ grad, uint64_t stride,                          \
        int32_t *__restrict__ long_rows, double *__restrict__ squares, uint32_t *__restrict__ grown, uint32_t first_row,  \
        uint32_t rows, uint32_t cols, float grad_scale, float lr, float beta1, float beta2, float weight_decay,           \
        float eps, float unbias1, float unbias2, float noise, uint32_t dither, uint32_t rotated, uint64_t seed,           \
        uint32_t step, uint32_t tensor, uint32_t purpose
#define UPDATE(LOG_F, ...)                                                                                                \
    update_rows<LOG_F, __VA_ARGS__>({grad_scale, lr, beta1, beta2, weight_decay, eps, unbias1, unbias2, noise,            \
                                     philox(seed, step, tensor, purpose), dither, cols, rotated != 0},                    \
                                    {q, r, scale, first, second, first_scale, second_scale, values, protected_cols,       \
                                     counts, row_start},                                                                  \
                                    grad, stride, long_rows, squares, grown, first_row, rows)

extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r8_sqrt(UPDATE_PARAMETERS) {
    UPDATE(8, Lion<Sqrt>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r8_linear(UPDATE_PARAMETERS) {
    UPDATE(8, Lion<Linear>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r8_sqrt4(UPDATE_PARAMETERS) {
    UPDATE(8, Lion<Sqrt4>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, ADAMW_BLOCKS)
adamw_update_f32_i8_r8(UPDATE_PARAMETERS) {
    UPDATE(8, AdamW);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r4_sqrt(UPDATE_PARAMETERS) {
    UPDATE(4, Lion<Sqrt>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r4_linear(UPDATE_PARAMETERS) {
    UPDATE(4, Lion<Linear>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r4_sqrt4(UPDATE_PARAMETERS) {
    UPDATE(4, Lion<Sqrt4>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, ADAMW_BLOCKS)
adamw_update_f32_i8_r4(UPDATE_PARAMETERS) {
    UPDATE(4, AdamW);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r0_sqrt(UPDATE_PARAMETERS) {
    UPDATE(0, Lion<Sqrt>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r0_linear(UPDATE_PARAMETERS) {
    UPDATE(0, Lion<Linear>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, LION_BLOCKS)
lion_update_f32_i8_r0_sqrt4(UPDATE_PARAMETERS) {
    UPDATE(0, Lion<Sqrt4>);
}
extern "C" __global__ void __launch_bounds__(WARP * MAX_WARPS, ADAMW_BLOCKS)
adamw_update_f32_i8_r0(UPDATE_PARAMETERS) {
    UPDATE(0, AdamW);
}
