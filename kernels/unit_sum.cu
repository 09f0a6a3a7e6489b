// Sums of floats as whole numbers of a unit, which have no order.
//
// Shapes: scale, bound f32 [rows]; values f32, sum i32 [rows, cols]. Grid: raise_bound, one-dimensional blocks of 256, grid-stride;
// from_units, a block of 256 for a row, grid-stride over rows. Numerics: sum_unit of numeric.cuh, one product: the bits of the CPU.
// The sums are of products: gemm_epilogue.cuh. CPU twin: crates/qft-autograd/src/cpu/unit_sum.rs. Bound: memory, 8 bytes an element.
#include "numeric.cuh"

constexpr uint32_t THREADS = 256;

// bound = max(bound, scale * factor); what is not a number is largest.
extern "C" __global__ void __launch_bounds__(THREADS)
raise_bound_f32(const float* __restrict__ scale, float factor, float* __restrict__ bound, uint64_t count) {
    const uint64_t stride = static_cast<uint64_t>(gridDim.x) * THREADS;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride) {
        const float raised = __fmul_rn(scale[i], factor);
        if (raised > bound[i] || raised != raised) bound[i] = raised;
    }
}

// values = sum * unit.
extern "C" __global__ void __launch_bounds__(THREADS)
from_units_i32_f32(const int32_t* __restrict__ sum, const float* __restrict__ bound, uint32_t count, float* __restrict__ values,
                   uint32_t rows, uint32_t cols) {
    for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const float unit = sum_unit(bound[row], count);
        const uint64_t start = static_cast<uint64_t>(row) * cols;
        for (uint32_t col = threadIdx.x; col < cols; col += THREADS)
            values[start + col] = __fmul_rn(static_cast<float>(sum[start + col]), unit);
    }
}
