// bf16 and f32: `dst = bf16(src)` and `dst = f32(src)`.
//
// Shapes: both [count]. Grid: one-dimensional blocks of 256, grid-stride; a thread converts 4 elements at once where both
// pointers allow 16- and 8-byte accesses, else one. Numerics: to nearest, ties to even, NaN stays a quiet NaN; widening is
// exact. Deterministic: elements are independent. CPU twin: crates/qft-autograd/src/cpu/convert.rs.
// Bound: memory, 6 bytes an element.
#include "numeric.cuh"

constexpr uint32_t THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
to_bf16_f32_bf16(const float* __restrict__ src, uint16_t* __restrict__ dst, uint64_t count) {
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    const uint64_t vectors = is_aligned(src, 16) && is_aligned(dst, 8) ? count / 4 : 0;
    for (uint64_t i = first; i < vectors; i += stride) {
        const float4 x = reinterpret_cast<const float4*>(src)[i];
        const uint32_t low = bf16_from_f32(x.x) | static_cast<uint32_t>(bf16_from_f32(x.y)) << 16;
        const uint32_t high = bf16_from_f32(x.z) | static_cast<uint32_t>(bf16_from_f32(x.w)) << 16;
        reinterpret_cast<uint2*>(dst)[i] = make_uint2(low, high);
    }
    for (uint64_t i = vectors * 4 + first; i < count; i += stride) dst[i] = bf16_from_f32(src[i]);
}

extern "C" __global__ void __launch_bounds__(THREADS)
from_bf16_bf16_f32(const uint16_t* __restrict__ src, float* __restrict__ dst, uint64_t count) {
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    const uint64_t vectors = is_aligned(src, 8) && is_aligned(dst, 16) ? count / 4 : 0;
    for (uint64_t i = first; i < vectors; i += stride) {
        const uint2 bits = reinterpret_cast<const uint2*>(src)[i];
        reinterpret_cast<float4*>(dst)[i] =
            make_float4(f32_from_bf16(static_cast<uint16_t>(bits.x)), f32_from_bf16(static_cast<uint16_t>(bits.x >> 16)),
                        f32_from_bf16(static_cast<uint16_t>(bits.y)), f32_from_bf16(static_cast<uint16_t>(bits.y >> 16)));
    }
    for (uint64_t i = vectors * 4 + first; i < count; i += stride) dst[i] = f32_from_bf16(src[i]);
}
