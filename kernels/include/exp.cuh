// The exponential function of the CPU backend, bit for bit: crates/qft-autograd/src/cpu/exp.rs.
#pragma once
#include "numeric.cuh"

// e^x within 1 ulp of the true value or 0; 0 for x < -87.33, saturated above 88.37; NaN stays NaN.
__device__ __forceinline__ float exp_f32(float x) {
    const float lowest = -87.33654f, highest = 88.37626f;
    float clamped = x < lowest ? lowest : x;
    clamped = clamped > highest ? highest : clamped;
    const float shifted = __fmaf_rn(clamped, 1.44269504088896340736f, MAGIC);
    const float n = __fadd_rn(shifted, -MAGIC);
    // ln 2 in two parts; the first has few bits, so that its multiples are exact.
    const float r = __fmaf_rn(n, 2.1219444e-4f, __fmaf_rn(n, -0.6933594f, clamped));
    // A minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2 (Cephes).
    float p = __fmaf_rn(1.98756915e-4f, r, 1.39819995e-3f);
    p = __fmaf_rn(p, r, 8.333452e-3f);
    p = __fmaf_rn(p, r, 4.1665796e-2f);
    p = __fmaf_rn(p, r, 1.6666665e-1f);
    p = __fmaf_rn(p, r, 5.0000001e-1f);
    const float e = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
    const float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
    return x < lowest ? 0.0f : __fmul_rn(e, power);
}

// 1 / (1 + e^-x).
__device__ __forceinline__ float sigmoid_f32(float x) {
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, exp_f32(-x)));
}
