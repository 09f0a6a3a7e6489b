// The order in which the blocks of a product take the tiles of its result.
#pragma once
#include "common.cuh"

// Rows of tiles in a band.
constexpr uint32_t BAND_ROWS = 8;

struct TilePlace {
    uint32_t row, column;
};

// The tile of this block, one-dimensional grid of rows * columns blocks. Blocks that run at the same time should share
// operands in the L2 cache: bands of eight rows of tiles are walked column by column, so that 128 neighbouring blocks
// read 8 + 16 strips of the operands instead of 1 + 128.
__device__ __forceinline__ TilePlace tile_place(uint32_t rows, uint32_t columns) {
    const uint32_t band = blockIdx.x / (BAND_ROWS * columns), within = blockIdx.x % (BAND_ROWS * columns);
    const uint32_t height = min(rows - band * BAND_ROWS, BAND_ROWS);
    return {band * BAND_ROWS + within % height, within / height};
}
