// The share of an activation's second digits in the gradient of a weight: columns of wide channels only.
//
//   out[m, c_j] += 128 * (f32(sum_k a[k, m] high[k, j]) * row_scale[m] * col_scale[c_j])
//
// Shapes: a [K, M], high [K, 8], channels u32 [8], out f32 [M, N], row_scale [M], col_scale [N], each scale may be
// absent. Runs after the product of the first digits, in gemm_i8.cu; without wide channels it returns at once.
// Grid: blocks of 256 threads; a block computes 32 rows m of all eight columns. Eight threads share a row of `a`, four
// elements each; the 32 such groups of a block take every 32nd group of four k. The digits are staged in shared memory,
// transposed, so that four k are one word.
// Accumulator: exact i32; the groups' sums are added by integer atomics in shared memory, whose order does not matter.
// Rounding: as in gemm_i8.cu, then times 128 (exact) and one addition. CPU twin: crates/qft-tensor/src/cpu/gemm.rs.
// Bound: latency; it reads K M bytes once, beside a product that does 2 K M N operations.
#include "packed_bytes.cuh"
#include "wide.cuh"

namespace {

constexpr uint32_t THREADS = 256, ROWS = 32, GROUPS = THREADS / 8, CHUNK = 1024;

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
gemm_i8_f32_wide_columns(const int8_t* __restrict__ a, uint64_t a_stride, const int8_t* __restrict__ high,
                         uint64_t high_stride, const uint32_t* __restrict__ channels, const float* __restrict__ row_scale,
                         const float* __restrict__ col_scale, float* __restrict__ out, uint64_t out_stride, uint32_t m,
                         uint32_t n, uint32_t k) {
    __shared__ uint32_t digits[WIDE][CHUNK / 4];
    __shared__ int32_t totals[ROWS][WIDE];
    if (channels[0] == NO_CHANNEL) return;
    const uint32_t first = blockIdx.x * ROWS, row = threadIdx.x % 8 * 4, group = threadIdx.x / 8;
    const uint32_t rows = first + row < m ? m - first - row : 0;
    const int8_t* column = a + first + row;
    totals[threadIdx.x / WIDE][threadIdx.x % WIDE] = 0;

    int32_t sums[4][WIDE] = {};
    for (uint32_t k0 = 0; k0 < k; k0 += CHUNK) {
        const uint32_t steps = min(k - k0, CHUNK);
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < CHUNK * WIDE / 4; i += THREADS) {
            const uint32_t j = i % WIDE, step = i / WIDE * 4;
            uint32_t word = 0;
#pragma unroll
            for (uint32_t s = 0; s < 4; ++s) {
                if (step + s < steps) {
                    const int8_t digit = high[(k0 + step + s) * high_stride + j];
                    word |= static_cast<uint32_t>(static_cast<uint8_t>(digit)) << (s * 8);
                }
            }
            digits[j][step / 4] = word;
        }
        __syncthreads();
        for (uint32_t step = group * 4; step < steps; step += GROUPS * 4) {
            uint32_t row_k[4];
#pragma unroll
            for (uint32_t s = 0; s < 4; ++s) {
                row_k[s] = step + s < steps ? load_bytes(column + (k0 + step + s) * a_stride, rows) : 0;
            }
            uint32_t words[4];
            transpose_bytes(words, row_k);
#pragma unroll
            for (uint32_t j = 0; j < WIDE; ++j) {
                const uint32_t digit = digits[j][step / 4];
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) sums[i][j] = dot_bytes(words[i], digit, sums[i][j]);
            }
        }
    }
    // Where k is 0, nothing else stands between the totals' zeros and the sums.
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
#pragma unroll
        for (uint32_t j = 0; j < WIDE; ++j) atomicAdd(&totals[row + i][j], sums[i][j]);
    }
    __syncthreads();

    const uint32_t r = first + threadIdx.x / WIDE, channel = channels[threadIdx.x % WIDE];
    if (r >= m || channel >= n) return;
    float value = __int2float_rn(totals[threadIdx.x / WIDE][threadIdx.x % WIDE]);
    if (row_scale != nullptr) value = __fmul_rn(value, row_scale[r]);
    if (col_scale != nullptr) value = __fmul_rn(value, col_scale[channel]);
    float* cell = out + r * out_stride + channel;
    *cell = __fadd_rn(*cell, __fmul_rn(static_cast<float>(WIDE_RADIX), value));
}
