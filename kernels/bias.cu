// Biases of linear layers: y += bias in every row, and the sums of the columns of dy for their gradient.
//
// Shapes: y, dy f32 [rows, cols], bias f32 [cols], shares f32 [blocks, cols]. Grid: add, one-dimensional blocks of 256,
// grid-stride; shares, a block for 128 columns and 64 rows, whose sums sum_shares_f32 (shares.cu) adds in order.
// Numerics: each sum one f32 operation, rows in order: the bits of the CPU. CPU twin: crates/qft-autograd/src/cpu/bias.rs.
// Bound: memory, 8 bytes an element, 4 for the gradient.
#include "shares.cuh"

constexpr uint32_t THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
add_bias_f32(float* __restrict__ y, const float* __restrict__ bias, uint64_t count, uint32_t cols) {
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride)
        y[i] = __fadd_rn(y[i], bias[i % cols]);
}

// shares[b, c] = sum over the 64 rows of block first_block + b of dy.
extern "C" __global__ void __launch_bounds__(SHARE_THREADS)
bias_shares_f32(const float* __restrict__ dy, float* __restrict__ shares, uint32_t first_block, uint32_t rows, uint32_t cols) {
    const uint32_t col = blockIdx.x * SHARE_THREADS + threadIdx.x;
    if (col >= cols) return;
    const uint64_t first = (static_cast<uint64_t>(first_block) + blockIdx.y) * SHARE_ROWS;
    const uint64_t end = first + SHARE_ROWS < rows ? first + SHARE_ROWS : rows;
    float sum = 0.0f;
#pragma unroll 8
    for (uint64_t row = first; row < end; ++row) sum = __fadd_rn(sum, dy[row * cols + col]);
    shares[static_cast<uint64_t>(blockIdx.y) * cols + col] = sum;
}
