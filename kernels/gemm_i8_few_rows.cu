// INT8 product with few rows: the forward product of a linear layer while text is generated.
//
//   out[m, n] (+)= f32(sum_k a[m, k] b[n, k]) * row_scale[m] * col_scale[n]
//
// Shapes: a [M, K], b [N, K], out [M, N], M <= ROWS (1, 2, 4 or 8); rows of a and b are 16-byte aligned.
// Grid: blocks of 8 warps; a warp computes COLUMNS = 2 neighbouring columns n, its lanes share k in chunks of 16 bytes.
// Accumulator: exact i32 by dp4a. Rounding: as in gemm_i8.cu. Deterministic: integer sums do not depend on order.
// CPU twin: crates/qft-tensor/src/cpu/gemm.rs. Bound: memory. The weight is read once, N K bytes; `a` comes from the
// caches, M / COLUMNS bytes for each byte of the weight. At M = 8 that is 4 bytes and 8 dp4a for 4 bytes of weight and
// column, an eighth of what the units of an H100 can do at its memory's speed.
#include "packed_bytes.cuh"

namespace {

constexpr uint32_t WARPS = 8, COLUMNS = 2, CHUNK = 16;

__device__ __forceinline__ int32_t dot_chunk(const uint4& a, const uint4& b, int32_t sum) {
    return dot_bytes(a.w, b.w, dot_bytes(a.z, b.z, dot_bytes(a.y, b.y, dot_bytes(a.x, b.x, sum))));
}

template <uint32_t ROWS>
__device__ __forceinline__ void few_rows(const int8_t* a, uint64_t a_stride, const int8_t* b, uint64_t b_stride,
                                         const float* row_scale, const float* col_scale, float* out, uint64_t out_stride,
                                         uint32_t m, uint32_t n, uint32_t k, bool accumulate) {
    const uint32_t first = (blockIdx.x * WARPS + warp_index()) * COLUMNS;
    if (first >= n) return;
    const uint32_t columns = min(n - first, COLUMNS);
    const int8_t* weight = b + first * b_stride;
    int32_t sums[ROWS][COLUMNS] = {};
    // Absent columns repeat the first one, so that the loop needs no test; their sums are dropped.
    const uint64_t next = columns == COLUMNS ? b_stride : 0;
    const uint32_t whole = k / CHUNK * CHUNK;
#pragma unroll 2
    for (uint32_t at = lane_index() * CHUNK; at < whole; at += WARP * CHUNK) {
        uint4 w[COLUMNS];
#pragma unroll
        for (uint32_t j = 0; j < COLUMNS; ++j) w[j] = *reinterpret_cast<const uint4*>(weight + j * next + at);
#pragma unroll
        for (uint32_t i = 0; i < ROWS; ++i) {
            if (i >= m) continue;
            const uint4 x = *reinterpret_cast<const uint4*>(a + i * a_stride + at);
#pragma unroll
            for (uint32_t j = 0; j < COLUMNS; ++j) sums[i][j] = dot_chunk(x, w[j], sums[i][j]);
        }
    }
    // The last k % 16 elements, one per lane.
    const uint32_t last = whole + lane_index();
    if (last < k) {
#pragma unroll
        for (uint32_t i = 0; i < ROWS; ++i) {
            if (i >= m) continue;
#pragma unroll
            for (uint32_t j = 0; j < COLUMNS; ++j) sums[i][j] += a[i * a_stride + last] * weight[j * next + last];
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < ROWS; ++i) {
#pragma unroll
        for (uint32_t j = 0; j < COLUMNS; ++j) {
            const int32_t sum = warp_sum(sums[i][j]);
            if (i >= m || j >= columns || lane_index() != i * COLUMNS + j) continue;
            float value = __int2float_rn(sum);
            if (row_scale != nullptr) value = __fmul_rn(value, row_scale[i]);
            if (col_scale != nullptr) value = __fmul_rn(value, col_scale[first + j]);
            float* cell = out + i * out_stride + first + j;
            *cell = accumulate ? __fadd_rn(*cell, value) : value;
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemm_i8_f32_nt_rows_1(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                      const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                      uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    few_rows<1>(a, a_stride, b, b_stride, row_scale, col_scale, out, out_stride, m, n, k, accumulate != 0);
}
extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemm_i8_f32_nt_rows_2(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                      const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                      uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    few_rows<2>(a, a_stride, b, b_stride, row_scale, col_scale, out, out_stride, m, n, k, accumulate != 0);
}
extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemm_i8_f32_nt_rows_4(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                      const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                      uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    few_rows<4>(a, a_stride, b, b_stride, row_scale, col_scale, out, out_stride, m, n, k, accumulate != 0);
}
extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemm_i8_f32_nt_rows_8(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ b, uint64_t b_stride,
                      const float* __restrict__ row_scale, const float* __restrict__ col_scale, float* __restrict__ out,
                      uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    few_rows<8>(a, a_stride, b, b_stride, row_scale, col_scale, out, out_stride, m, n, k, accumulate != 0);
}
