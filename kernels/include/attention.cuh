// What the tensor-core kernels of attention share: tiles of 64 rows, read as f32, multiplied as bf16.
//
// A tile lies in shared memory row by row, D + 8 elements apart: eight consecutive rows begin in eight different
// quarters of the 32 banks, so matrix loads and stores are free of conflicts.
#pragma once
#include "mma.cuh"
#include "numeric.cuh"

constexpr uint32_t ATTENTION_TILE = 64;
constexpr uint32_t HALF_TILE = ATTENTION_TILE / 2;
constexpr uint32_t ATTENTION_THREADS = 128;
constexpr float LOG2_E = 1.4426950408889634f;

template <uint32_t D>
constexpr uint32_t TILE_STRIDE = D + 8;
template <uint32_t D>
constexpr uint32_t TILE_ELEMENTS = ATTENTION_TILE * TILE_STRIDE<D>;

// A tile of a segment: `first` is its first token, the segment is tokens start..end. Tiles are aligned to the start.
struct SegmentTile {
    uint32_t first, start, end;

    __device__ __forceinline__ uint32_t rows() const { return min(ATTENTION_TILE, end - first); }
};

// Tile `index` of a table u32 [tiles, 3].
__device__ __forceinline__ SegmentTile segment_tile(const uint32_t* __restrict__ tiles, uint32_t index) {
    const uint32_t* entry = tiles + static_cast<uint64_t>(index) * 3;
    return {entry[0], entry[1], entry[2]};
}

// Two floats as bf16, to nearest even, the first in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifdef QFT_EMULATE
    return bf16_from_f32(low) | static_cast<uint32_t>(bf16_from_f32(high)) << 16;
#else
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#endif
}

// A thread's share of half a tile on its way to shared memory. Fetched before the products that it waits behind and
// stored after them, it hides the latency of global memory. It stays in f32, since rounding would wait for it. Four threads
// to a row: all addresses of a thread are one and constants, where a register to each would spill.
template <uint32_t D>
using HalfShare = float4[D / 16];

// Its row of the half. Every other row to half a warp: their 32 bytes lie in different banks.
__device__ __forceinline__ uint32_t share_row() {
    return warp_index() * 8 + lane_index() / 4 % 4 * 2 + lane_index() / 16;
}

// 2^x by one instruction (2 ulp): what is below 2^-126 becomes zero, and no range has to be fixed.
__device__ __forceinline__ float exp2_flushed(float x) {
#ifdef QFT_EMULATE
    return x < -126.0f ? 0.0f : exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// Four floats, or zeros if not `valid`. Not a load of read-only memory (ld.global.nc), which the assembler may move behind
// barriers to where its result is needed.
__device__ __forceinline__ float4 load_quad(const float* src, bool valid) {
#ifdef QFT_EMULATE
    return valid ? *reinterpret_cast<const float4*>(src) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#else
    float4 x;
    asm volatile("{ .reg .pred valid; setp.ne.u32 valid, %5, 0; mov.f32 %0, 0f00000000; mov.f32 %1, 0f00000000;"
                 " mov.f32 %2, 0f00000000; mov.f32 %3, 0f00000000; @valid ld.global.v4.f32 {%0,%1,%2,%3}, [%4]; }"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"(src), "r"(static_cast<uint32_t>(valid)));
    return x;
#endif
}

// Fetches rows first..first + 32 of up to 64 rows of D floats, `stride` apart; those from `rows` on are zero and not read.
// The barrier keeps the assembler from moving the loads behind the matrix loads of products that follow.
template <uint32_t D>
__device__ __forceinline__ void fetch_half(HalfShare<D>& share, const float* __restrict__ src, uint64_t stride,
                                           uint32_t rows, uint32_t first) {
    const uint32_t row = share_row();
    const float* own = src + first * stride + (row * stride + threadIdx.x % 4 * 4);
#pragma unroll
    for (uint32_t j = 0; j < D / 16; ++j) share[j] = load_quad(own + j * 16, first + row < rows);
    __syncwarp();
}

// Rounds what was fetched to rows first..first + 32 of a tile.
template <uint32_t D>
__device__ __forceinline__ void store_half(uint16_t* __restrict__ tile, const HalfShare<D>& share, uint32_t first) {
    uint16_t* own = tile + (first + share_row()) * TILE_STRIDE<D> + threadIdx.x % 4 * 4;
#pragma unroll
    for (uint32_t j = 0; j < D / 16; ++j)
        *reinterpret_cast<uint2*>(own + j * 16) =
            make_uint2(pack_bf16(share[j].x, share[j].y), pack_bf16(share[j].z, share[j].w));
}

// Both at once, for a whole tile.
template <uint32_t D>
__device__ __forceinline__ void load_tile(uint16_t* __restrict__ tile, const float* __restrict__ src, uint64_t stride,
                                          uint32_t rows) {
    HalfShare<D> share[2];
    fetch_half<D>(share[0], src, stride, rows, 0);
    fetch_half<D>(share[1], src, stride, rows, HALF_TILE);
    store_half<D>(tile, share[0], 0);
    store_half<D>(tile, share[1], HALF_TILE);
}

// Left operand: rows row..row + 16, k = col..col + 16 of a tile.
template <uint32_t D>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const uint16_t* tile, uint32_t row, uint32_t col) {
    const uint32_t lane = lane_index();
    load_matrices_x4(a, tile + (row + lane % 16) * TILE_STRIDE<D> + col + lane / 16 * 8);
}

// Left operands over all of D, straight from rows row..row + 16 of floats; rows from `rows` on are zero and not read.
template <uint32_t D>
__device__ __forceinline__ void fetch_left(uint32_t (&a)[D / 16][4], const float* __restrict__ src, uint64_t stride,
                                           uint32_t row, uint32_t rows) {
    const uint32_t low = row + lane_index() / 4, col = lane_index() % 4 * 2;
#pragma unroll
    for (uint32_t k = 0; k < D / 16; ++k) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t own = low + i % 2 * 8;
            float2 x = make_float2(0.0f, 0.0f);
            if (own < rows) x = *reinterpret_cast<const float2*>(src + own * stride + k * 16 + i / 2 * 8 + col);
            a[k][i] = pack_bf16(x.x, x.y);
        }
    }
}

// Right operand of two neighbouring products, columns n = row..row + 16 and k = col..col + 16: the tile holds a column
// of the operand in a row.
template <uint32_t D>
__device__ __forceinline__ void load_right(uint32_t (&b)[2][2], const uint16_t* tile, uint32_t row, uint32_t col) {
    const uint32_t lane = lane_index();
    uint32_t r[4];
    load_matrices_x4(r, tile + (row + lane / 16 * 8 + lane % 8) * TILE_STRIDE<D> + col + lane / 8 % 2 * 8);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

// The same, k = row..row + 16 and columns n = col..col + 16: the tile holds the operand as it is.
template <uint32_t D>
__device__ __forceinline__ void load_right_transposed(uint32_t (&b)[2][2], const uint16_t* tile, uint32_t row,
                                                      uint32_t col) {
    const uint32_t lane = lane_index();
    uint32_t r[4];
    load_matrices_x4_transposed(r, tile + (row + lane % 16) * TILE_STRIDE<D> + col + lane / 16 * 8);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

// c[16, 8 N] += rows row..row + 16 of `left` times rows right_row..right_row + 8 N of `right`, over D. Four steps at a
// time: unrolled wholly, so many loads move ahead that the largest kernel runs out of registers.
template <uint32_t D, uint32_t N>
__device__ __forceinline__ void multiply_rows(float (&c)[N][4], const uint16_t* left, uint32_t row,
                                              const uint16_t* right, uint32_t right_row) {
#pragma unroll 4
    for (uint32_t k = 0; k < D; k += 16) {
        uint32_t a[4];
        load_left<D>(a, left, row, k);
#pragma unroll
        for (uint32_t n = 0; n < N; n += 2) {
            uint32_t b[2][2];
            load_right<D>(b, right, right_row + n * 8, k);
            mma_bf16_m16n8k16(c[n], a, b[0]);
            mma_bf16_m16n8k16(c[n + 1], a, b[1]);
        }
    }
}

// The same, of a left operand in registers, with all rows of `right`.
template <uint32_t D>
__device__ __forceinline__ void multiply_held(float (&c)[ATTENTION_TILE / 8][4], const uint32_t (&a)[D / 16][4],
                                              const uint16_t* right) {
#pragma unroll
    for (uint32_t k = 0; k < D / 16; ++k) {
#pragma unroll
        for (uint32_t n = 0; n < ATTENTION_TILE / 8; n += 2) {
            uint32_t b[2][2];
            load_right<D>(b, right, n * 8, k * 16);
            mma_bf16_m16n8k16(c[n], a[k], b[0]);
            mma_bf16_m16n8k16(c[n + 1], a[k], b[1]);
        }
    }
}

// A warp's weights of a tile's rows as left operands of a product over these rows.
using Weights = uint32_t[ATTENTION_TILE / 16][4];

// Accumulators of one product are, rounded and packed, the left operand of the next: those of 8 N rows from `row` on.
template <uint32_t N>
__device__ __forceinline__ void pack_weights(Weights& weights, uint32_t row, const float (&p)[N][4]) {
#pragma unroll
    for (uint32_t n = 0; n < N; n += 2) {
        uint32_t(&a)[4] = weights[row / 16 + n / 2];
        a[0] = pack_bf16(p[n][0], p[n][1]), a[1] = pack_bf16(p[n][2], p[n][3]);
        a[2] = pack_bf16(p[n + 1][0], p[n + 1][1]), a[3] = pack_bf16(p[n + 1][2], p[n + 1][3]);
    }
}

// out[16, D] += weights[16, 32] of rows first..first + 32 times these rows of `right`.
template <uint32_t D>
__device__ __forceinline__ void multiply_weights(float (&out)[D / 8][4], const Weights& weights, const uint16_t* right,
                                                 uint32_t first) {
#pragma unroll
    for (uint32_t n = first / 16; n < (first + HALF_TILE) / 16; ++n) {
#pragma unroll
        for (uint32_t d = 0; d < D; d += 16) {
            uint32_t b[2][2];
            load_right_transposed<D>(b, right, n * 16, d);
            mma_bf16_m16n8k16(out[d / 8], weights[n], b[0]);
            mma_bf16_m16n8k16(out[d / 8 + 1], weights[n], b[1]);
        }
    }
}

// Stores rows row..row + 16 of a warp, times `low_factor` for row lane / 4 and `high_factor` for that plus 8, as far as
// they are below `rows`.
template <uint32_t D>
__device__ __forceinline__ void store_rows(float* __restrict__ dst, uint64_t stride, uint32_t row, uint32_t rows,
                                           const float (&x)[D / 8][4], float low_factor, float high_factor) {
    const uint32_t low = row + lane_index() / 4, high = low + 8, col = lane_index() % 4 * 2;
#pragma unroll
    for (uint32_t n = 0; n < D / 8; ++n) {
        if (low < rows)
            *reinterpret_cast<float2*>(dst + low * stride + n * 8 + col) =
                make_float2(x[n][0] * low_factor, x[n][1] * low_factor);
        if (high < rows)
            *reinterpret_cast<float2*>(dst + high * stride + n * 8 + col) =
                make_float2(x[n][2] * high_factor, x[n][3] * high_factor);
    }
}
