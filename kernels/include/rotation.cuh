// The rotation of rows along their columns, bit for bit that of crates/qft-tensor/src/rotation.rs; a test of qft-cuda compares
// the sizes. Of 64 m columns, column c is in group c mod m; what 64 does not divide is mixed by 16 and by 4.
#pragma once
#include "common.cuh"

// What a level of two, of members `distance` apart, leaves: that of two such levels is halved.
__device__ __forceinline__ float level_end(float x, uint32_t distance) { return (distance & 0x2A) != 0 ? 0.5f * x : x; }

// A group of SIZE values in the registers of a thread, or SIZE neighbouring members of one.
template <uint32_t SIZE>
__device__ __forceinline__ void rotate_group(float (&v)[SIZE]) {
#pragma unroll
    for (uint32_t distance = 1; distance < SIZE; distance *= 2) {
#pragma unroll
        for (uint32_t i = 0; i < SIZE; ++i) {
            if ((i & distance) != 0) continue;
            const float a = v[i], b = v[i + distance];
            v[i] = level_end(__fadd_rn(a, b), distance);
            v[i + distance] = level_end(__fsub_rn(a, b), distance);
        }
    }
}

// Rotates the groups of 64 columns and calls use(column, rotated value); returns the first column behind them. A lane has SHARE
// members of a group in registers; groups lie side by side in a warp, so that it reads and writes whole sectors, or their halves
// where SHARE is 8. The last levels are between lanes. All warps of the block call together.
template <uint32_t SHARE, class Value, class Use>
__device__ __forceinline__ uint32_t walk_large_groups(uint32_t cols, Value value, Use use) {
    constexpr uint32_t SIZE = 64, TOGETHER = WARP * SHARE / SIZE;
    const uint32_t groups = cols / SIZE, share = lane_index() / TOGETHER;
    for (uint32_t first = threadIdx.x / WARP * TOGETHER; first < groups; first += blockDim.x / WARP * TOGETHER) {
        const uint32_t group = first + lane_index() % TOGETHER;
        const uint32_t column = share * SHARE * groups + group;
        float v[SHARE] = {};
        if (group < groups) {
#pragma unroll
            for (uint32_t i = 0; i < SHARE; ++i) v[i] = value(column + i * groups);
        }
        rotate_group<SHARE>(v);
#pragma unroll
        for (uint32_t distance = SHARE; distance < SIZE; distance *= 2) {
            // The sum, or the difference, by the sign of what a lane adds.
            const uint32_t lanes = distance / SHARE, sign = share / lanes << 31;
#pragma unroll
            for (uint32_t i = 0; i < SHARE; ++i) {
                const float other = __shfl_xor_sync(FULL_MASK, v[i], lanes * TOGETHER);
                v[i] = level_end(__fadd_rn(other, __uint_as_float(__float_as_uint(v[i]) ^ sign)), distance);
            }
        }
        if (group < groups) {
#pragma unroll
            for (uint32_t i = 0; i < SHARE; ++i) use(column + i * groups, v[i]);
        }
    }
    return SIZE * groups;
}

// The same for the few groups of SIZE columns behind `first`, of a thread each.
template <uint32_t SIZE, class Value, class Use>
__device__ __forceinline__ uint32_t walk_small_groups(uint32_t first, uint32_t cols, Value value, Use use) {
    const uint32_t groups = (cols - first) / SIZE;
    if (threadIdx.x < groups) {
        float v[SIZE];
#pragma unroll
        for (uint32_t i = 0; i < SIZE; ++i) v[i] = value(first + i * groups + threadIdx.x);
        rotate_group<SIZE>(v);
#pragma unroll
        for (uint32_t i = 0; i < SIZE; ++i) use(first + i * groups + threadIdx.x, v[i]);
    }
    return first + SIZE * groups;
}

// Calls use(column, value) for all columns of the row `value(column)`, rotated. The threads of a block share the work, and hold SHARE
// values at a time, 16 or 8.
template <uint32_t SHARE = 16, class Value, class Use>
__device__ __forceinline__ void walk_rotated(uint32_t cols, Value value, Use use) {
    uint32_t first = walk_large_groups<SHARE>(cols, value, use);
    first = walk_small_groups<16>(first, cols, value, use);
    first = walk_small_groups<4>(first, cols, value, use);
    walk_small_groups<1>(first, cols, value, use);
}

// Where a column is among the groups of its row: bit `member` of word `group`; `last` is the end of the groups of this size, and
// `unit` what one member of a rotated row of signs counts.
struct GroupPlace {
    uint32_t group, member, last;
    float unit;
};
__device__ __forceinline__ GroupPlace group_place(uint32_t col, uint32_t cols) {
    uint32_t first_group = 0;
    float unit = 0.125f;
    for (uint32_t size = 64; size > 1; size /= 4) {
        const uint32_t groups = cols / size, mixed = groups * size;
        if (col < mixed) return {first_group + col % groups, col / groups, first_group + groups, unit};
        first_group += groups;
        col -= mixed;
        cols -= mixed;
        unit *= 2.0f;
    }
    return {first_group + col, 0, first_group + cols, 1.0f};
}

// The place of column `col`, which follows that of `place`.
__device__ __forceinline__ void next_place(GroupPlace& place, uint32_t col, uint32_t cols) {
    if (++place.group == place.last) place = group_place(col, cols);
}

// Groups of a row, at most.
__device__ __forceinline__ uint32_t most_groups(uint32_t cols) { return cols / 64 + 9; }

// The signs of a row's values by groups: a bit for each member, in two words. In shared memory; a value without a bit in
// `nonzero` is zero.
struct GroupSigns {
    uint32_t *negative, *nonzero;  // [most_groups, 2]

    // All zero; a barrier must follow.
    __device__ __forceinline__ void clear(uint32_t cols) const {
        for (uint32_t i = threadIdx.x; i < 2 * most_groups(cols); i += blockDim.x) negative[i] = nonzero[i] = 0;
    }
    __device__ __forceinline__ void set(const GroupPlace& place, float sign) const {
        const uint32_t word = 2 * place.group + place.member / 32, bit = 1u << place.member % 32;
        if (sign != 0.0f) atomicOr(&nonzero[word], bit);
        if (sign < 0.0f) atomicOr(&negative[word], bit);
    }
    // The sign itself.
    __device__ __forceinline__ float plain(const GroupPlace& place) const {
        const uint32_t word = 2 * place.group + place.member / 32, bit = place.member % 32;
        if ((nonzero[word] >> bit & 1) == 0) return 0.0f;
        return (negative[word] >> bit & 1) != 0 ? -1.0f : 1.0f;
    }
    // The value of the rotated row: exact, a sum of signs by a row of the Hadamard matrix. Entry (i, j) of it is negative where
    // i and j have an odd number of bits in common.
    __device__ __forceinline__ float rotated(const GroupPlace& place) const {
        const uint32_t i = place.member;
        const uint32_t low = (i & 1 ? 0xAAAAAAAAu : 0) ^ (i & 2 ? 0xCCCCCCCCu : 0) ^ (i & 4 ? 0xF0F0F0F0u : 0) ^
                             (i & 8 ? 0xFF00FF00u : 0) ^ (i & 16 ? 0xFFFF0000u : 0);
        const uint32_t high = i & 32 ? ~low : low;
        const uint32_t *any = nonzero + 2 * place.group, *minus = negative + 2 * place.group;
        const int32_t count = __popc(any[0]) + __popc(any[1]);
        const int32_t against = __popc(any[0] & (minus[0] ^ low)) + __popc(any[1] & (minus[1] ^ high));
        return place.unit * static_cast<float>(count - 2 * against);
    }
};
