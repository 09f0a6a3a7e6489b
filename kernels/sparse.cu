// Products with the protected features v at (n, k) of a matrix [N, K]:
//   forward   y[t, n]  += a[t] * sum_k x[t, k] v        backward  dx[t, k] += sum_n dy[t, n] v
// where x[t, k] is the integer, of both digits where channel k is wide (wide.cuh).
//
// Shapes: x i8 [T, K] dense, a f32 [T]; y f32 [T, rows], dy f32 [T, rows], dx f32 [T, K], each with a stride; features as in
// features.cuh. `first_row` is the row of the matrix that column 0 of y and dy belongs to.
// Accumulator: f32 fused multiply-adds from zero, in the order of columns (forward) and rows (backward), as on the CPU:
// equal bit for bit; no float atomics, so deterministic.
// CPU twin: crates/qft-quant/src/cpu/sparse.rs.
// Bound: shared memory. A feature meets 16 tokens (forward) or 32 (backward) for each time its index is read.
#include "bytes.cuh"
#include "features.cuh"
#include "quads.cuh"
#include "wide.cuh"

// Four codes of a row of x, packed; those beyond the matrix are zero.
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

constexpr uint32_t BACKWARD_TOKENS = WARP;
constexpr uint32_t BACKWARD_WARPS = 8;
constexpr uint32_t BACKWARD_THREADS = WARP * BACKWARD_WARPS;
constexpr uint32_t BACKWARD_ROWS = 32;
// Features of a chunk of rows that are listed at a time.
constexpr uint32_t LIST = 256;

// A block per 256 columns and 32 tokens keeps the sums of all of them in shared memory, a lane per token. Features come by
// in row order, 32 rows and at most 256 features at a time: all threads list them, then each warp takes those of its own 32
// columns, in the order of the list. A sum has one writer.
// Grid: (ceil(K / 256), ceil(T / 32)).
extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS)
sparse_backward_f32_f32(const float* __restrict__ dy, uint64_t dy_stride, const uint16_t* __restrict__ values,
                        const uint8_t* __restrict__ feature_cols, const uint8_t* __restrict__ counts,
                        const uint32_t* __restrict__ row_start, float* __restrict__ dx, uint64_t dx_stride,
                        uint32_t first_row, uint32_t rows, uint32_t tokens, uint32_t cols) {
    // One more float a row than tokens: columns are read after rows were written, or the other way.
    __shared__ float sums[FEATURE_COLS][BACKWARD_TOKENS + 1];
    __shared__ float gradient[BACKWARD_ROWS][BACKWARD_TOKENS + 1];
    __shared__ uint32_t starts[BACKWARD_ROWS], ends[BACKWARD_ROWS];
    // Row within the chunk, column within the block, and the value's 16 bits.
    __shared__ uint32_t list[LIST];
    const uint32_t warp = warp_index(), lane = lane_index(), block = blockIdx.x, blocks = feature_blocks(cols);
    const uint32_t first_token = blockIdx.y * BACKWARD_TOKENS;
    for (uint32_t i = warp; i < FEATURE_COLS; i += BACKWARD_WARPS) sums[i][lane] = 0.0f;
    for (uint32_t chunk = 0; chunk < rows; chunk += BACKWARD_ROWS) {
        __syncthreads();
        for (uint32_t t = warp; t < BACKWARD_TOKENS; t += BACKWARD_WARPS) {
            const bool inside = chunk + lane < rows && first_token + t < tokens;
            gradient[lane][t] = inside ? dy[(first_token + t) * dy_stride + chunk + lane] : 0.0f;
        }
        // First warp: where the features of each row's block begin, and where in the list.
        if (warp == 0) {
            uint32_t count = 0, start = 0;
            if (chunk + lane < rows) {
                const uint32_t n = first_row + chunk + lane;
                const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * blocks;
                start = row_start[n];
                for (uint32_t other = 0; other < block; ++other) start += row_counts[other];
                count = row_counts[block];
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
        const uint32_t total = ends[BACKWARD_ROWS - 1];
        for (uint32_t part = 0; part < total; part += LIST) {
            const uint32_t length = min(total - part, LIST), place = part + threadIdx.x;
            if (threadIdx.x < length) {
                // The first row that ends beyond this place.
                uint32_t row = 0;
                while (ends[row] <= place) ++row;
                const uint32_t feature = starts[row] + place - (row == 0 ? 0 : ends[row - 1]);
                list[threadIdx.x] = row << 24 | static_cast<uint32_t>(feature_cols[feature]) << 16 | values[feature];
            }
            __syncthreads();
            for (uint32_t first = 0; first < length; first += WARP) {
                const uint32_t entry = first + lane < length ? list[first + lane] : 0;
                const bool mine = first + lane < length && (entry >> 16 & 0xFF) / (FEATURE_COLS / BACKWARD_WARPS) == warp;
                for (uint32_t left = __ballot_sync(FULL_MASK, mine); left != 0; left &= left - 1) {
                    const uint32_t next = __shfl_sync(FULL_MASK, entry, __ffs(static_cast<int>(left)) - 1);
                    float& sum = sums[next >> 16 & 0xFF][lane];
                    sum = __fmaf_rn(gradient[next >> 24][lane], f32_from_bf16(static_cast<uint16_t>(next)), sum);
                }
            }
            __syncthreads();
        }
    }
    __syncthreads();
    const uint32_t width = min(cols - block * FEATURE_COLS, FEATURE_COLS);
    for (uint32_t t = warp; t < BACKWARD_TOKENS && first_token + t < tokens; t += BACKWARD_WARPS) {
        float* const out = dx + (first_token + t) * dx_stride + block * FEATURE_COLS;
        for (uint32_t col = lane; col < width; col += WARP) out[col] = out[col] + sums[col][t];
    }
}
