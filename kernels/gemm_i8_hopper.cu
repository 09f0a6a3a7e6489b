// INT8 product on the tensor cores of Hopper (sm_90a): gemm_i8_f32_nt of gemm_i8.cu, the same bits, by products of whole
// warpgroups. Those alone reach the rate of an H100's tensor cores: they read both operands from shared memory, where
// mma.sync needs them in registers first.
//
//   out[m, n] (+)= f32(sum_k a[m, k] b[n, k] + 128 sum_j high[m, j] b[n, c_j]) * row_scale[m] * col_scale[n]
//
// Shapes: a [M, K], b [N, K], out f32 [M, N], row_scale [M], col_scale [N], each scale may be absent; any row strides;
// high i8 [M, 8], channels u32 [8], which may be absent: include/wide.cuh. Rows of a and b are 16-byte aligned.
// Operands must be contiguous along k, for 8-bit types have no transposing form: the products of the backward pass stay
// with gemm_i8.cu, which transposes on the way to registers, where the second operand of this instruction cannot be.
// Grid: one block per 128 x 256 of the result, one-dimensional, in bands (include/raster.cuh). Two warpgroups compute
// 64 x 256 each. Dynamic shared memory: 4 tiles of 128 steps of k, (128 + 256) * 128 bytes each, and 1024 bytes by which
// their start is aligned.
// Pipeline: the products of a step run while those of the next are started, so a tile is free two steps after it was
// started; the copies into it are then those of two steps ahead. One barrier a step.
// Accumulator: exact i32, K <= 131,071. Rounding: as gemm_i8.cu. CPU twin: crates/qft-tensor/src/cpu/gemm.rs.
// Speed: not yet run on a GPU; docs/KERNELS.md says what should bound it.
#include "bytes.cuh"
#include "gemm_ends.cuh"
#include "gemm_tile.cuh"
#include "raster.cuh"
#include "wgmma.cuh"

namespace {

constexpr uint32_t BM = 128, BN = 256, STAGES = 4, THREADS = 256;
constexpr uint32_t A_BYTES = BM * SWIZZLE_ROW, STAGE_BYTES = (BM + BN) * SWIZZLE_ROW;
// Rows between two copies of one thread: eight threads copy a row.
constexpr uint32_t ROW_STEP = THREADS / (SWIZZLE_ROW / CHUNK);

using Sums = int32_t[128];

// The column of the result that is row `row` of the second operand in shared memory: a thread's sums are two neighbouring
// columns of every eight, and this makes them four neighbouring columns of every sixteen.
__device__ __forceinline__ uint32_t column_of(uint32_t row) {
    return row / 16 * 16 + row % 8 / 2 * 4 + row / 8 % 2 * 2 + row % 2;
}
__device__ __forceinline__ uint32_t row_of(uint32_t column) {
    return column / 16 * 16 + column / 2 % 2 * 8 + column / 4 % 4 * 2 + column % 2;
}

// One thread's part in copying the tiles of one operand that follow each other along k.
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

    // Starts copying the next tile to `tile`; outside of the matrix it is zero.
    __device__ __forceinline__ void next(uint8_t* tile) {
        const int32_t bytes = min(max(bytes_left, 0), static_cast<int32_t>(CHUNK));
#pragma unroll
        for (uint32_t i = 0; i < ROWS / ROW_STEP; ++i) {
            const bool inside = rows_left > static_cast<int32_t>(i * ROW_STEP);
            copy_async_16_zero_fill(tile + position + i * ROW_STEP * SWIZZLE_ROW, source + i * ROW_STEP * stride,
                                    static_cast<uint32_t>(inside ? bytes : 0));
        }
        source += SWIZZLE_ROW;
        bytes_left -= SWIZZLE_ROW;
    }
};

// Starts the sums with what the second digits of wide channels of `a` add, if there are any. `row` is the thread's first
// row within the tile.
__device__ __forceinline__ void start(Sums& sums, uint8_t* shared, const WideDigits& digits, const Operand& a, const Operand& b,
                                      uint32_t k, uint32_t m0, uint32_t n0, uint32_t row) {
    if (!digits.any()) return;
    int8_t* rows = reinterpret_cast<int8_t*>(shared);
    int8_t* columns = rows + BM * WIDE;
    stage_wide_digits<BM, BN, THREADS>(rows, columns, digits, b.data, b.stride, k, m0, a.outer, n0, b.outer);
    const uint32_t t = lane_index() % 4;
#pragma unroll
    for (uint32_t i = 0; i < 128; ++i) {
        const uint32_t m = row + i / 2 % 2 * 8, n = column_of(i / 4 * 8 + 2 * t + i % 2);
        const uint2 x = *reinterpret_cast<const uint2*>(rows + m * WIDE);
        const uint2 y = *reinterpret_cast<const uint2*>(columns + n * WIDE);
        sums[i] = WIDE_RADIX * dot_bytes(x.y, y.y, dot_bytes(x.x, y.x, 0));
    }
    __syncthreads();
}

// Writes the thread's two rows, m0 and m0 + 8.
__device__ __forceinline__ void finish(const Sums& sums, const Epilogue& e, uint32_t m0, uint32_t n0, uint32_t m_end,
                                       uint32_t n_end) {
    const bool vectors = e.vectors();
    float row_scale[2];
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
        row_scale[h] = e.row_scale != nullptr && m0 + 8 * h < m_end ? e.row_scale[m0 + 8 * h] : 1.0f;
    }
#pragma unroll
    for (uint32_t j = 0; j < BN / 16; ++j) {
        const uint32_t n = n0 + j * 16 + lane_index() % 4 * 4;
        if (n >= n_end) continue;
        const uint32_t columns = min(n_end - n, 4u);
        float col_scale[4];
        e.load_col_scale(col_scale, n, columns);
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
            if (m0 + 8 * h >= m_end) continue;
            const int32_t* lower = sums + 8 * j + 2 * h;
            const int32_t sum[4] = {lower[0], lower[1], lower[4], lower[5]};
            e.write(m0 + 8 * h, n, columns, vectors, sum, row_scale[h], col_scale);
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_f32_nt_hopper(const int8_t* __restrict__ a_data, uint64_t a_stride, const int8_t* __restrict__ b_data,
                      uint64_t b_stride, const float* __restrict__ row_scale, const float* __restrict__ col_scale,
                      float* __restrict__ out, uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k,
                      uint32_t accumulate, const int8_t* __restrict__ high, uint64_t high_stride,
                      const uint32_t* __restrict__ channels) {
    DYN_SHARED(uint8_t, unaligned);
    uint8_t* shared = unaligned + (0u - shared_address(unaligned)) % SWIZZLE_PATTERN;
    const TilePlace tile = tile_place((m + BM - 1) / BM, (n + BN - 1) / BN);
    const uint32_t m0 = tile.row * BM, n0 = tile.column * BN;
    const Operand a = {a_data, a_stride, m}, b = {b_data, b_stride, n};
    // The same for all lanes, which the compiler cannot see from the index of a thread.
    const uint32_t group = __shfl_sync(FULL_MASK, threadIdx.x / WARPGROUP, 0);
    const uint32_t row = warp_index() * 16 + lane_index() / 4;

    Copies<BM, false> a_copies(a, m0, k);
    Copies<BN, true> b_copies(b, n0, k);
    Sums sums = {};
    start(sums, shared, {high, high_stride, channels}, a, b, k, m0, n0, row);

    // At least one, of zeros, and a loop that always runs: else the assembler lets each product wait for the one before.
    const uint32_t steps = max((k + SWIZZLE_ROW - 1) / SWIZZLE_ROW, 1u);
#pragma unroll 1
    for (uint32_t stage = 0; stage < STAGES - 2; ++stage) {
        if (stage < steps) {
            a_copies.next(shared + stage * STAGE_BYTES);
            b_copies.next(shared + stage * STAGE_BYTES + A_BYTES);
        }
        copy_async_commit();
    }
    const uint64_t a_tiles = wgmma_descriptor(shared_address(shared) + group * 64 * SWIZZLE_ROW);
    const uint64_t b_tiles = wgmma_descriptor(shared_address(shared) + A_BYTES);
    uint32_t step = 0;
#pragma unroll 1
    do {
        copy_async_wait<STAGES - 3>();
        fence_async_proxy();
        // Behind this barrier the tile of this step is complete and visible to products, and those of two steps before are
        // done in both warpgroups.
        __syncthreads();
        const uint32_t read = step % STAGES * STAGE_BYTES;
        const uint64_t a_tile = wgmma_advance(a_tiles, read), b_tile = wgmma_advance(b_tiles, read);
        wgmma_fence();
#pragma unroll
        for (uint32_t i = 0; i < SWIZZLE_ROW / WGMMA_K; ++i) {
            wgmma_s8_m64n256k32(sums, wgmma_advance(a_tile, i * WGMMA_K), wgmma_advance(b_tile, i * WGMMA_K));
        }
        wgmma_commit();
        if (step + STAGES - 2 < steps) {
            uint8_t* write = shared + (step + STAGES - 2) % STAGES * STAGE_BYTES;
            a_copies.next(write);
            b_copies.next(write + A_BYTES);
        }
        copy_async_commit();
        wgmma_wait<1>();
    } while (++step < steps);
    wgmma_wait_all(sums);
    finish(sums, {row_scale, col_scale, out, out_stride, accumulate != 0}, m0 + row, n0, m, n);
}
