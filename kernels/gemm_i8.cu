// INT8 product on tensor cores, scaled into float.
//
//   out[m, n] (+)= f32(sum_k a(m, k) b(n, k)) * row_scale[m] * col_scale[n]
//
// gemm_i8_i32: out i32, whole numbers of each row's unit, sum_unit of bound f32 [M] and count: the nearest, ties to even, added
// with wrap-around.
// Shapes: nt: a [M, K], b [N, K]; nn: a [M, K], b [K, N]; tn: a [K, M], b [K, N]; out f32 [M, N], row_scale [M],
// col_scale [N], each scale may be absent; any row strides. All orientations read the operands as they are stored: see
// include/gemm_tile.cuh for the layout in shared memory, why it has no bank conflicts, and how bytes are transposed on
// their way to the tensor cores.
// Grid: one block per tile of the result, one-dimensional, in bands (include/tile_order.cuh). A warp computes 64 x 64 of a
// tile of 128 x 256 or 128 x 128, or 32 x 32 of one of 64 x 64. Copies to shared memory run STAGES - 1 tiles of 64 steps
// of k ahead. Dynamic shared memory: STAGES * 64 * (BM + BN) bytes.
// Alignment: rows of a and b are 16-byte aligned; the `unaligned` entries take any address and stride, and copy byte by
// byte without running ahead of the memory. The result is written 16 bytes at a time where its rows allow.
// Accumulator: exact i32, K <= 131,071. Rounding: sum to f32 (nearest), times row_scale, times col_scale, plus out, each
// rounded to nearest. Deterministic: integer sums do not depend on order. CPU twin: crates/qft-tensor/src/cpu/gemm.rs.
// Bound: see docs/KERNELS.md. On Hopper: gemm_i8_hopper.cu.
#include "gemm_epilogue.cuh"
#include "gemm_tile.cuh"
#include "mma.cuh"
#include "packed_bytes.cuh"
#include "tile_order.cuh"

namespace {

template <uint32_t BM, uint32_t BN, uint32_t WM, uint32_t WN, uint32_t STAGES, bool A_K, bool B_K, bool ALIGNED>
struct Product {
    static constexpr uint32_t WARPS_N = BN / WN;
    static constexpr uint32_t THREADS = BM / WM * WARPS_N * WARP;
    using A = Tile<true, BM, A_K, THREADS, ALIGNED>;
    using B = Tile<false, BN, B_K, THREADS, ALIGNED>;
    static constexpr uint32_t STAGE_BYTES = A::BYTES + B::BYTES;
    static constexpr uint32_t A_GROUPS = WM / 32, B_GROUPS = WN / 32;

    // acc[row tile][column octet]
    using Sums = int32_t[WM / 16][WN / 8][4];

    static __device__ __forceinline__ void multiply(Sums& sums, const uint8_t* stage, const typename A::Share (&a_share)[A_GROUPS],
                                                    const typename B::Share (&b_share)[B_GROUPS]) {
        uint32_t a[A_GROUPS][4][2][2];
#pragma unroll
        for (uint32_t i = 0; i < A_GROUPS; ++i) A::load(a[i], stage, a_share[i]);
#pragma unroll
        for (uint32_t j = 0; j < B_GROUPS; ++j) {
            uint32_t b[4][2][2];
            B::load(b, stage + A::BYTES, b_share[j]);
#pragma unroll
            for (uint32_t s = 0; s < 2; ++s) {
#pragma unroll
                for (uint32_t octet = 0; octet < 4; ++octet) {
#pragma unroll
                    for (uint32_t i = 0; i < WM / 16; ++i) {
                        const auto& upper = a[i / 2][i % 2 * 2];
                        const auto& lower = a[i / 2][i % 2 * 2 + 1];
                        const uint32_t fragment[4] = {upper[s][0], lower[s][0], upper[s][1], lower[s][1]};
                        mma_s8_m16n8k32(sums[i][4 * j + octet], fragment, b[octet][s]);
                    }
                }
            }
        }
    }

    // Writes the warp's cells, the first of which is (m0, n0).
    template <class End>
    static __device__ __forceinline__ void finish(const Sums& sums, const Epilogue<End>& e, uint32_t m0, uint32_t n0,
                                                  uint32_t m_end, uint32_t n_end, bool inside) {
        const uint32_t g = lane_index() / 4, t = lane_index() % 4;
        constexpr uint32_t ROWS = WM / 8;
        const auto at = [&](uint32_t index) {
            const uint32_t i = index % ROWS, j = index / ROWS;
            Cells<4> cells = {m0 + i / 4 * 32 + A::place(i % 4, g), n0 + j * 16 + t * 4, {}};
#pragma unroll
            for (uint32_t v = 0; v < 4; ++v) {
                // B::place(octet, 2t + element) is 16 (j % 2) + 4t + v, where octet is 2 (j % 2) + high or low bit of v.
                const uint32_t octet = B_K ? v / 2 : v % 2, element = B_K ? v % 2 : v / 2;
                cells.sum[v] = sums[i / 2][2 * j + octet][i % 2 * 2 + element];
            }
            return cells;
        };
        e.template write<4, ROWS * WN / 16>(at, m_end, n_end, inside);
    }

    template <class End>
    static __device__ __forceinline__ void run(const Operand& a, const Operand& b, uint32_t k, const Epilogue<End>& e) {
        DYN_SHARED(uint8_t, shared);
        const TilePlace tile = tile_place((a.outer + BM - 1) / BM, (b.outer + BN - 1) / BN);
        const uint32_t m0 = tile.row * BM, n0 = tile.column * BN;
        const uint32_t warp_m = warp_index() / WARPS_N * WM, warp_n = warp_index() % WARPS_N * WN;

        A a_tile(a, m0, 0, k);
        B b_tile(b, n0, 0, k);
        typename A::Share a_share[A_GROUPS];
        typename B::Share b_share[B_GROUPS];
#pragma unroll
        for (uint32_t i = 0; i < A_GROUPS; ++i) a_share[i] = A::share(warp_m + i * 32);
#pragma unroll
        for (uint32_t j = 0; j < B_GROUPS; ++j) b_share[j] = B::share(warp_n + j * 32);
        Sums sums = {};

        const uint32_t steps = (k + TILE_K - 1) / TILE_K;
#pragma unroll 1
        for (uint32_t stage = 0; stage < STAGES - 1; ++stage) {
            if (stage < steps) {
                a_tile.copy_next(shared + stage * STAGE_BYTES);
                b_tile.copy_next(shared + stage * STAGE_BYTES + A::BYTES);
            }
            copy_async_commit();
        }
        uint32_t read = 0, write = (STAGES - 1) * STAGE_BYTES;
#pragma unroll 1
        for (uint32_t step = 0; step < steps; ++step) {
            copy_async_wait<STAGES - 2>();
            // Behind this barrier the tile of this step is complete, and that of the step before has been read by all.
            __syncthreads();
            if (step + STAGES - 1 < steps) {
                a_tile.copy_next(shared + write);
                b_tile.copy_next(shared + write + A::BYTES);
            }
            copy_async_commit();
            multiply(sums, shared + read, a_share, b_share);
            read = read + STAGE_BYTES == STAGES * STAGE_BYTES ? 0 : read + STAGE_BYTES;
            write = write + STAGE_BYTES == STAGES * STAGE_BYTES ? 0 : write + STAGE_BYTES;
        }
        const bool inside = m0 + BM <= a.outer && n0 + BN <= b.outer;
        finish(sums, e, m0 + warp_m, n0 + warp_n, a.outer, b.outer, inside);
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_f32_nt_128x256(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<128, 256, 64, 64, 4, true, true, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_f32_nn_128x256(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<128, 256, 64, 64, 4, true, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_f32_tn_128x256(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<128, 256, 64, 64, 4, false, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 2)
gemm_i8_f32_nt_128x128(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<128, 128, 64, 64, 3, true, true, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 2)
gemm_i8_f32_nn_128x128(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<128, 128, 64, 64, 3, true, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 2)
gemm_i8_f32_tn_128x128(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<128, 128, 64, 64, 3, false, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_f32_nt_64x64(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<64, 64, 32, 32, 4, true, true, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_f32_nn_64x64(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<64, 64, 32, 32, 4, true, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_f32_tn_64x64(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<64, 64, 32, 32, 4, false, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_f32_nt_unaligned(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<64, 64, 32, 32, 2, true, true, false>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_f32_nn_unaligned(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<64, 64, 32, 32, 2, true, false, false>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_f32_tn_unaligned(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    Product<64, 64, 32, 32, 2, false, false, false>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsFloats>{row_scale, col_scale, out, out_stride, accumulate != 0, {}});
}
extern "C" __global__ void __launch_bounds__(256, 1)
gemm_i8_i32_tn_128x256(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, int32_t* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate,
                    const float* __restrict__ bound, uint32_t count) {
    Product<128, 256, 64, 64, 4, false, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsUnits>{row_scale, col_scale, out, out_stride, accumulate != 0, {bound, count}});
}
extern "C" __global__ void __launch_bounds__(128, 2)
gemm_i8_i32_tn_128x128(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, int32_t* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate,
                    const float* __restrict__ bound, uint32_t count) {
    Product<128, 128, 64, 64, 3, false, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsUnits>{row_scale, col_scale, out, out_stride, accumulate != 0, {bound, count}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_i32_tn_64x64(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, int32_t* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate,
                    const float* __restrict__ bound, uint32_t count) {
    Product<64, 64, 32, 32, 4, false, false, true>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsUnits>{row_scale, col_scale, out, out_stride, accumulate != 0, {bound, count}});
}
extern "C" __global__ void __launch_bounds__(128, 4)
gemm_i8_i32_tn_unaligned(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                    const float* __restrict__ row_scale, const float* __restrict__ col_scale, int32_t* __restrict__ out,
                    uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate,
                    const float* __restrict__ bound, uint32_t count) {
    Product<64, 64, 32, 32, 2, false, false, false>::run({a, a_stride, m}, {b, b_stride, n}, k,
        Epilogue<AsUnits>{row_scale, col_scale, out, out_stride, accumulate != 0, {bound, count}});
}
