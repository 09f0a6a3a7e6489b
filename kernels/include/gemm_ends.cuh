// Both ends of an INT8 product's sums: second digits of wide channels to start with, and the result as scaled floats.
#pragma once
#include "wide.cuh"

// For a tile of BM x BN of the product a b^T whose first operand has second digits: the digits of its rows, and the
// weights of its columns for the same channels, to shared memory as rows of WIDE bytes. `b` is [n_end, k].
template <uint32_t BM, uint32_t BN, uint32_t THREADS>
__device__ __forceinline__ void stage_wide_digits(int8_t* rows, int8_t* columns, const WideDigits& digits, const int8_t* b,
                                                  uint64_t b_stride, uint32_t k, uint32_t m0, uint32_t m_end, uint32_t n0,
                                                  uint32_t n_end) {
    const uint32_t place = threadIdx.x % WIDE, channel = digits.channels[place];
    for (uint32_t i = threadIdx.x / WIDE; i < BM; i += THREADS / WIDE) {
        rows[i * WIDE + place] = m0 + i < m_end ? digits.high[(m0 + i) * digits.stride + place] : 0;
    }
    for (uint32_t i = threadIdx.x / WIDE; i < BN; i += THREADS / WIDE) {
        const bool inside = n0 + i < n_end && channel < k;
        columns[i * WIDE + place] = inside ? b[(n0 + i) * b_stride + channel] : 0;
    }
    __syncthreads();
}

// out[m, n] (+)= f32(sum) * row_scale[m] * col_scale[n]
struct Epilogue {
    const float* row_scale;  // [M] or null.
    const float* col_scale;  // [N] or null.
    float* out;
    uint64_t stride;
    bool accumulate;

    // Whether four neighbouring columns, the first of which divides by four, can be written at once.
    __device__ __forceinline__ bool vectors() const { return is_aligned(out, 16) && stride % 4 == 0; }

    // The scales of the `columns` (1 to 4) columns from `n` on.
    __device__ __forceinline__ void load_col_scale(float (&scale)[4], uint32_t n, uint32_t columns) const {
#pragma unroll
        for (uint32_t v = 0; v < 4; ++v) scale[v] = col_scale != nullptr && v < columns ? col_scale[n + v] : 1.0f;
    }

    // Writes the `columns` (1 to 4) cells from (m, n) on.
    __device__ __forceinline__ void write(uint32_t m, uint32_t n, uint32_t columns, bool vectors, const int32_t (&sum)[4],
                                          float row, const float (&col)[4]) const {
        float value[4];
#pragma unroll
        for (uint32_t v = 0; v < 4; ++v) value[v] = __fmul_rn(__fmul_rn(__int2float_rn(sum[v]), row), col[v]);
        float* first = out + m * stride + n;
        if (vectors && columns == 4) {
            float4* cell = reinterpret_cast<float4*>(first);
            float4 total = make_float4(value[0], value[1], value[2], value[3]);
            if (accumulate) {
                const float4 old = *cell;
                total = make_float4(__fadd_rn(old.x, total.x), __fadd_rn(old.y, total.y), __fadd_rn(old.z, total.z),
                                    __fadd_rn(old.w, total.w));
            }
            *cell = total;
        } else {
#pragma unroll
            for (uint32_t v = 0; v < 4; ++v) {
                if (v < columns) first[v] = accumulate ? __fadd_rn(first[v], value[v]) : value[v];
            }
        }
    }
};
