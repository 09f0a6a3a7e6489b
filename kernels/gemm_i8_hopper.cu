// INT8 products on the tensor cores of Hopper (sm_90a): gemm_i8_f32_nt and _nn of gemm_i8.cu, the same bits, by products of
// whole warpgroups. Those alone reach the rate of an H100's tensor cores: they read operands from shared memory, where
// mma.sync needs them in registers first.
//
//   nt: out[m, n] (+)= f32(sum_k a[m, k] b[n, k]) * row_scale[m] * col_scale[n]
//   nn: out[m, n] (+)= f32(sum_k a[m, k] b[k, n]) * row_scale[m] * col_scale[n], or the whole numbers of gemm_i8_i32
//
// Shapes: a [M, K], b [N, K] or [K, N], out f32 [M, N], row_scale [M], col_scale [N], each scale may be absent; any row
// strides. Rows of a and b are 16-byte aligned.
// The instruction takes 8-bit operands that are contiguous along k, the second one from shared memory. nn therefore
// computes out^T = b^T a^T: a is contiguous along k as it is stored, and b turns on its way to the registers of the first
// operand. A product a^T b becomes nn by transposing a in memory first (transpose.cu), which is the smaller operand.
// Grid: one block per 128 x 256 (nt) or 256 x 128 (nn) of the result, one-dimensional, in bands (include/tile_order.cuh). Two
// warpgroups compute 64 x 256 each, in nn of the transposed result. Dynamic shared memory: 4 tiles of 128 steps of k,
// (128 + 256) * 128 bytes each, and 1024 bytes by which their start is aligned.
// Pipeline: the products of a step run while those of the next are started, so a tile is free two steps after it was
// started; the copies into it are then those of two steps ahead. One barrier a step. In nn the registers of a step are
// loaded while the products of the step before run.
// Accumulator: exact i32, K <= 131,071. Rounding: as gemm_i8.cu. CPU twin: crates/qft-tensor/src/cpu/gemm.rs.
// Speed: not yet run on a GPU; docs/KERNELS.md says what should bound it.
#include "gemm_epilogue.cuh"
#include "gemm_tile.cuh"
#include "packed_bytes.cuh"
#include "tile_order.cuh"
#include "wgmma.cuh"

namespace {

// Of the result, or of the transposed one: rows and columns of a block's tile. `LARGE` is the second operand's.
constexpr uint32_t SMALL = 128, LARGE = 256, STAGES = 4, THREADS = 256;
constexpr uint32_t SMALL_BYTES = SMALL * SWIZZLE_ROW, STAGE_BYTES = (SMALL + LARGE) * SWIZZLE_ROW;
// Rows between two copies of one thread: eight threads copy a row.
constexpr uint32_t ROW_STEP = THREADS / (SWIZZLE_ROW / CHUNK);
// Instructions of one step.
constexpr uint32_t SLICES = SWIZZLE_ROW / WGMMA_K;

using Sums = int32_t[128];

// The column of the result that is row `row` of the second operand of nt in shared memory: a thread's sums are two
// neighbouring columns of every eight, and this makes them four neighbouring columns of every sixteen.
__device__ __forceinline__ uint32_t column_of(uint32_t row) {
    return row / 16 * 16 + row % 8 / 2 * 4 + row / 8 % 2 * 2 + row % 2;
}
__device__ __forceinline__ uint32_t row_of(uint32_t column) {
    return column / 16 * 16 + column / 2 % 2 * 8 + column / 4 % 4 * 2 + column % 2;
}

// The first `left` of a chunk's bytes are inside of a matrix.
__device__ __forceinline__ int32_t bytes_of_chunk(int32_t left) { return min(max(left, 0), static_cast<int32_t>(CHUNK)); }

// Starts a thread's copies of a tile of ROWS rows: a chunk of every ROW_STEP-th, of which `rows_left` from the first on exist,
// and of each the first `bytes` bytes.
template <uint32_t ROWS>
__device__ __forceinline__ void copy_chunks(uint8_t* to, const int8_t* source, uint64_t stride, int32_t rows_left,
                                            int32_t bytes) {
#pragma unroll
    for (uint32_t i = 0; i < ROWS / ROW_STEP; ++i) {
        const bool inside = rows_left > static_cast<int32_t>(i * ROW_STEP);
        copy_async_16_zero_fill(to + i * ROW_STEP * SWIZZLE_ROW, source + i * ROW_STEP * stride,
                                static_cast<uint32_t>(inside ? bytes : 0));
    }
}

// One thread's part in copying the tiles of an operand that follow each other along k; outside of the matrix they are
// zero. The operand is contiguous along k, and its tiles are [ROWS][128 of k]: operands of products.
template <uint32_t ROWS, bool COLUMNS>
struct Copies {
    const int8_t* source;
    uint64_t stride;
    uint32_t position;
    int32_t rows_left, bytes_left;

    __device__ __forceinline__ Copies(const Operand& operand, uint32_t first, uint32_t k) {
        const uint32_t row = threadIdx.x / (SWIZZLE_ROW / CHUNK), chunk = threadIdx.x % (SWIZZLE_ROW / CHUNK);
        stride = operand.stride;
        source = operand.data + static_cast<uint64_t>(first + row) * stride + chunk * CHUNK;
        // A thread's rows are 32 apart, which changes neither their place among sixteen nor the swizzle.
        position = swizzled_position(COLUMNS ? row_of(row) : row, chunk);
        rows_left = static_cast<int32_t>(operand.outer - first) - static_cast<int32_t>(row);
        bytes_left = static_cast<int32_t>(k) - static_cast<int32_t>(chunk * CHUNK);
    }

    __device__ __forceinline__ void next(uint8_t* tile) {
        copy_chunks<ROWS>(tile + position, source, stride, rows_left, bytes_of_chunk(bytes_left));
        source += SWIZZLE_ROW;
        bytes_left -= SWIZZLE_ROW;
    }
};

// The same of the operand b [K, N] of nn, whose tiles are [128 of k][128 columns] as they are stored. Chunk c of row r lies
// at c ^ (r % 2 + 2 (r / 4 % 4)), so that `load_columns` has no bank conflicts: include/gemm_tile.cuh.
struct StoredCopies {
    const int8_t* source;
    uint64_t stride;
    uint32_t position;
    int32_t rows_left, bytes;

    __device__ __forceinline__ StoredCopies(const Operand& operand, uint32_t first, uint32_t k) {
        const uint32_t row = threadIdx.x / (SWIZZLE_ROW / CHUNK), chunk = threadIdx.x % (SWIZZLE_ROW / CHUNK);
        stride = operand.stride;
        source = operand.data + row * stride + first + chunk * CHUNK;
        position = row * SWIZZLE_ROW + (chunk ^ (row % 2 + row / 4 % 4 * 2)) * CHUNK;
        rows_left = static_cast<int32_t>(k) - static_cast<int32_t>(row);
        bytes = bytes_of_chunk(static_cast<int32_t>(operand.outer - first) - static_cast<int32_t>(chunk * CHUNK));
    }

    __device__ __forceinline__ void next(uint8_t* tile) {
        copy_chunks<SWIZZLE_ROW>(tile + position, source, stride, rows_left, bytes);
        source += SWIZZLE_ROW * stride;
        rows_left -= SWIZZLE_ROW;
    }
};

// The first operand of nn's products, of all slices of a step: the 16 columns of a stored tile that are this warp's. Row g
// of it is column 2g, row g + 8 column 2g + 1.
__device__ __forceinline__ void load_columns(uint32_t (&words)[SLICES][4], const uint8_t* tile) {
    const uint32_t matrix = lane_index() / 8, r = lane_index() % 8;
    // Row r of a matrix is k = 4 (r / 2) + r % 2, of every second matrix k + 2: its chunk has been exchanged with r.
    const uint8_t* row = tile + (matrix / 2 * 16 + r / 2 * 4 + matrix % 2 * 2 + r % 2) * SWIZZLE_ROW + (warp_index() ^ r) * CHUNK;
#pragma unroll
    for (uint32_t slice = 0; slice < SLICES; ++slice) {
        uint32_t loaded[4];
        load_matrices_x4_transposed(loaded, row + slice * WGMMA_K * SWIZZLE_ROW);
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
            words[slice][2 * half] = __byte_perm(loaded[2 * half], loaded[2 * half + 1], 0x6420);
            words[slice][2 * half + 1] = __byte_perm(loaded[2 * half], loaded[2 * half + 1], 0x7531);
        }
    }
}

// Adds the products of all steps: `start(parity, small tile, large tile)` starts those of one, where `parity` is the step's
// modulo PARITIES.
template <uint32_t PARITIES, class Small, class Large, class Start>
__device__ __forceinline__ void multiply(Sums& sums, uint8_t* shared, Small& small, Large& large, uint32_t k, const Start& start) {
    // At least one round, of zeros, and a loop that always runs: else the assembler lets each product wait for the one before.
    const uint32_t round = PARITIES * SWIZZLE_ROW, steps = max((k + round - 1) / round, 1u) * PARITIES;
#pragma unroll 1
    for (uint32_t stage = 0; stage < STAGES - 2; ++stage) {
        if (stage < steps) {
            small.next(shared + stage * STAGE_BYTES);
            large.next(shared + stage * STAGE_BYTES + SMALL_BYTES);
        }
        copy_async_commit();
    }
    uint32_t step = 0;
#pragma unroll 1
    do {
#pragma unroll
        for (uint32_t parity = 0; parity < PARITIES; ++parity, ++step) {
            copy_async_wait<STAGES - 3>();
            fence_async_proxy();
            // Behind this barrier the tile of this step is complete and visible to products, and those of two steps before
            // are done in both warpgroups.
            __syncthreads();
            start(parity, step % STAGES * STAGE_BYTES);
            wgmma_commit();
            if (step + STAGES - 2 < steps) {
                uint8_t* write = shared + (step + STAGES - 2) % STAGES * STAGE_BYTES;
                small.next(write);
                large.next(write + SMALL_BYTES);
            }
            copy_async_commit();
            wgmma_wait<1>();
        }
    } while (step < steps);
    wgmma_wait_all(sums);
}

// Writes the thread's cells of nt: two rows, m0 and m0 + 8.
__device__ __forceinline__ void finish_nt(const Sums& sums, const Epilogue<AsFloats>& e, uint32_t m0, uint32_t n0, uint32_t m_end,
                                          uint32_t n_end, bool inside) {
    const auto at = [&](uint32_t index) {
        const uint32_t h = index % 2, j = index / 2;
        const int32_t* first = sums + 8 * j + 2 * h;
        return Cells<4>{m0 + 8 * h, n0 + j * 16 + lane_index() % 4 * 4, {first[0], first[1], first[4], first[5]}};
    };
    e.write<4, LARGE / 8>(at, m_end, n_end, inside);
}

// Writes the thread's cells of nn: two columns, n0 and n0 + 1, whose rows begin with m0.
template <class End>
__device__ __forceinline__ void finish_nn(const Sums& sums, const Epilogue<End>& e, uint32_t m0, uint32_t n0, uint32_t m_end,
                                          uint32_t n_end, bool inside) {
    const auto at = [&](uint32_t index) {
        const uint32_t element = index % 2, j = index / 2;
        const uint32_t m = m0 + 8 * j + lane_index() % 4 * 2 + element;
        return Cells<2>{m, n0, {sums[4 * j + element], sums[4 * j + 2 + element]}};
    };
    e.template write<2, LARGE / 4>(at, m_end, n_end, inside);
}

// out (+)= a b, of which a block computes 256 x 128.
template <class End>
__device__ __forceinline__ void run_nn(const Operand& a, const Operand& b, uint32_t k, const Epilogue<End>& e) {
    DYN_SHARED(uint8_t, unaligned);
    uint8_t* shared = unaligned + (0u - shared_address(unaligned)) % SWIZZLE_PATTERN;
    const uint32_t m = a.outer, n = b.outer;
    const TilePlace tile = tile_place((m + LARGE - 1) / LARGE, (n + SMALL - 1) / SMALL);
    const uint32_t m0 = tile.row * LARGE, n0 = tile.column * SMALL;

    Sums sums = {};
    StoredCopies small(b, n0, k);
    Copies<LARGE, false> large(a, m0, k);
    const uint64_t a_tiles = wgmma_descriptor(shared_address(shared) + SMALL_BYTES);
    // Of two steps: the products of one read theirs while those of the next are loaded.
    uint32_t words[2][SLICES][4];
    multiply<2>(sums, shared, small, large, k, [&](uint32_t parity, uint32_t stage) {
        load_columns(words[parity], shared + stage);
        const uint64_t a_tile = wgmma_advance(a_tiles, stage);
        wgmma_fence();
#pragma unroll
        for (uint32_t i = 0; i < SLICES; ++i) {
            wgmma_s8_m64n256k32(sums, words[parity][i], wgmma_advance(a_tile, i * WGMMA_K));
        }
    });
    finish_nn(sums, e, m0, n0 + warp_index() * 16 + lane_index() / 4 * 2, m, n, m0 + LARGE <= m && n0 + SMALL <= n);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_f32_nt_hopper(const int8_t* __restrict__ a_data, uint64_t a_stride, const int8_t* __restrict__ b_data,
                      uint64_t b_stride, const float* __restrict__ row_scale, const float* __restrict__ col_scale,
                      float* __restrict__ out, uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k,
                      uint32_t accumulate) {
    DYN_SHARED(uint8_t, unaligned);
    uint8_t* shared = unaligned + (0u - shared_address(unaligned)) % SWIZZLE_PATTERN;
    const TilePlace tile = tile_place((m + SMALL - 1) / SMALL, (n + LARGE - 1) / LARGE);
    const uint32_t m0 = tile.row * SMALL, n0 = tile.column * LARGE;
    const Operand a = {a_data, a_stride, m}, b = {b_data, b_stride, n};
    // The same for all lanes, which the compiler cannot see from the index of a thread.
    const uint32_t group = __shfl_sync(FULL_MASK, threadIdx.x / WARPGROUP, 0);
    const uint32_t row = warp_index() * 16 + lane_index() / 4;

    Sums sums = {};
    Copies<SMALL, false> small(a, m0, k);
    Copies<LARGE, true> large(b, n0, k);
    const uint64_t a_tiles = wgmma_descriptor(shared_address(shared) + group * 64 * SWIZZLE_ROW);
    const uint64_t b_tiles = wgmma_descriptor(shared_address(shared) + SMALL_BYTES);
    multiply<1>(sums, shared, small, large, k, [&](uint32_t, uint32_t stage) {
        const uint64_t a_tile = wgmma_advance(a_tiles, stage), b_tile = wgmma_advance(b_tiles, stage);
        wgmma_fence();
#pragma unroll
        for (uint32_t i = 0; i < SLICES; ++i) {
            wgmma_s8_m64n256k32(sums, wgmma_advance(a_tile, i * WGMMA_K), wgmma_advance(b_tile, i * WGMMA_K));
        }
    });
    finish_nt(sums, {row_scale, col_scale, out, out_stride, accumulate != 0, {}}, m0 + row, n0, m, n,
              m0 + SMALL <= m && n0 + LARGE <= n);
}

extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_f32_nn_hopper(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                      const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                      uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    run_nn({a, a_stride, m}, {b, b_stride, n}, k,
           Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}

extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_i32_nn_hopper(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                      const float* __restrict__ row_scale, const float* __restrict__ col_scale, int32_t* __restrict__ out,
                      uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate,
                      const float* __restrict__ bound, uint32_t count) {
    run_nn({a, a_stride, m}, {b, b_stride, n}, k,
           Epilogue<AsUnits>{row_scale, col_scale, out, out_stride, accumulate != 0, {bound, count}});
}
