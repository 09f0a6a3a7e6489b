// Quantization with wide channels: crates/qft-tensor/src/cpu/wide.rs. Which they are stands on the device, chosen by an
// earlier step (wide.cu), so the host does not know whether there are any.
#pragma once
#include "numeric.cuh"
#include "wide.cuh"

// The largest magnitude of a wide value, in units of the scale.
constexpr float WIDE_MAX = 127 * WIDE_RADIX + 63;

// Quantizes the row `value(i)` if there are wide channels, and returns whether there are; see quantize_row. If there are
// none, `high` receives zeros and the row is left to the caller. A block of WARPS warps; `shared` holds WARPS floats.
template <uint32_t WARPS, class Value>
__device__ __forceinline__ bool quantize_row_wide(uint32_t cols, const uint32_t* __restrict__ channels, float* shared,
                                          int8_t* __restrict__ q, float* scale, int8_t* __restrict__ high,
                                          Value value) {
    uint32_t wide[WIDE];
#pragma unroll
    for (uint32_t place = 0; place < WIDE; ++place) wide[place] = channels[place];
    // They are in front.
    if (wide[0] >= cols) {
        if (threadIdx.x < WIDE) high[threadIdx.x] = 0;
        return false;
    }
    float ordinary = 0.0f, largest = 0.0f;
    for (uint32_t i = threadIdx.x; i < cols; i += WARPS * WARP) {
        bool is_wide = false;
#pragma unroll
        for (uint32_t place = 0; place < WIDE; ++place) is_wide |= i == wide[place];
        const float magnitude = fabsf(value(i));
        if (is_wide) {
            largest = fmaxf(largest, magnitude);
        } else {
            ordinary = fmaxf(ordinary, magnitude);
        }
    }
    ordinary = block_max<WARPS>(ordinary, shared);
    __syncthreads();
    largest = __fmul_rn(block_max<WARPS>(largest, shared), 127.0f / WIDE_MAX);
    const float absmax = largest > ordinary ? largest : ordinary, inverse = inverse_scale_of(absmax);
    if (threadIdx.x < WIDE) high[threadIdx.x] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < cols; i += WARPS * WARP) {
        const float scaled = __fmul_rn(value(i), inverse);
        int32_t digit = nearest_i8(scaled);
#pragma unroll
        for (uint32_t place = 0; place < WIDE; ++place) {
            if (i != wide[place]) continue;
            const float limited = scaled != scaled ? 0.0f : fminf(fmaxf(scaled, -WIDE_MAX), WIDE_MAX);
            const int32_t nearest = __float2int_rn(limited), upper = (nearest + WIDE_RADIX / 2) >> 7;
            high[place] = static_cast<int8_t>(upper);
            digit = nearest - WIDE_RADIX * upper;
        }
        q[i] = static_cast<int8_t>(digit);
    }
    if (threadIdx.x == 0) *scale = scale_of(absmax);
    return true;
}
