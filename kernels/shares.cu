// Shares of a sum over the rows of a matrix, added in order.
//
// Shapes: shares f32 [blocks, cols], sum f32 [cols]. Grid: a block for 128 columns. Numerics: one f32 sum after the other, as on
// the CPU. CPU twins: the ends of crates/qft-autograd/src/cpu/rmsnorm.rs and bias.rs. Bound: memory, 4 bytes a share.
#include "shares.cuh"

// sum[c] += shares[0, c], then shares[1, c], and so on.
extern "C" __global__ void __launch_bounds__(SHARE_THREADS)
sum_shares_f32(const float* __restrict__ shares, float* __restrict__ sum, uint32_t blocks, uint32_t cols) {
    const uint32_t col = blockIdx.x * SHARE_THREADS + threadIdx.x;
    if (col >= cols) return;
    float total = sum[col];
#pragma unroll 8
    for (uint32_t block = 0; block < blocks; ++block)
        total = __fadd_rn(total, shares[static_cast<uint64_t>(block) * cols + col]);
    sum[col] = total;
}
