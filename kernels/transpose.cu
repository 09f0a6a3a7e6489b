// Transposes an INT8 matrix: what a product needs whose operands are contiguous along the wrong axis (gemm_i8_hopper.cu).
//
//   out[c, r] = in[r, c]
//
// Shapes: in [rows, cols], out [cols, rows], any row stride of `in`, rows of `out` 4-byte aligned with a stride of whole
// words: the rest of a row's last word is zero. Exact.
// Grid: 64 rows by 64 columns of `in` per block of 256 threads, rows in x, columns in y. A thread turns 4 x 4 bytes in
// registers; half a warp reads, and writes, 64 neighbouring bytes.
// Bound: memory, two bytes an element. CPU twin: none, an index is all there is to it.
#include "packed_bytes.cuh"

namespace {

constexpr uint32_t TILE = 64, WORDS = TILE / 4;

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
transpose_i8(const int8_t* __restrict__ in, uint64_t in_stride, int8_t* __restrict__ out, uint64_t out_stride, uint32_t rows,
             uint32_t cols) {
    // One more word per row, so that neither side of the exchange meets more than two words of a bank.
    __shared__ uint32_t turned[TILE][WORDS + 1];
    const uint32_t x = threadIdx.x % WORDS, y = threadIdx.x / WORDS;
    const uint32_t row = blockIdx.x * TILE, column = blockIdx.y * TILE;
    const uint32_t columns = cols - min(cols, column + 4 * x);
    uint32_t words[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t r = row + 4 * y + i;
        words[i] = r < rows ? load_bytes(in + r * in_stride + column + 4 * x, columns) : 0;
    }
    transpose_bytes(words, words);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) turned[4 * x + i][y] = words[i];
    __syncthreads();
    if (row + 4 * x >= rows) return;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t c = 4 * y + i;
        if (column + c < cols) *reinterpret_cast<uint32_t*>(out + (column + c) * out_stride + row + 4 * x) = turned[c][x];
    }
}
