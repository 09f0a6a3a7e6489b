// Products with the protected features v at (n, k) of a matrix [N, K]:
//   forward   y[t, n]  += a[t] * sum_k x[t, k] v        backward  dx[t, k] += z[t] * sum_n dy[t, n] (v / s[n])
// where x[t, k] is the integer, of both digits where channel k is wide (wide.cuh), and dy[t, n] is the integer that stands
// for the gradient times the row's scale s[n].
//
// Shapes: x i8 [T, K] and dy i8 [T, rows], dense; a, z f32 [T]; s f32 [N]; y f32 [T, rows], dx f32 [T, K], each with a
// stride; features as in features.cuh. `first_row` is the row of the matrix that column 0 of y and dy belongs to.
// Accumulator: f32 fused multiply-adds from zero, in the order of columns (forward) and rows (backward), as on the CPU:
// equal bit for bit; no float atomics, so deterministic.
// CPU twin: crates/qft-quant/src/cpu/sparse.rs.
// Bound: shared memory (forward), where a thread's feature finds 16 tokens in a word of 16 bytes; instructions (backward), about
// 30 for the 128 tokens that a feature meets in a warp.
#include "bytes.cuh"
#include "features.cuh"
#include "quads.cuh"
#include "wide.cuh"

// Four codes of a row of x or dy, packed; those beyond the matrix are zero.
__device__ __forceinline__ uint32_t load_codes(const int8_t* x, uint32_t token, uint32_t tokens, uint32_t col, uint32_t cols,
                                               bool aligned) {
    if (token >= tokens) return 0;
    const uint8_t* const row = reinterpret_cast<const uint8_t*>(x) + static_cast<uint64_t>(token) * cols;
    if (aligned) return *reinterpret_cast<const uint32_t*>(row + col);
    uint32_t packed = 0;
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) {
        if (col + i < cols) packed |= static_cast<uint32_t>(row[col + i]) << 8 * i;
    }
    return packed;
}

constexpr uint32_t FORWARD_TOKENS = 16;
constexpr uint32_t FORWARD_ROWS = 256;
constexpr uint32_t FORWARD_COLS = 2048;

// A thread per row of the matrix, which keeps the sums of 16 tokens in registers and walks through the features of its row;
// x passes by in tiles of 2048 columns, transposed, so that a feature finds its 16 tokens in one 16-byte word.
// Grid: (ceil(rows / 256), ceil(T / 16)).
extern "C" __global__ void __launch_bounds__(FORWARD_ROWS, 3)
sparse_forward_i8_f32(const int8_t* __restrict__ x, const float* __restrict__ x_scale,
                      const uint32_t* __restrict__ channels, const int8_t* __restrict__ high,
                      const uint16_t* __restrict__ values,
                      const uint8_t* __restrict__ feature_cols, const uint8_t* __restrict__ counts,
                      const uint32_t* __restrict__ row_start, float* __restrict__ y, uint64_t stride, uint32_t first_row,
                      uint32_t rows, uint32_t tokens, uint32_t cols) {
    __shared__ uint4 tile[FORWARD_COLS];
    // Second digits of the tokens, by place.
    __shared__ __align__(16) int8_t seconds[WIDE][FORWARD_TOKENS];
    const uint32_t row = blockIdx.x * FORWARD_ROWS + threadIdx.x, first_token = blockIdx.y * FORWARD_TOKENS;
    const uint32_t blocks = feature_blocks(cols), n = first_row + row;
    const bool aligned = quads_aligned(x, cols);
    const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * blocks;
    uint32_t feature = row < rows ? row_start[n] : 0;
    float sums[FORWARD_TOKENS] = {};
    // Wide channels are in front of the places that are not used; mostly there are none.
    uint32_t wide = 0;
    while (channels && wide < WIDE && channels[wide] < cols) ++wide;
    if (threadIdx.x < WIDE * FORWARD_TOKENS && wide != 0) {
        const uint32_t token = first_token + threadIdx.x / WIDE, place = threadIdx.x % WIDE;
        seconds[place][threadIdx.x / WIDE] = token < tokens ? high[static_cast<uint64_t>(token) * WIDE + place] : 0;
    }
    for (uint32_t first_col = 0; first_col < cols; first_col += FORWARD_COLS) {
        const uint32_t width = min(cols - first_col, FORWARD_COLS);
        __syncthreads();
        for (uint32_t col = QUAD * threadIdx.x; col < width; col += QUAD * FORWARD_ROWS) {
            uint32_t columns[QUAD][FORWARD_TOKENS / QUAD];
#pragma unroll
            for (uint32_t t = 0; t < FORWARD_TOKENS; t += QUAD) {
                uint32_t codes[QUAD];
#pragma unroll
                for (uint32_t i = 0; i < QUAD; ++i)
                    codes[i] = load_codes(x, first_token + t + i, tokens, first_col + col, cols, aligned);
                transpose_bytes(codes, codes);
#pragma unroll
                for (uint32_t i = 0; i < QUAD; ++i) columns[i][t / QUAD] = codes[i];
            }
#pragma unroll
            for (uint32_t i = 0; i < QUAD; ++i)
                tile[col + i] = make_uint4(columns[i][0], columns[i][1], columns[i][2], columns[i][3]);
        }
        __syncthreads();
        if (row >= rows) continue;
        for (uint32_t col = 0; col < width; col += FEATURE_COLS) {
            const uint32_t end = feature + row_counts[(first_col + col) / FEATURE_COLS];
            for (; feature < end; ++feature) {
                const float value = f32_from_bf16(values[feature]);
                const uint4 codes = tile[col + feature_cols[feature]];
                const uint32_t packed[4] = {codes.x, codes.y, codes.z, codes.w};
                uint32_t place = 0;
                while (place < wide && channels[place] != first_col + col + feature_cols[feature]) ++place;
#pragma unroll
                for (uint32_t t = 0; t < FORWARD_TOKENS; ++t) {
                    int32_t code = static_cast<int8_t>(packed[t / 4] >> (t % 4 * 8));
                    if (place < wide) code += WIDE_RADIX * seconds[place][t];
                    sums[t] = __fmaf_rn(static_cast<float>(code), value, sums[t]);
                }
            }
        }
    }
    if (row >= rows) return;
#pragma unroll
    for (uint32_t t = 0; t < FORWARD_TOKENS; ++t) {
        const uint32_t token = first_token + t;
        if (token < tokens) {
            float* const out = y + token * stride + row;
            *out = *out + x_scale[token] * sums[t];
        }
    }
}

constexpr uint32_t BACKWARD_TOKENS = QUAD * WARP;
constexpr uint32_t BACKWARD_WARPS = 8;
constexpr uint32_t BACKWARD_THREADS = WARP * BACKWARD_WARPS;
constexpr uint32_t BACKWARD_COLS = 128;
constexpr uint32_t WARP_COLS = BACKWARD_COLS / BACKWARD_WARPS;
// Rows of a chunk: a bit each in the mask of a column.
constexpr uint32_t BACKWARD_ROWS = WARP;

// What takes the features of a row to units of its scale; see SparseBackward.
__device__ __forceinline__ float inverse_of(float scale) { return scale >= 1.17549435e-38f ? __fdiv_rn(1.0f, scale) : 0.0f; }

// A block per 128 columns and 128 tokens: a warp keeps the sums of 16 columns in registers, a lane those of four tokens.
// Rows come by in chunks of 32. All threads spread the chunk's features over a dense tile of values, and set the bit of
// their row in the mask of their column; then each warp goes through the masks of its columns, rows rising. A feature is
// the same for the whole warp, which meets 128 tokens for one word of shared memory a lane.
// Grid: (ceil(K / 128), ceil(T / 128)).
extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, 2)
sparse_backward_i8_f32(const int8_t* __restrict__ dy, const float* __restrict__ dy_scale, const float* __restrict__ scale,
                       const uint16_t* __restrict__ values, const uint8_t* __restrict__ feature_cols,
                       const uint8_t* __restrict__ counts, const uint32_t* __restrict__ row_start, float* __restrict__ dx,
                       uint64_t dx_stride, uint32_t first_row, uint32_t rows, uint32_t tokens, uint32_t cols) {
    // Four tokens a word. One more word a row than lanes: four rows are written at a time.
    __shared__ uint32_t gradient[BACKWARD_ROWS][WARP + 1];
    __shared__ float features[BACKWARD_ROWS][BACKWARD_COLS];
    __shared__ uint32_t masks[BACKWARD_COLS];
    __shared__ uint32_t starts[BACKWARD_ROWS], ends[BACKWARD_ROWS];
    __shared__ float inverses[BACKWARD_ROWS];
    const uint32_t lane = lane_index(), blocks = feature_blocks(cols), first_token = blockIdx.y * BACKWARD_TOKENS;
    const uint32_t first_col = blockIdx.x * BACKWARD_COLS, block = first_col / FEATURE_COLS;
    const uint32_t warp_col = warp_index() * WARP_COLS;
    // A quad of tokens and a quad of rows to each thread.
    const uint32_t token_quad = threadIdx.x / (BACKWARD_ROWS / QUAD), row_quad = threadIdx.x % (BACKWARD_ROWS / QUAD);
    const bool dy_aligned = quads_aligned(dy, rows);
    float sums[WARP_COLS][QUAD] = {};
    for (uint32_t chunk = 0; chunk < rows; chunk += BACKWARD_ROWS) {
        __syncthreads();
        uint32_t codes[QUAD] = {};
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            const uint32_t row = chunk + QUAD * row_quad;
            if (row < rows) codes[i] = load_codes(dy, first_token + QUAD * token_quad + i, tokens, row, rows, dy_aligned);
        }
        transpose_bytes(codes, codes);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) gradient[QUAD * row_quad + i][token_quad] = codes[i];
        if (threadIdx.x < BACKWARD_COLS) masks[threadIdx.x] = 0;
        // First warp: where the features of each row's block begin, and how many there are up to the row.
        if (threadIdx.x < WARP) {
            uint32_t count = 0, start = 0;
            if (chunk + lane < rows) {
                const uint32_t n = first_row + chunk + lane;
                const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * blocks;
                start = row_start[n];
                for (uint32_t other = 0; other < block; ++other) start += row_counts[other];
                count = row_counts[block];
                inverses[lane] = inverse_of(scale[n]);
            }
            uint32_t end = count;
#pragma unroll
            for (uint32_t distance = 1; distance < WARP; distance <<= 1) {
                const uint32_t before = __shfl_up_sync(FULL_MASK, end, distance);
                if (lane >= distance) end += before;
            }
            starts[lane] = start;
            ends[lane] = end;
        }
        __syncthreads();
        for (uint32_t place = threadIdx.x; place < ends[BACKWARD_ROWS - 1]; place += BACKWARD_THREADS) {
            // The first row that ends beyond this place.
            uint32_t row = 0;
            while (ends[row] <= place) ++row;
            const uint32_t feature = starts[row] + place - (row == 0 ? 0 : ends[row - 1]);
            // Columns of the other half of the block wrap, or are beyond.
            const uint32_t col = block * FEATURE_COLS + feature_cols[feature] - first_col;
            if (col < BACKWARD_COLS) {
                features[row][col] = f32_from_bf16(values[feature]) * inverses[row];
                atomicOr(&masks[col], 1u << row);
            }
        }
        __syncthreads();
#pragma unroll
        for (uint32_t c = 0; c < WARP_COLS; ++c) {
            // Not unrolled: mostly there is one feature or none, and 16 copies of this fill the instruction cache as it is.
#pragma unroll 1
            for (uint32_t left = masks[warp_col + c]; left != 0; left &= left - 1) {
                const uint32_t row = __ffs(static_cast<int>(left)) - 1;
                const float value = features[row][warp_col + c];
                // With the sign's bit flipped, a code is itself plus 128.
                const uint32_t packed = gradient[row][lane] ^ 0x80808080u;
#pragma unroll
                for (uint32_t t = 0; t < QUAD; ++t) {
                    // The bits of 2^23 + 128 + code: exact, and faster than a conversion.
                    const float shifted = __uint_as_float(__byte_perm(packed, 0x4B000000u, 0x7440u | t));
                    sums[c][t] = __fmaf_rn(shifted - 8388736.0f, value, sums[c][t]);
                }
            }
        }
    }
    const bool dx_aligned = quads_aligned(dx, dx_stride);
#pragma unroll
    for (uint32_t t = 0; t < QUAD; ++t) {
        const uint32_t token = first_token + QUAD * lane + t;
        if (token >= tokens) continue;
        float* const row = dx + token * dx_stride;
        const float factor = dy_scale[token];
#pragma unroll
        for (uint32_t c = 0; c < WARP_COLS; c += QUAD) {
            const uint32_t col = first_col + warp_col + c;
            float out[QUAD];
            load_quad(out, row, col, 0, cols, dx_aligned);
#pragma unroll
            for (uint32_t i = 0; i < QUAD; ++i) out[i] = out[i] + factor * sums[c + i][t];
            store_quad(row, col, 0, cols, dx_aligned, out);
        }
    }
}
