// Products with the protected weights v at (n, k) of a matrix [N, K]:
//   forward   y[t, n]  += a[t] * sum_k x[t, k] v        backward  dx[t, k] += z[t] * sum_n dy[t, n] (v / s[n])
// where x[t, k] is the integer, and dy[t, n] is the integer that stands for the gradient times the row's scale s[n].
//
// Shapes: x i8 [T, K] and dy i8 [T, rows], dense; a, z f32 [T]; s f32 [N]; y f32 [T, rows], dx f32 [T, K], each with a
// stride; protected weights as in protected.cuh. `first_row` is the row of the matrix that column 0 of y and dy belongs to.
// Accumulator: f32 fused multiply-adds from zero, in the order of columns (forward) and rows (backward), as on the CPU:
// equal bit for bit; no float atomics, so deterministic.
// CPU twin: crates/qft-quant/src/cpu/sparse.rs.
// Bound: instructions, for the 128 tokens that a weight meets in a warp 22 (forward) and 25 (backward); beside them 650 for
// 16 rows and 256 columns (forward), of them 300 for turning x, and 190 for 32 rows and 16 columns (backward).
#include "packed_bytes.cuh"
#include "protected.cuh"
#include "quad_access.cuh"

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

// Four codes of each of four tokens from `token` on, those beyond the matrix zero.
__device__ __forceinline__ void load_square(uint32_t (&codes)[QUAD], const int8_t* x, uint32_t token, uint32_t tokens,
                                            uint32_t col, uint32_t cols, bool aligned) {
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) codes[i] = col < cols ? load_codes(x, token + i, tokens, col, cols, aligned) : 0;
}

// The same, turned, into a tile of columns, four tokens a word: with the sign's bit flipped, a code is itself plus 128. A
// column has one more word than lanes, as four columns are written at a time.
__device__ __forceinline__ void store_square(uint32_t (*columns)[WARP + 1], uint32_t token_quad, uint32_t (&codes)[QUAD]) {
    transpose_bytes(codes, codes);
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) columns[i][token_quad] = codes[i] ^ 0x80808080u;
}

// The codes in a word of a tile.
__device__ __forceinline__ void unpack(float (&codes)[QUAD], uint32_t packed) {
#pragma unroll
    for (uint32_t t = 0; t < QUAD; ++t) {
        // The bits of 2^23 + 128 + code: exact, and faster than a conversion.
        codes[t] = __uint_as_float(__byte_perm(packed, 0x4B000000u, 0x7440u | t)) - 8388736.0f;
    }
}

// Where the protected weights of one row in one block of columns are, among those of 32 rows, which are numbered row by row:
// number i of them, if it is one of this row, is weight `offset + i`; `end` is the first number behind the row.
struct __align__(8) Places {
    uint32_t offset, end;
};

// The places of 32 rows, a lane each, from the first weight of each and their number.
__device__ __forceinline__ Places places_of(uint32_t first, uint32_t count) {
    uint32_t end = count;
#pragma unroll
    for (uint32_t distance = 1; distance < WARP; distance <<= 1) {
        const uint32_t before = __shfl_up_sync(FULL_MASK, end, distance);
        if (lane_index() >= distance) end += before;
    }
    return {first + count - end, end};
}

// How many protected weights the rows have together.
__device__ __forceinline__ uint32_t protected_count(Places places) { return __shfl_sync(FULL_MASK, places.end, WARP - 1); }

// The row, from 0 to 31, of weight `number`, which each lane may choose. All lanes call together.
__device__ __forceinline__ uint32_t row_of(Places places, uint32_t number) {
    // The first row that ends behind the number.
    uint32_t row = 0;
#pragma unroll
    for (uint32_t step = WARP / 2; step != 0; step /= 2) {
        if (__shfl_sync(FULL_MASK, places.end, row + step - 1) <= number) row += step;
    }
    return row;
}

constexpr uint32_t FEW_TOKENS = 16;
constexpr uint32_t FEW_ROWS = 256;
constexpr uint32_t FEW_COLS = 2048;

// For few tokens, as in generation: a thread per row of the matrix, which keeps the sums of 16 tokens in registers and walks
// through the protected weights of its row; x passes by in tiles of 2048 columns, transposed, so that a weight finds its 16
// tokens in one 16-byte word.
// Grid: (ceil(rows / 256), ceil(T / 16)).
extern "C" __global__ void __launch_bounds__(FEW_ROWS, 3)
sparse_forward_few_i8_f32(const int8_t* __restrict__ x, const float* __restrict__ x_scale,
                          const uint16_t* __restrict__ values, const uint8_t* __restrict__ protected_cols,
                          const uint8_t* __restrict__ counts, const uint32_t* __restrict__ row_start, float* __restrict__ y,
                          uint64_t stride, uint32_t first_row, uint32_t rows, uint32_t tokens, uint32_t cols) {
    __shared__ uint4 tile[FEW_COLS];
    const uint32_t row = blockIdx.x * FEW_ROWS + threadIdx.x, first_token = blockIdx.y * FEW_TOKENS;
    const uint32_t blocks = protected_blocks(cols), n = first_row + row;
    const bool aligned = quads_aligned(x, cols);
    const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * blocks;
    uint32_t at = row < rows ? row_start[n] : 0;
    float sums[FEW_TOKENS] = {};
    for (uint32_t first_col = 0; first_col < cols; first_col += FEW_COLS) {
        const uint32_t width = min(cols - first_col, FEW_COLS);
        __syncthreads();
        for (uint32_t col = QUAD * threadIdx.x; col < width; col += QUAD * FEW_ROWS) {
            uint32_t columns[QUAD][FEW_TOKENS / QUAD];
#pragma unroll
            for (uint32_t t = 0; t < FEW_TOKENS; t += QUAD) {
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
        for (uint32_t col = 0; col < width; col += PROTECTED_COLS) {
            const uint32_t end = at + row_counts[(first_col + col) / PROTECTED_COLS];
            for (; at < end; ++at) {
                const float value = f32_from_bf16(values[at]);
                const uint4 codes = tile[col + protected_cols[at]];
                const uint32_t packed[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
                for (uint32_t t = 0; t < FEW_TOKENS; ++t) {
                    const int32_t code = static_cast<int8_t>(packed[t / 4] >> (t % 4 * 8));
                    sums[t] = __fmaf_rn(static_cast<float>(code), value, sums[t]);
                }
            }
        }
    }
    if (row >= rows) return;
#pragma unroll
    for (uint32_t t = 0; t < FEW_TOKENS; ++t) {
        const uint32_t token = first_token + t;
        if (token < tokens) {
            float* const out = y + token * stride + row;
            *out = *out + x_scale[token] * sums[t];
        }
    }
}

// A protected weight as it is read, ahead of its use: its row among the 32 and its column within the block of 256.
struct ProtectedWeight {
    uint32_t row, col, value;
};

// Weight `number` of 32 rows, consecutive numbers for the lanes of a warp; unspecified if there are fewer.
__device__ __forceinline__ ProtectedWeight read_protected(Places places, uint32_t number, const uint16_t* values,
                                                   const uint8_t* protected_cols) {
    ProtectedWeight weight = {};
    const uint32_t count = protected_count(places);
    if (number - lane_index() >= count) return weight;
    weight.row = row_of(places, number);
    const uint32_t place = __shfl_sync(FULL_MASK, places.offset, weight.row) + number;
    if (number < count) {
        weight.col = protected_cols[place];
        weight.value = values[place];
    }
    return weight;
}

// row[first + i] += factor * sums[i][t], except beyond `end`.
template <uint32_t COUNT>
__device__ __forceinline__ void add_scaled(float* row, uint32_t first, uint32_t end, bool aligned, float factor,
                                           const float (&sums)[COUNT][QUAD], uint32_t t) {
#pragma unroll
    for (uint32_t i = 0; i < COUNT; i += QUAD) {
        float out[QUAD];
        load_quad(out, row, first + i, 0, end, aligned);
#pragma unroll
        for (uint32_t j = 0; j < QUAD; ++j) out[j] = out[j] + factor * sums[i + j][t];
        store_quad(row, first + i, 0, end, aligned, out);
    }
}

constexpr uint32_t FORWARD_TOKENS = QUAD * WARP;
constexpr uint32_t FORWARD_WARPS = 8;
constexpr uint32_t FORWARD_THREADS = WARP * FORWARD_WARPS;
constexpr uint32_t WARP_ROWS = 16;
constexpr uint32_t FORWARD_ROWS = WARP_ROWS * FORWARD_WARPS;
// Protected weights that a warp holds at a time: three times as many as 1 % of 16 x 256.
constexpr uint32_t LISTED = 128;

// A protected weight in a list: its value as a float, and where its column begins in the tile.
struct __align__(8) Listed {
    uint32_t value, column;
};

// For many tokens: a block per 128 rows of the matrix and 128 tokens. A warp keeps the sums of 16 rows in registers, a lane
// those of four tokens. Columns come by in blocks of 256. A warp lists the protected weights of its rows in the block, row by
// row, and goes through them: a weight is the same for all lanes, which meet 128 tokens for one word of shared memory each.
// The list of the next block is on its way to registers meanwhile; the other block of threads on the multiprocessor computes
// while this one loads x.
// Grid: (ceil(rows / 128), ceil(T / 128)).
extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, 2)
sparse_forward_i8_f32(const int8_t* __restrict__ x, const float* __restrict__ x_scale,
                      const uint16_t* __restrict__ values, const uint8_t* __restrict__ protected_cols,
                      const uint8_t* __restrict__ counts, const uint32_t* __restrict__ row_start, float* __restrict__ y,
                      uint64_t stride, uint32_t first_row, uint32_t rows, uint32_t tokens, uint32_t cols) {
    __shared__ uint32_t tile[PROTECTED_COLS][WARP + 1];
    // One more than is listed, as each is read ahead.
    __shared__ Listed lists[FORWARD_WARPS][LISTED + 1];
    const uint32_t lane = lane_index(), blocks = protected_blocks(cols), first_token = blockIdx.y * FORWARD_TOKENS;
    const uint32_t warp_row = blockIdx.x * FORWARD_ROWS + warp_index() * WARP_ROWS;
    // A quad of tokens and a quad of columns to each thread; 32 columns at a time.
    const uint32_t token_quad = threadIdx.x / (WARP / QUAD), col_quad = threadIdx.x % (WARP / QUAD);
    const bool x_aligned = quads_aligned(x, cols);
    Listed* const list = lists[warp_index()];

    // The first 16 lanes hold a row each: its count in a block, and its first weight there.
    const bool has_row = lane < WARP_ROWS && warp_row + lane < rows;
    const uint32_t n = first_row + (has_row ? warp_row + lane : 0);
    const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * blocks;
    const auto read_count = [&](uint32_t block) { return has_row && block < blocks ? uint32_t{row_counts[block]} : 0; };
    // Weights `begin + lane`, `begin + 32 + lane` and so on of a block.
    ProtectedWeight weights[LISTED / WARP];
    const auto read_list = [&](Places places, uint32_t begin) {
#pragma unroll
        for (uint32_t i = 0; i < LISTED / WARP; ++i)
            weights[i] = read_protected(places, begin + i * WARP + lane, values, protected_cols);
    };
    const auto store_list = [&]() {
#pragma unroll
        for (uint32_t i = 0; i < LISTED / WARP; ++i)
            list[i * WARP + lane] = {weights[i].value << 16, weights[i].col * (WARP + 1)};
        __syncwarp();
    };

    uint32_t first = row_start[n], count = read_count(0), next_count = read_count(1);
    Places places = places_of(first, count);
    read_list(places, 0);
    const uint32_t* const lane_codes = &tile[0][lane];
    float sums[WARP_ROWS][QUAD] = {};
    for (uint32_t block = 0; block < blocks; ++block) {
        const uint32_t first_col = block * PROTECTED_COLS;
        __syncthreads();
#pragma unroll 4
        for (uint32_t i = 0; i < PROTECTED_COLS / WARP; ++i) {
            const uint32_t col = i * WARP + QUAD * col_quad;
            uint32_t codes[QUAD];
            load_square(codes, x, first_token + QUAD * token_quad, tokens, first_col + col, cols, x_aligned);
            store_square(&tile[col], token_quad, codes);
        }
        store_list();
        first += count;
        count = next_count;
        next_count = read_count(block + 2);
        const Places next_places = places_of(first, count);
        read_list(next_places, 0);
        __syncthreads();

        for (uint32_t begin = 0;;) {
            const uint32_t listed = min(max(places.end, begin) - begin, LISTED);
            const Listed* next = list;
            Listed weight = *next;
#pragma unroll
            for (uint32_t r = 0; r < WARP_ROWS; ++r) {
                const Listed* const end = list + __shfl_sync(FULL_MASK, listed, r);
                // Not unrolled: 16 copies of this fill the instruction cache as it is.
#pragma unroll 1
                while (next < end) {
                    float codes[QUAD];
                    unpack(codes, lane_codes[weight.column]);
                    const uint32_t value = weight.value;
                    weight = *++next;
#pragma unroll
                    for (uint32_t t = 0; t < QUAD; ++t) sums[r][t] = __fmaf_rn(codes[t], __uint_as_float(value), sums[r][t]);
                }
            }
            begin += LISTED;
            if (begin >= protected_count(places)) break;
            // More than the list holds: the rest, without haste. The weights of the next block are read again.
            read_list(places, begin);
            __syncwarp();
            store_list();
            if (begin + LISTED >= protected_count(places)) read_list(next_places, 0);
        }
        places = next_places;
    }
    const bool y_aligned = quads_aligned(y, stride);
#pragma unroll
    for (uint32_t t = 0; t < QUAD; ++t) {
        const uint32_t token = first_token + QUAD * lane + t;
        if (token < tokens) add_scaled(y + token * stride, warp_row, rows, y_aligned, x_scale[token], sums, t);
    }
}

constexpr uint32_t BACKWARD_TOKENS = QUAD * WARP;
constexpr uint32_t BACKWARD_WARPS = 8;
constexpr uint32_t BACKWARD_THREADS = WARP * BACKWARD_WARPS;
constexpr uint32_t BACKWARD_COLS = 128;
constexpr uint32_t WARP_COLS = BACKWARD_COLS / BACKWARD_WARPS;
// Rows of a chunk: a lane each, and a bit each in the mask of a column, the first row the highest one.
constexpr uint32_t BACKWARD_ROWS = WARP;
constexpr uint32_t FIRST_ROW_BIT = 0x80000000u;

constexpr uint32_t PLACES_THREADS = 128;

// Rows in the table of places: whole chunks, and two without any behind them, as places are read two chunks ahead.
__device__ __forceinline__ uint32_t padded_rows(uint32_t rows) { return (rows + 3 * WARP - 1) / WARP * WARP; }

// The places of all rows and of the blocks of columns from `first_block` on, [blocks, padded rows]: a thread per row goes
// through its counts once, lest each block of the backward product does so for each chunk.
// Grid: ceil(padded rows / 128).
extern "C" __global__ void __launch_bounds__(PLACES_THREADS)
sparse_places_u32(const uint8_t* __restrict__ counts, const uint32_t* __restrict__ row_start, Places* __restrict__ places,
                  uint32_t first_row, uint32_t rows, uint32_t first_block, uint32_t blocks, uint32_t cols) {
    const uint32_t row = blockIdx.x * PLACES_THREADS + threadIdx.x, padded = padded_rows(rows);
    // Whole warps leave: the sums below are those of all lanes.
    if (row >= padded) return;
    const bool inside = row < rows;
    const uint32_t n = first_row + (inside ? row : 0);
    const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * protected_blocks(cols);
    uint32_t first = row_start[n];
    for (uint32_t block = 0; block < first_block; ++block) first += row_counts[block];
#pragma unroll 4
    for (uint32_t block = 0; block < blocks; ++block) {
        const uint32_t count = inside ? row_counts[first_block + block] : 0;
        places[static_cast<uint64_t>(block) * padded + row] = places_of(first, count);
        first += count;
    }
}

// What takes the protected weights of a row to units of its scale; see SparseBackward.
__device__ __forceinline__ float inverse_of(float scale) { return scale >= 1.17549435e-38f ? __fdiv_rn(1.0f, scale) : 0.0f; }

// A block per 128 columns and 128 tokens: a warp keeps the sums of 16 columns in registers, a lane those of four tokens.
// Rows come by in chunks of 32. All threads spread the chunk's protected weights over a dense tile of values, and set the bit
// of their row in the mask of their column; then each warp goes through the masks of its columns, rows rising. A protected
// weight is the same for the whole warp, which meets 128 tokens for one word of shared memory a lane.
//
// While a chunk is multiplied, the gradient and the protected weights of the next one are on their way to registers, and the
// places of the one after: nobody waits for memory. Of the two buffers one is filled while slower warps still read the other,
// so one barrier a chunk is enough.
// Grid: (ceil(cols of the launch / 128), ceil(T / 128)); `places` are those of the blocks of columns from `first_block` on.
extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, 2)
sparse_backward_i8_f32(const int8_t* __restrict__ dy, const float* __restrict__ dy_scale, const float* __restrict__ scale,
                       const uint16_t* __restrict__ values, const uint8_t* __restrict__ protected_cols,
                       const Places* __restrict__ places, float* __restrict__ dx, uint64_t dx_stride, uint32_t first_row,
                       uint32_t rows, uint32_t first_block, uint32_t tokens, uint32_t cols) {
    __shared__ uint32_t gradient[2][BACKWARD_ROWS][WARP + 1];
    __shared__ float weights[2][BACKWARD_ROWS][BACKWARD_COLS];
    __shared__ __align__(16) uint32_t masks[2][BACKWARD_COLS];
    const uint32_t lane = lane_index(), first_token = blockIdx.y * BACKWARD_TOKENS;
    const uint32_t first_col = first_block * PROTECTED_COLS + blockIdx.x * BACKWARD_COLS;
    const uint32_t warp_col = warp_index() * WARP_COLS;
    // A quad of tokens and a quad of rows to each thread.
    const uint32_t token_quad = threadIdx.x / (BACKWARD_ROWS / QUAD), row_quad = threadIdx.x % (BACKWARD_ROWS / QUAD);
    const bool dy_aligned = quads_aligned(dy, rows);
    places += static_cast<uint64_t>(blockIdx.x / (PROTECTED_COLS / BACKWARD_COLS)) * padded_rows(rows) + lane;

    ProtectedWeight weight;
    float weight_scale = 0.0f;
    const auto read_weights = [&](uint32_t chunk, Places chunk_places, uint32_t number) {
        weight = read_protected(chunk_places, number, values, protected_cols);
        if (number < protected_count(chunk_places)) weight_scale = scale[first_row + chunk + weight.row];
    };
    const auto read_gradient = [&](uint32_t chunk, uint32_t(&codes)[QUAD]) {
        const uint32_t token = first_token + QUAD * token_quad;
        load_square(codes, dy, token, tokens, chunk + QUAD * row_quad, rows, dy_aligned);
    };

    uint32_t codes[QUAD];
    read_gradient(0, codes);
    Places chunk_places = places[0], next_places = places[BACKWARD_ROWS];
    read_weights(0, chunk_places, threadIdx.x);
    masks[threadIdx.x / BACKWARD_COLS][threadIdx.x % BACKWARD_COLS] = 0;
    __syncthreads();

    float sums[WARP_COLS][QUAD] = {};
    for (uint32_t chunk = 0, buffer = 0; chunk < rows; chunk += BACKWARD_ROWS, buffer ^= 1) {
        store_square(&gradient[buffer][QUAD * row_quad], token_quad, codes);
        const uint32_t count = protected_count(chunk_places);
        // Whole warps: the lanes look for their weights together.
        for (uint32_t number = threadIdx.x; number - lane < count; number += BACKWARD_THREADS) {
            if (number >= BACKWARD_THREADS) read_weights(chunk, chunk_places, number);
            // Columns of the other half of the block wrap, or are beyond.
            const uint32_t col = weight.col - first_col % PROTECTED_COLS;
            if (number < count && col < BACKWARD_COLS) {
                weights[buffer][weight.row][col] = f32_from_bf16(weight.value) * inverse_of(weight_scale);
                atomicOr(&masks[buffer][col], FIRST_ROW_BIT >> weight.row);
            }
        }
        read_gradient(chunk + BACKWARD_ROWS, codes);
        chunk_places = next_places;
        read_weights(chunk + BACKWARD_ROWS, chunk_places, threadIdx.x);
        next_places = places[chunk + 2 * BACKWARD_ROWS];
        __syncthreads();

        const uint32_t* const last_codes = &gradient[buffer][BACKWARD_ROWS - 1][lane];
        const float* const last_weights = &weights[buffer][BACKWARD_ROWS - 1][warp_col];
#pragma unroll
        for (uint32_t first = 0; first < WARP_COLS; first += QUAD) {
            const uint4 four = *reinterpret_cast<const uint4*>(&masks[buffer][warp_col + first]);
            uint32_t rows_left[QUAD] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (uint32_t i = 0; i < QUAD; ++i) {
                const uint32_t c = first + i;
                // Not unrolled: mostly there is one weight or none, and 16 copies of this fill the instruction cache as it is.
#pragma unroll 1
                while (rows_left[i] != 0) {
                    // Rows of the chunk that are behind the next one with a weight.
                    const uint32_t behind = 31 - __clz(static_cast<int>(rows_left[i]));
                    rows_left[i] ^= 1u << behind;
                    const float value = *(last_weights - behind * BACKWARD_COLS + c);
                    float codes_there[QUAD];
                    unpack(codes_there, *(last_codes - behind * (WARP + 1)));
#pragma unroll
                    for (uint32_t t = 0; t < QUAD; ++t) sums[c][t] = __fmaf_rn(codes_there[t], value, sums[c][t]);
                }
            }
        }
        // For the chunk after the next one; no other warp has read these.
        __syncwarp();
        if (lane < WARP_COLS) masks[buffer][warp_col + lane] = 0;
    }
    const bool dx_aligned = quads_aligned(dx, dx_stride);
#pragma unroll
    for (uint32_t t = 0; t < QUAD; ++t) {
        const uint32_t token = first_token + QUAD * lane + t;
        if (token < tokens)
            add_scaled(dx + token * dx_stride, first_col + warp_col, cols, dx_aligned, dy_scale[token], sums, t);
    }
}
