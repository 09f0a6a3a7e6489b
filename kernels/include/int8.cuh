// INT8 codes and their scales: crates/qft-tensor/src/cpu/quantize.rs, nearest_i8 and scale_of.
#pragma once
#include "common.cuh"

// Below this absmax a group counts as zero: its inverse scale would overflow.
constexpr float TINY = 1e-30f;

// The nearest integer in -127..=127, ties to even; NaN gives 0.
__device__ __forceinline__ int32_t nearest_i8(float x) {
    const float limited = x != x ? 0.0f : fminf(fmaxf(x, -127.0f), 127.0f);
    return static_cast<int8_t>(__float_as_uint(limited + 12582912.0f));
}

__device__ __forceinline__ float scale_of(float absmax) { return absmax > TINY ? __fdiv_rn(absmax, 127.0f) : 0.0f; }
__device__ __forceinline__ float inverse_scale_of(float absmax) {
    return absmax > TINY ? __fdiv_rn(127.0f, absmax) : 0.0f;
}
