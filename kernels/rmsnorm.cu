// RMSNorm (arXiv 1910.07467): out = x * rstd * gain, rstd = 1 / sqrt(mean(x^2) + eps), and its backward pass.
//
// Shapes: x, out, dy, dx f32 [rows, cols]; gain f32 [cols]; rstd f32 [rows]; q i8 [rows, cols], scale f32 [rows];
// shares f32 [ceil(rows / 64), cols].
// Grid: forward and dx one block a row; shares a thread a column of 64 rows, which sum_shares_f32 (shares.cu) adds.
// Numerics: f32; sums in 16 lanes, shares over 64 rows and then over shares, in the CPU's order: the bits, and so the
// quantized rows, are those of the CPU backend. Deterministic.
// CPU twin: crates/qft-autograd/src/cpu/rmsnorm.rs.
// Bound: memory. A row is read once from HBM, then again from L1 or L2 (16 KiB at 4096 columns, and as much to wait in where it is
// rotated, six blocks to a multiprocessor): 5 bytes an element forward to INT8, 8 to f32, 16 backward and 8 more for the gain's gradient. The
// walk over 16 lanes takes about 256 steps at 4096 columns, 1 us, behind other blocks' loads.
#include "activation_rows.cuh"
#include "shares.cuh"

constexpr uint32_t FORWARD_TILE = 2048;
constexpr uint32_t BACKWARD_TILE = 1024;

__device__ __forceinline__ float normed(float x, float rstd, float gain) { return __fmul_rn(__fmul_rn(x, rstd), gain); }

// Writes `out`, or `q` and `scale`, rotated if `rotated`, if `out` is null. Dynamic shared memory: `cols` floats, and
// no more than FORWARD_TILE if not `staged`.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rmsnorm_forward_f32(const float* __restrict__ x, const float* __restrict__ gain, float* __restrict__ rstd,
                    float* __restrict__ out, int8_t* __restrict__ q, float* __restrict__ scale,
                    uint32_t rotated, uint32_t staged, uint32_t cols, float eps) {
    DYN_SHARED(float, tile);
    __shared__ float reduced[ROW_WARPS];
    const uint64_t at = static_cast<uint64_t>(blockIdx.x) * cols;
    const float* row = x + at;
    const float squares = sum_row<FORWARD_TILE>(
        cols, reduced, [&](uint32_t i, uint32_t to) { tile[to] = row[i]; },
        [&](float lane, uint32_t i) { return __fmaf_rn(tile[i], tile[i], lane); });
    const float mean = __fdiv_rn(squares, static_cast<float>(cols));
    const float r = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    // `reduced` is written again below.
    __syncthreads();
    auto value = [&](uint32_t i) { return normed(row[i], r, gain[i]); };
    if (out != nullptr) {
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) out[at + i] = value(i);
    } else {
        quantize_row(cols, rotated != 0, staged ? tile : nullptr, reduced, q + at, scale + blockIdx.x, value);
    }
}

// dx += rstd * (dy * gain - xhat * mean(dy * gain * xhat)).
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rmsnorm_backward_f32(const float* __restrict__ x, const float* __restrict__ gain, const float* __restrict__ rstd,
                     const float* __restrict__ dy, float* __restrict__ dx, uint32_t cols) {
    __shared__ float left[BACKWARD_TILE];
    __shared__ float right[BACKWARD_TILE];
    __shared__ float reduced;
    const uint64_t at = static_cast<uint64_t>(blockIdx.x) * cols;
    const float sum = sum_row<BACKWARD_TILE>(
        cols, &reduced,
        [&](uint32_t i, uint32_t to) {
            left[to] = __fmul_rn(dy[at + i], gain[i]);
            right[to] = x[at + i];
        },
        [&](float lane, uint32_t i) { return __fmaf_rn(left[i], right[i], lane); });
    const float r = rstd[blockIdx.x];
    const float mean = __fmul_rn(r, __fdiv_rn(sum, static_cast<float>(cols)));
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) {
        const float xhat = __fmul_rn(x[at + i], r);
        const float inner = __fmaf_rn(xhat, -mean, __fmul_rn(dy[at + i], gain[i]));
        dx[at + i] = __fmaf_rn(r, inner, dx[at + i]);
    }
}

// shares[b, c] = sum over the 64 rows of block first_block + b of dy * xhat.
extern "C" __global__ void __launch_bounds__(SHARE_THREADS)
rmsnorm_gain_shares_f32(const float* __restrict__ x, const float* __restrict__ rstd, const float* __restrict__ dy,
                        float* __restrict__ shares, uint32_t first_block, uint32_t rows, uint32_t cols) {
    const uint32_t col = blockIdx.x * SHARE_THREADS + threadIdx.x;
    if (col >= cols) return;
    const uint64_t first = (static_cast<uint64_t>(first_block) + blockIdx.y) * SHARE_ROWS;
    const uint64_t end = first + SHARE_ROWS < rows ? first + SHARE_ROWS : rows;
    float sum = 0.0f;
#pragma unroll 8
    for (uint64_t row = first; row < end; ++row) {
        const uint64_t at = row * cols + col;
        sum = __fmaf_rn(dy[at], __fmul_rn(x[at], rstd[row]), sum);
    }
    shares[static_cast<uint64_t>(blockIdx.y) * cols + col] = sum;
}
