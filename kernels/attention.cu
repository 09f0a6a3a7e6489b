// Causal attention within segments on bf16 tensor cores: out = softmax(q k^T / sqrt(D)) v, never materialising [T, T]
// (Dao, arXiv 2307.08691, written anew).
//
// Shapes: q, out f32 [T, H D]; k, v f32 [T, G D]; lse f32 [T, H]; tiles u32 [tiles, 3], longest first: first token of 64
// queries, first token and end of their segment. Query head h reads key/value head h / (H / G).
// Grid: (H, tiles), 128 threads. A block owns 64 queries of a head, a warp 16 of them. For each block of 64 keys up to
// the diagonal: round k and v to bf16 into shared memory, scores = q k^T, online softmax, result += p v. Keys past the
// diagonal and other segments are never visited.
// Latency: a block of v is fetched to registers before the scores' product, the next block of k before that with v; each
// goes to shared memory behind its product. Rounding k and v to bf16 in memory once would halve what is fetched and let
// cp.async copy it, but wants 4 G D bytes of scratch a token, which a large batch does not find in 32 MiB; copies of f32
// want 64 KiB of shared memory more. Registers are there: 255 to a thread leave a multiprocessor two blocks, and the 168 of
// three are enough for heads up to 64.
// Numerics: operands of both products rounded to bf16, to nearest even; products exact, sums f32; powers of 2 (2 ulp on the
// device); maximum and sum f32, the sum over unrounded p. Deterministic: one owner per row, keys in order.
// CPU twin: crates/qft-autograd/src/cpu/attention/forward.rs, which computes in f32.
// Bound: 4 D operations per visible pair on tensor cores. At D = 128 a block of keys takes four warps 256 matrix loads of
// 512 bytes and 32 KiB of stores: 1280 cycles of shared memory beside 4096 of an RTX 4090's tensor cores, 1024 of an
// A100's, about 820 of an H100's by mma.sync. It is 64 KiB from the L2 cache, which may well take longer on the latter two:
// blocks of 128 queries would halve that. q stays in registers as fragments: neither loaded for each block of keys nor
// held in shared memory, whose 34 KiB let two blocks reside on sm_86 and sm_89, as registers do everywhere. Attention is
// 4 % of the operations of a 7B step at 2048 tokens.
#include "attention.cuh"

// Masks what lies behind the diagonal, in a tile where queries and keys begin together.
__device__ __forceinline__ void mask_diagonal(float (&s)[8][4], uint32_t row) {
    const uint32_t low = row + lane_index() / 4, high = low + 8, col = lane_index() % 4 * 2;
#pragma unroll
    for (uint32_t n = 0; n < 8; ++n) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
            if (n * 8 + col + i % 2 > (i < 2 ? low : high)) s[n][i] = -INFINITY;
    }
}

// Over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_MASK, x, 1);
    return x + __shfl_xor_sync(FULL_MASK, x, 2);
}

// Turns scores into weights relative to the running maximum, and shrinks sum and result to it. Element i of a fragment
// belongs to row i / 2 of the thread's two. Every row sees a key in its first block, so the maximum is finite.
template <uint32_t D>
__device__ __forceinline__ void soften(float (&s)[8][4], float (&out)[D / 8][4], float (&maximum)[2], float (&sum)[2],
                                       float factor) {
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
        float largest = maximum[half];
#pragma unroll
        for (uint32_t n = 0; n < 8; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        largest = quad_max(largest);
        const float offset = largest * factor, shrink = exp2_flushed(__fmaf_rn(maximum[half], factor, -offset));
        float added = 0.0f;
#pragma unroll
        for (uint32_t n = 0; n < 8; ++n) {
#pragma unroll
            for (uint32_t i = 2 * half; i < 2 * half + 2; ++i) {
                s[n][i] = exp2_flushed(__fmaf_rn(s[n][i], factor, -offset));
                added += s[n][i];
            }
        }
        // The four lanes' sums meet at the end only.
        sum[half] = __fmaf_rn(sum[half], shrink, added);
        maximum[half] = largest;
#pragma unroll
        for (uint32_t n = 0; n < D / 8; ++n) out[n][2 * half] *= shrink, out[n][2 * half + 1] *= shrink;
    }
}

template <uint32_t D>
__device__ __forceinline__ void attention_forward(const float* __restrict__ q, const float* __restrict__ k,
                                        const float* __restrict__ v, const uint32_t* __restrict__ tiles,
                                        float* __restrict__ lse, float* __restrict__ out, uint32_t group) {
    DYN_SHARED(uint16_t, shared);
    uint16_t *k_tile = shared, *v_tile = k_tile + TILE_ELEMENTS<D>;
    const SegmentTile tile = segment_tile(tiles, blockIdx.y);
    const uint32_t head = blockIdx.x, heads = gridDim.x, row = warp_index() * 16;
    const uint64_t stride = heads * D, key_stride = heads / group * D;
    const float scale = __fdiv_rn(1.0f, __fsqrt_rn(static_cast<float>(D)));
    uint32_t queries[D / 16][4];
    fetch_left<D>(queries, q + tile.first * stride + head * D, stride, row, tile.rows());
    uint64_t at = tile.start * key_stride + head / group * D;
    load_tile<D>(k_tile, k + at, key_stride, min(ATTENTION_TILE, tile.end - tile.start));
    __syncthreads();
    float result[D / 8][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (uint32_t key = tile.start; key <= tile.first; key += ATTENTION_TILE) {
        const uint32_t keys = min(ATTENTION_TILE, tile.end - key);
        HalfShare<D> low, high;
        fetch_half<D>(low, v + at, key_stride, keys, 0);
        fetch_half<D>(high, v + at, key_stride, keys, HALF_TILE);
        float s[8][4] = {};
        multiply_held<D>(s, queries, k_tile);
        if (key == tile.first) mask_diagonal(s, row);
        soften<D>(s, result, maximum, sum, scale * LOG2_E);
        Weights weights;
        pack_weights(weights, 0, s);
        store_half<D>(v_tile, low, 0);
        store_half<D>(v_tile, high, HALF_TILE);
        __syncthreads();
        at += ATTENTION_TILE * key_stride;
        const uint32_t next = key + ATTENTION_TILE;
        const uint32_t next_keys = next <= tile.first ? min(ATTENTION_TILE, tile.end - next) : 0;
        fetch_half<D>(low, k + at, key_stride, next_keys, 0);
        fetch_half<D>(high, k + at, key_stride, next_keys, HALF_TILE);
        multiply_weights<D>(result, weights, v_tile, 0);
        multiply_weights<D>(result, weights, v_tile, HALF_TILE);
        store_half<D>(k_tile, low, 0);
        store_half<D>(k_tile, high, HALF_TILE);
        __syncthreads();
    }
    sum[0] = quad_sum(sum[0]);
    sum[1] = quad_sum(sum[1]);
    store_rows<D>(out + tile.first * stride + head * D, stride, row, tile.rows(), result, __fdiv_rn(1.0f, sum[0]),
                  __fdiv_rn(1.0f, sum[1]));
    if (lane_index() % 4 < 2) {
        const uint32_t half = lane_index() % 4, own = row + lane_index() / 4 + half * 8;
        const float total = half == 0 ? __fmaf_rn(maximum[0], scale, logf(sum[0])) : __fmaf_rn(maximum[1], scale, logf(sum[1]));
        if (own < tile.rows()) lse[static_cast<uint64_t>(tile.first + own) * heads + head] = total;
    }
}

// Dynamic shared memory: 2 tiles, 2 * 64 * (D + 8) bytes each.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_forward_bf16_d32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                           const uint32_t* __restrict__ tiles, float* __restrict__ lse, float* __restrict__ out,
                           uint32_t group) {
    attention_forward<32>(q, k, v, tiles, lse, out, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_forward_bf16_d64(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                           const uint32_t* __restrict__ tiles, float* __restrict__ lse, float* __restrict__ out,
                           uint32_t group) {
    attention_forward<64>(q, k, v, tiles, lse, out, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_forward_bf16_d80(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                           const uint32_t* __restrict__ tiles, float* __restrict__ lse, float* __restrict__ out,
                           uint32_t group) {
    attention_forward<80>(q, k, v, tiles, lse, out, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_forward_bf16_d96(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                           const uint32_t* __restrict__ tiles, float* __restrict__ lse, float* __restrict__ out,
                           uint32_t group) {
    attention_forward<96>(q, k, v, tiles, lse, out, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_forward_bf16_d128(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                            const uint32_t* __restrict__ tiles, float* __restrict__ lse, float* __restrict__ out,
                            uint32_t group) {
    attention_forward<128>(q, k, v, tiles, lse, out, group);
}
