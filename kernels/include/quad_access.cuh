// Four consecutive elements of a row, the unit in which a lane reads and writes: one vector access where alignment and
// the borders of the range allow it, else element by element.
#pragma once
#include "random.cuh"

constexpr uint32_t QUAD = 4;

// Whether quads of the rows of a matrix may be accessed as vectors: every row starts on a boundary of four elements.
template <class T>
__device__ __forceinline__ bool quads_aligned(const T* first, uint64_t stride) {
    return is_aligned(first, QUAD * sizeof(T)) && stride % QUAD == 0;
}

// Elements col..col + 4 of a row; those outside of begin..end are zero and not read.
__device__ __forceinline__ void load_quad(float (&out)[QUAD], const float* row, uint32_t col, uint32_t begin,
                                          uint32_t end, bool aligned) {
    if (aligned && col >= begin && col + QUAD <= end) {
        const float4 x = *reinterpret_cast<const float4*>(row + col);
        out[0] = x.x;
        out[1] = x.y;
        out[2] = x.z;
        out[3] = x.w;
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) out[i] = col + i >= begin && col + i < end ? row[col + i] : 0.0f;
}
__device__ __forceinline__ void load_quad(int32_t (&out)[QUAD], const int8_t* row, uint32_t col, uint32_t begin,
                                          uint32_t end, bool aligned) {
    if (aligned && col >= begin && col + QUAD <= end) {
        const char4 x = *reinterpret_cast<const char4*>(row + col);
        out[0] = x.x;
        out[1] = x.y;
        out[2] = x.z;
        out[3] = x.w;
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) out[i] = col + i >= begin && col + i < end ? row[col + i] : 0;
}

// Writes elements col..col + 4 of a row, except those outside of begin..end.
__device__ __forceinline__ void store_quad(float* row, uint32_t col, uint32_t begin, uint32_t end, bool aligned,
                                           const float (&x)[QUAD]) {
    if (aligned && col >= begin && col + QUAD <= end) {
        *reinterpret_cast<float4*>(row + col) = make_float4(x[0], x[1], x[2], x[3]);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) {
        if (col + i >= begin && col + i < end) row[col + i] = x[i];
    }
}
__device__ __forceinline__ void store_quad(int8_t* row, uint32_t col, uint32_t begin, uint32_t end, bool aligned,
                                           const int32_t (&x)[QUAD]) {
    if (aligned && col >= begin && col + QUAD <= end) {
        *reinterpret_cast<char4*>(row + col) =
            make_char4(static_cast<int8_t>(x[0]), static_cast<int8_t>(x[1]), static_cast<int8_t>(x[2]), static_cast<int8_t>(x[3]));
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) {
        if (col + i >= begin && col + i < end) row[col + i] = static_cast<int8_t>(x[i]);
    }
}
