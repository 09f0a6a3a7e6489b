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

    // Whether `WIDTH` (2 or 4) neighbouring columns, the first of which divides by it, can be written at once.
    template <uint32_t WIDTH>
    __device__ __forceinline__ bool vectors() const {
        return is_aligned(out, WIDTH * sizeof(float)) && stride % WIDTH == 0;
    }

    // The scales of the `columns` (1 to WIDTH) columns from `n` on.
    template <uint32_t WIDTH>
    __device__ __forceinline__ void load_col_scale(float (&scale)[WIDTH], uint32_t n, uint32_t columns) const {
#pragma unroll
        for (uint32_t v = 0; v < WIDTH; ++v) scale[v] = col_scale != nullptr && v < columns ? col_scale[n + v] : 1.0f;
    }

    // Writes the `columns` (1 to WIDTH) cells from (m, n) on.
    template <uint32_t WIDTH>
    __device__ __forceinline__ void write(uint32_t m, uint32_t n, uint32_t columns, bool vectors, const int32_t (&sum)[WIDTH],
                                          float row, const float (&col)[WIDTH]) const {
        struct alignas(WIDTH * sizeof(float)) Cells {
            float x[WIDTH];
        };
        Cells value;
#pragma unroll
        for (uint32_t v = 0; v < WIDTH; ++v) value.x[v] = __fmul_rn(__fmul_rn(__int2float_rn(sum[v]), row), col[v]);
        float* first = out + m * stride + n;
        if (vectors && columns == WIDTH) {
            Cells* cells = reinterpret_cast<Cells*>(first);
            if (accumulate) {
                const Cells old = *cells;
#pragma unroll
                for (uint32_t v = 0; v < WIDTH; ++v) value.x[v] = __fadd_rn(old.x[v], value.x[v]);
            }
            *cells = value;
        } else {
#pragma unroll
            for (uint32_t v = 0; v < WIDTH; ++v) {
                if (v < columns) first[v] = accumulate ? __fadd_rn(first[v], value.x[v]) : value.x[v];
            }
        }
    }
};
