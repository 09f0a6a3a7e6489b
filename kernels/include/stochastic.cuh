// The random bits of a warp: 32 counters of Philox at a time, none of them wasted.
//
// A lane that computes one counter gets words that lie 16 apart, but handles four consecutive elements: the words change
// hands in shared memory.
#pragma once
#include "quad_access.cuh"

// Words of one warp in shared memory: two random blocks, the second moved by 16 banks so that the stores of both halves of
// the warp do not collide.
constexpr uint32_t SECOND_BLOCK = BLOCK_WORDS + 16;
constexpr uint32_t WARP_WORDS = SECOND_BLOCK + BLOCK_WORDS;

// Fills `words` with the random blocks `first` and `second`. All lanes of the warp call together.
__device__ __forceinline__ void draw_words(uint32_t* words, const Philox& stream, uint32_t first, uint32_t second) {
    const uint32_t lane = lane_index() % LANES;
    const bool high = lane_index() >= LANES;
    const uint4 drawn = philox_words(stream, LANES * (high ? second : first) + lane);
    // The last words have been read.
    __syncwarp();
    uint32_t* to = words + (high ? SECOND_BLOCK : 0) + lane;
    to[0] = drawn.x;
    to[LANES] = drawn.y;
    to[2 * LANES] = drawn.z;
    to[3 * LANES] = drawn.w;
    __syncwarp();
}

__device__ __forceinline__ void load_words(uint32_t (&out)[QUAD], const uint32_t* words) {
    const uint4 drawn = *reinterpret_cast<const uint4*>(words);
    out[0] = drawn.x;
    out[1] = drawn.y;
    out[2] = drawn.z;
    out[3] = drawn.w;
}

// One word for each of 128 elements, from two random blocks: those of elements 4 * lane..4 * lane + 4.
__device__ __forceinline__ void element_words(uint32_t (&out)[QUAD], const uint32_t* words) {
    const uint32_t lane = lane_index();
    load_words(out, words + (lane < WARP / 2 ? 0 : SECOND_BLOCK - BLOCK_WORDS) + QUAD * lane);
}

// 16 bits for each of 128 elements, from the one random block at `words`: u - 1/2 for elements 4 * lane..4 * lane + 4, as
// qft_tensor::rng::rounding_offsets has u.
__device__ __forceinline__ void element_offsets(float (&out)[QUAD], const uint32_t* words) {
    const uint32_t lane = lane_index(), shift = lane < WARP / 2 ? 0 : 16;
    uint32_t drawn[QUAD];
    load_words(drawn, words + QUAD * (lane % LANES));
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) out[i] = offset_from_bits(drawn[i] >> shift & 0xFFFFu) - 0.5f;
}
