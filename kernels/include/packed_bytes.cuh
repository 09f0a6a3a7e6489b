// Words of four INT8 values.
#pragma once
#include "common.cuh"

// Four words as a matrix of bytes, transposed: byte r of columns[c] is byte c of rows[r]. Eight permutations. Both may be
// the same words.
__device__ __forceinline__ void transpose_bytes(uint32_t (&columns)[4], const uint32_t (&rows)[4]) {
    const uint32_t left01 = __byte_perm(rows[0], rows[1], 0x5140), left23 = __byte_perm(rows[2], rows[3], 0x5140);
    const uint32_t right01 = __byte_perm(rows[0], rows[1], 0x7362), right23 = __byte_perm(rows[2], rows[3], 0x7362);
    columns[0] = __byte_perm(left01, left23, 0x5410);
    columns[1] = __byte_perm(left01, left23, 0x7632);
    columns[2] = __byte_perm(right01, right23, 0x5410);
    columns[3] = __byte_perm(right01, right23, 0x7632);
}

// The four bytes from `source` on as a word; those from `count` on are zero and not read.
__device__ __forceinline__ uint32_t load_bytes(const int8_t* source, uint32_t count) {
    if (count >= 4 && is_aligned(source, 4)) return *reinterpret_cast<const uint32_t*>(source);
    uint32_t word = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if (i < count) word |= static_cast<uint32_t>(static_cast<uint8_t>(source[i])) << (i * 8);
    }
    return word;
}

__device__ __forceinline__ int32_t dot_bytes(uint32_t a, uint32_t b, int32_t sum) {
    return __dp4a(static_cast<int32_t>(a), static_cast<int32_t>(b), sum);
}
