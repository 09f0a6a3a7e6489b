// SwiGLU (arXiv 2002.05202): out = silu(gate) * up, and its backward pass in place.
//
// Shapes: all f32 [rows, cols]; q i8 [rows, cols], scale f32 [rows].
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

// Dynamic shared memory: `cols` floats if `staged`, else none.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
swiglu_forward_f32_i8(const float* __restrict__ gate, const float* __restrict__ up, int8_t* __restrict__ q,
                      float* __restrict__ scale, uint32_t rotated, uint32_t cols, uint32_t staged) {
    DYN_SHARED(float, row);
    __shared__ float reduced[ROW_WARPS];
    const uint64_t at = static_cast<uint64_t>(blockIdx.x) * cols;
    const auto value = [&](uint32_t i) { return swiglu(gate[at + i], up[at + i]); };
    if (staged) {
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) row[i] = value(i);
        __syncthreads();
    }
    if (staged) {
        quantize_row(cols, rotated != 0, row, reduced, q + at, scale + blockIdx.x, [&](uint32_t i) { return row[i]; });
    } else {
        quantize_row(cols, rotated != 0, nullptr, reduced, q + at, scale + blockIdx.x, value);
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
