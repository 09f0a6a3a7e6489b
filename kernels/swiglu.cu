// SwiGLU (arXiv 2002.05202): out = silu(gate) * up, and its backward pass in place.
//
// Shapes: all f32 [rows, cols]; q i8 [rows, cols], scale f32 [rows]; for wide channels channels u32 [8], high i8
// [rows, 8].
// Grid: to f32 and backward blocks of 256 over all elements, grid-stride; to INT8 one block a row.
// Numerics: f32, the exp of the CPU backend (1 ulp), IEEE division: the bits are those of the CPU. Deterministic.
// CPU twin: crates/qft-autograd/src/cpu/swiglu.rs.
// Bound: memory: 12 bytes an element to f32, 9 to INT8, 20 backward. About 40 instructions an element and pass; to
// INT8 the row waits in shared memory between the two passes where it fits, else it is computed again.
#include "activation_rows.cuh"
#include "exp.cuh"

__device__ __forceinline__ float swiglu(float gate, float up) {
    return __fmul_rn(__fmul_rn(gate, sigmoid_f32(gate)), up);
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
swiglu_forward_f32(const float* __restrict__ gate, const float* __restrict__ up, float* __restrict__ out,
                   uint64_t count) {
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * ROW_THREADS;
#pragma unroll 4
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * ROW_THREADS + threadIdx.x; i < count; i += stride)
        out[i] = swiglu(gate[i], up[i]);
}

// Dynamic shared memory: `cols` floats if `staged`, else none. `high` may be null.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
swiglu_forward_f32_i8(const float* __restrict__ gate, const float* __restrict__ up, int8_t* __restrict__ q,
                      float* __restrict__ scale, const uint32_t* __restrict__ channels, int8_t* __restrict__ high,
                      uint32_t cols, uint32_t staged) {
    DYN_SHARED(float, row);
    __shared__ float reduced[ROW_WARPS];
    const uint64_t at = static_cast<uint64_t>(blockIdx.x) * cols;
    auto value = [&](uint32_t i) { return swiglu(gate[at + i], up[at + i]); };
    if (staged) {
        // Each thread reads back only what it wrote.
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) row[i] = value(i);
        quantize_row(cols, reduced, q + at, scale + blockIdx.x, channels, high_of(high),
                     [&](uint32_t i) { return row[i]; });
    } else {
        quantize_row(cols, reduced, q + at, scale + blockIdx.x, channels, high_of(high), value);
    }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
swiglu_backward_f32(const float* __restrict__ dy, float* __restrict__ gate, float* __restrict__ up, uint64_t count) {
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * ROW_THREADS;
#pragma unroll 2
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * ROW_THREADS + threadIdx.x; i < count; i += stride) {
        const float g = gate[i], u = up[i], d = dy[i], s = sigmoid_f32(g);
        const float silu = __fmul_rn(g, s);
        // d silu = s + g s (1 - s).
        gate[i] = __fmul_rn(__fmul_rn(d, u), __fmaf_rn(silu, __fsub_rn(1.0f, s), s));
        up[i] = __fmul_rn(d, silu);
    }
}
