// Protected weights of hybrid matrices, in device memory: crates/qft-quant/src/protected.rs.
#pragma once
#include "numeric.cuh"

// Columns that share one count.
constexpr uint32_t PROTECTED_COLS = 256;

__device__ __forceinline__ uint32_t protected_blocks(uint32_t cols) { return (cols + PROTECTED_COLS - 1) / PROTECTED_COLS; }

// Calls f(index, column) for the protected weights of row n that lie in every `warps`-th block of columns, from the block
// `warp` on. All lanes of the warp call together; each gets other weights, in no order. f must not wait for other lanes.
template <class F>
__device__ __forceinline__ void for_each_protected(const uint8_t* protected_cols, const uint8_t* counts,
                                                 const uint32_t* row_start, uint32_t n, uint32_t cols, uint32_t warp,
                                                 uint32_t warps, F f) {
    const uint32_t blocks = protected_blocks(cols), lane = lane_index();
    const uint8_t* const row_counts = counts + static_cast<uint64_t>(n) * blocks;
    uint32_t first = row_start[n], passed = 0;
    for (uint32_t block = warp; block < blocks; block += warps) {
        // Protected weights of the blocks between the last one and this.
        uint32_t between = 0;
        for (uint32_t other = passed + lane; other < block; other += WARP) between += row_counts[other];
        first += static_cast<uint32_t>(warp_sum(static_cast<int32_t>(between)));
        passed = block;
        for (uint32_t i = first + lane; i < first + row_counts[block]; i += WARP)
            f(i, block * PROTECTED_COLS + protected_cols[i]);
    }
}
