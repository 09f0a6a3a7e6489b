// Rotary embedding (arXiv 2104.09864) in the half-split order of Hugging Face, in place.
//
// (x[i], x[i + half]) = scale (x[i] cos a - x[i + half] sin a, x[i + half] cos a + x[i] sin a), a = position * inv_freq[i].
// Shapes: x f32 [tokens, heads * size], positions u32 [tokens], inv_freq f32 [half]; size >= 2 half, and channels of a head from
// 2 half on stay as they are.
// Grid: one block a token; its threads first make the token's angles, then turn its heads.
// Numerics: angle, reduction and polynomials in f64, rounded to f32 once, as the CPU's: the two differ at most where
// an f64 error of 1e-15 meets a border of f32 rounding. The rotation has the CPU's bits. Deterministic.
// CPU twin: crates/qft-autograd/src/cpu/rope.rs.
// Bound: memory, 8 bytes an element; 30 f64 operations for every `heads` pairs, a few per cent of the time even where
// f64 runs at 1/64 of f32.
#include "common.cuh"

constexpr uint32_t ROPE_THREADS = 128;

// sin(r) for |r| <= pi / 4 within 2^-58 (fdlibm's polynomial).
__device__ __forceinline__ double sine(double r) {
    const double z = r * r;
    double p = fma(z, 1.58969099521155010221e-10, -2.50507602534068634195e-08);
    p = fma(z, p, 2.75573137070700676789e-06);
    p = fma(z, p, -1.98412698298579493134e-04);
    p = fma(z, p, 8.33333333332248946124e-03);
    p = fma(z, p, -1.66666666666666324348e-01);
    return fma(r * z, p, r);
}

// cos(r), likewise.
__device__ __forceinline__ double cosine(double r) {
    const double z = r * r;
    double p = fma(z, -1.13596475577881948265e-11, 2.08757232129817482790e-09);
    p = fma(z, p, -2.75573143513906633035e-07);
    p = fma(z, p, 2.48015872894767294178e-05);
    p = fma(z, p, -1.38888888888741095749e-03);
    p = fma(z, p, 4.16666666666666019037e-02);
    return fma(z * z, p, fma(z, -0.5, 1.0));
}

// Dynamic shared memory: 2 half floats. `sine_scale` is `scale`, or -scale to turn back.
extern "C" __global__ void __launch_bounds__(ROPE_THREADS)
rope_f32(float* __restrict__ x, const uint32_t* __restrict__ positions, const float* __restrict__ inv_freq,
         uint32_t heads, uint32_t size, uint32_t half, float scale, float sine_scale) {
    DYN_SHARED(float, cosines);
    float* sines = cosines + half;
    const double position = static_cast<double>(positions[blockIdx.x]);
    for (uint32_t i = threadIdx.x; i < half; i += ROPE_THREADS) {
        const double angle = position * static_cast<double>(inv_freq[i]);
        // Quarter turns: pi / 2 in two parts, 107 bits together.
        const double turns = rint(angle * 0.63661977236758134308);
        const double r = fma(turns, -6.12323399573676603587e-17, fma(turns, -1.57079632679489655800, angle));
        const uint32_t quadrant = static_cast<uint32_t>(static_cast<int64_t>(turns)) & 3u;
        const double s = sine(r), c = cosine(r);
        const double turned_sine = quadrant & 1u ? c : s, turned_cosine = quadrant & 1u ? s : c;
        sines[i] = __fmul_rn(sine_scale, static_cast<float>(quadrant & 2u ? -turned_sine : turned_sine));
        cosines[i] = __fmul_rn(scale, static_cast<float>((quadrant + 1u) & 2u ? -turned_cosine : turned_cosine));
    }
    __syncthreads();
    float* row = x + static_cast<uint64_t>(blockIdx.x) * heads * size;
    for (uint32_t pair = threadIdx.x; pair < heads * half; pair += ROPE_THREADS) {
        const uint32_t i = pair % half;
        float* low = row + static_cast<uint64_t>(pair / half) * size + i;
        float* high = low + half;
        const float a = *low, b = *high, cos = cosines[i], sin = sines[i];
        *low = __fmaf_rn(a, cos, -__fmul_rn(b, sin));
        *high = __fmaf_rn(b, cos, __fmul_rn(a, sin));
    }
}
