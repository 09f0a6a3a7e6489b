// Sums of floats as whole numbers of a unit, which have no order.
//
// Shapes: scale, bound f32 [rows]; values f32, sum i32 [rows, cols]. Grid: raise_bound, one-dimensional blocks of 256, grid-stride;
// the others, a block of 256 for a row, grid-stride over rows. Numerics: sum_unit of numeric.cuh, one product, the nearest whole
// number with ties to even: the bits of the CPU. CPU twin: crates/qft-autograd/src/cpu/unit_sum.rs. Bound: memory, 12 bytes an
// element that is added, 8 of one that is read.
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

// sum (+)= nearest(values / unit).
extern "C" __global__ void __launch_bounds__(THREADS)
add_units_f32_i32(const float* __restrict__ values, const float* __restrict__ bound, uint32_t count, int32_t* __restrict__ sum,
                  uint32_t rows, uint32_t cols, uint32_t accumulate) {
    for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const float inverse = __fdiv_rn(1.0f, sum_unit(bound[row], count));
        const uint64_t start = static_cast<uint64_t>(row) * cols;
        for (uint32_t col = threadIdx.x; col < cols; col += THREADS) {
            const float units = __fmul_rn(values[start + col], inverse);
            const uint32_t added = units != units ? 0u : static_cast<uint32_t>(__float2int_rn(units));
            const uint32_t before = accumulate != 0u ? static_cast<uint32_t>(sum[start + col]) : 0u;
            sum[start + col] = static_cast<int32_t>(before + added);
        }
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
