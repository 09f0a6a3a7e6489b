// dst += scale * src.
//
// Shapes: both f32 [count]. Grid: one-dimensional blocks of 256, grid-stride. Numerics: one fused product and sum, as on the CPU.
// CPU twin: crates/qft-autograd/src/cpu/scaled_add.rs. Bound: memory, 12 bytes an element.
#include "common.cuh"

constexpr uint32_t THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
scaled_add_f32(const float* __restrict__ src, float scale, float* __restrict__ dst, uint64_t count) {
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride)
        dst[i] = __fmaf_rn(src[i], scale, dst[i]);
}
