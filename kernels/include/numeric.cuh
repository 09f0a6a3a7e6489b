// Roundings and scales of single numbers, bit for bit those of crates/qft-tensor/src/numeric.rs; a test of qft-cuda compares
// the constants.
#pragma once
#include "common.cuh"

// 2^23 + 2^22: adding it to a float of magnitude up to 2^22 leaves the nearest integer, ties to even, in the low bits of the sum.
constexpr float MAGIC = 12582912.0f;

// Numbers whose largest magnitude is below this count as zeros: their inverse scale would overflow.
constexpr float TINY = 1e-30f;

// Lanes of a partial sum on the CPU, and of a block of random words: element i belongs to lane i % 16.
constexpr uint32_t LANES = 16;

// The nearest integer, ties to even, of |x| <= 2^22; as a float, and as an integer.
__device__ __forceinline__ float round_nearest(float x) { return __fadd_rn(__fadd_rn(x, MAGIC), -MAGIC); }
__device__ __forceinline__ int32_t nearest(float x) {
    return static_cast<int32_t>(__float_as_uint(x + MAGIC) - __float_as_uint(MAGIC));
}

// The nearest integer in -127..=127, ties to even; NaN gives 0.
__device__ __forceinline__ int32_t nearest_i8(float x) {
    const float limited = x != x ? 0.0f : fminf(fmaxf(x, -127.0f), 127.0f);
    return static_cast<int8_t>(__float_as_uint(limited + MAGIC));
}

__device__ __forceinline__ float scale_of(float absmax) { return absmax > TINY ? __fdiv_rn(absmax, 127.0f) : 0.0f; }
__device__ __forceinline__ float inverse_scale_of(float absmax) {
    return absmax > TINY ? __fdiv_rn(127.0f, absmax) : 0.0f;
}

// The unit of a sum of at most `count` numbers up to `bound`; NaN for a bound that is not finite.
__device__ __forceinline__ float sum_unit(float bound, uint32_t count) {
    const uint32_t bits = __float_as_uint(bound);
    if ((bits & 0x7F800000u) == 0x7F800000u) return __uint_as_float(0x7FC00000u);
    const int32_t exponent = static_cast<int32_t>(bits >> 23) - 126;
    const int32_t doublings = count > 1u ? 32 - __clz(static_cast<int>(count - 1u)) : 0;
    const int32_t unit = exponent + doublings - 30;
    return __uint_as_float(static_cast<uint32_t>((unit < -126 ? -126 : unit) + 127) << 23);
}

// The inverse of that unit, a power of two as well; zero for a bound that is not finite.
__device__ __forceinline__ float inverse_sum_unit(float bound, uint32_t count) {
    const uint32_t unit = __float_as_uint(sum_unit(bound, count));
    return unit > 0x7F800000u ? 0.0f : __uint_as_float(0x7F000000u - unit);
}

// bf16 from f32, to nearest, ties to even; NaN stays a quiet NaN.
__device__ __forceinline__ uint16_t bf16_from_f32(float x) {
    const uint32_t bits = __float_as_uint(x);
    const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return static_cast<uint16_t>(x != x ? (bits >> 16 | 0x40u) : rounded);
}
__device__ __forceinline__ float f32_from_bf16(uint16_t bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
