// Random numbers, bit for bit those of crates/qft-tensor/src/rng.rs.
#pragma once
#include "numeric.cuh"

// Words in a block of random numbers, and elements of a row that share one block at 16 bits an element.
constexpr uint32_t BLOCK_WORDS = 64;
constexpr uint32_t HALF_BLOCK = 2 * BLOCK_WORDS;

// One stream of random numbers: qft_tensor::Philox. `step`, `tensor` and `purpose` are those of RngKey.
struct Philox {
    uint32_t key0, key1, purpose, tensor, step;
};

__device__ __forceinline__ Philox philox(uint64_t seed, uint32_t step, uint32_t tensor, uint32_t purpose) {
    return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), purpose, tensor, step};
}

// Philox4x32-10 (Salmon et al., SC 2011) of one counter. Lane l < 16 of block b has the counter 16 * b + l (mod 2^32);
// its output j is word 16 * j + l of the block.
__device__ __forceinline__ uint4 philox_words(const Philox& stream, uint32_t counter) {
    uint32_t c0 = counter, c1 = stream.purpose, c2 = stream.tensor, c3 = stream.step;
    uint32_t k0 = stream.key0, k1 = stream.key1;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

// Blocks that a row of `cols` elements takes at 16 bits an element; row r starts at block r * blocks_per_row(cols).
// Element e < 64 of a block's 128 takes the lower half of word e, element 64 + e the upper half. So lane l < 16 serves
// the elements l, 16 + l, 32 + l, 48 + l from the lower halves of its four words, and those 64 further from the upper.
__device__ __forceinline__ uint32_t blocks_per_row(uint32_t cols) { return (cols + HALF_BLOCK - 1) / HALF_BLOCK; }

// (bits + 1/2) / 65536, the centre of the 16-bit cell; added before floor it rounds stochastically.
__device__ __forceinline__ float offset_from_bits(uint32_t bits) {
    return __fmul_rn(__fadd_rn(static_cast<float>(static_cast<int32_t>(bits)), 0.5f), 1.0f / 65536.0f);
}
