// Lion and AdamW on float parameters, sums of squares of gradients, and the line of statistics both add to.
//   Lion   c = b1 m + (1 - b1) g;  w -= lr (sign(c) + wd w);  m = b2 m + (1 - b2) g
//   AdamW  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g g;   w = w keep - rate (m / (sqrt(v) / root + eps))
//
// Shapes: w, m, v, grad f32 [count]; squares f64, one per block; sums f32 [2], a tensor's line of UpdateStats.
// Grid: grid-stride, so that a warp's accesses are 128 neighbouring bytes; the grid depends on the shape alone.
// Numerics: f32, no contraction, each step in the order of the CPU: w, m, v equal its bits. Squares: f32 within a thread,
// f64 between threads and blocks, in a fixed order: deterministic, but not the CPU's order.
// CPU twin: crates/qft-optim/src/cpu/float.rs, crates/qft-optim/src/cpu.rs.
// Bound: memory, 20 bytes an element for Lion, 28 for AdamW, 4 for the sum of squares.
#include "gradient_sums.cuh"

constexpr uint32_t WARPS = 8;
constexpr uint32_t THREADS = WARP * WARPS;

// Writes the block's sum of `square`.
__device__ __forceinline__ void store_square(float square, double* squares, uint32_t place) {
    __shared__ double shared[WARPS];
    const double sum = block_total(square, shared, WARPS);
    if (threadIdx.x == 0) squares[place] = sum;
}

// Calls f(index) for the elements of this thread and writes the block's sum of what it returns.
template <class F>
__device__ __forceinline__ void for_each_element(uint64_t count, double* squares, F f) {
    float square = 0.0f;
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride) square += f(i);
    store_square(square, squares, blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS)
lion_update_f32(float* __restrict__ w, float* __restrict__ m, const float* __restrict__ grad, double* __restrict__ squares,
                uint64_t count, float grad_scale, float lr, float beta1, float beta2, float weight_decay) {
    for_each_element(count, squares, [&](uint64_t i) {
        const float g = grad[i] * grad_scale, direction = sign(beta1 * m[i] + (1.0f - beta1) * g);
        w[i] = w[i] - lr * (direction + weight_decay * w[i]);
        m[i] = beta2 * m[i] + (1.0f - beta2) * g;
        return g * g;
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
adamw_update_f32(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v, const float* __restrict__ grad,
                 double* __restrict__ squares, uint64_t count, float grad_scale, float beta1, float beta2, float eps,
                 float keep, float rate, float root) {
    for_each_element(count, squares, [&](uint64_t i) {
        const float g = grad[i] * grad_scale;
        const float first = beta1 * m[i] + (1.0f - beta1) * g, second = beta2 * v[i] + (1.0f - beta2) * (g * g);
        w[i] = w[i] * keep - rate * __fdiv_rn(first, __fdiv_rn(__fsqrt_rn(second), root) + eps);
        m[i] = first;
        v[i] = second;
        return g * g;
    });
}

// Each block's sum of squares of x [rows, cols]: place blockIdx.y * gridDim.x + blockIdx.x of `squares`. A block takes every
// gridDim.y-th row, and of it every gridDim.x-th stretch of 256 columns.
extern "C" __global__ void __launch_bounds__(THREADS)
square_sum_f32(const float* __restrict__ x, uint64_t stride, double* __restrict__ squares, uint64_t rows, uint64_t cols) {
    float square = 0.0f;
    for (uint64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const float* const x_row = x + row * stride;
        for (uint64_t col = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x; col < cols; col += gridDim.x * THREADS)
            square += x_row[col] * x_row[col];
    }
    store_square(square, squares, blockIdx.y * gridDim.x + blockIdx.x);
}

// The sum of squares of each row of x [rows, cols]. A block takes every gridDim.x-th row.
extern "C" __global__ void __launch_bounds__(THREADS)
square_sum_rows_f32(const float* __restrict__ x, uint64_t stride, float* __restrict__ squares, uint64_t rows, uint64_t cols) {
    __shared__ double shared[WARPS];
    for (uint64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        float square = 0.0f;
        for (uint64_t col = threadIdx.x; col < cols; col += THREADS) square += x[row * stride + col] * x[row * stride + col];
        const double sum = block_total(square, shared, WARPS);
        if (threadIdx.x == 0) squares[row] = static_cast<float>(sum);
        __syncthreads();
    }
}

// Keeps sums of squares for the norm of the gradient.
extern "C" __global__ void __launch_bounds__(THREADS)
store_squares(const double* __restrict__ squares, float* __restrict__ to, uint64_t count) {
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride)
        to[i] = static_cast<float>(squares[i]);
}

// Adds the sum of `squares` to sums[0], and that of `grown` (or nothing, if null) to sums[1]; both have `count` entries.
// One block.
extern "C" __global__ void __launch_bounds__(THREADS)
add_update_stats(const double* __restrict__ squares, const uint32_t* __restrict__ grown, uint32_t count,
                 float* __restrict__ sums) {
    __shared__ double square_sums[WARPS];
    __shared__ int32_t grown_sums[WARPS];
    double square = 0.0;
    int32_t rows = 0;
    for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
        square += squares[i];
        if (grown) rows += static_cast<int32_t>(grown[i]);
    }
    square = block_total(square, square_sums, WARPS);
    rows = block_sum<WARPS>(rows, grown_sums);
    if (threadIdx.x == 0) {
        sums[0] = sums[0] + static_cast<float>(square);
        sums[1] = sums[1] + static_cast<float>(rows);
    }
}
