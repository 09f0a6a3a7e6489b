// Backward pass of causal attention within segments on bf16 tensor cores; overwrites dq, dk, dv.
//
// With p = exp(s - lse), delta = rowsum(dout * out): dv = p^T dout, ds = p * (dout v^T - delta), dq = ds k / sqrt(D),
// dk = ds^T q / sqrt(D).
// Shapes: as attention.cu; dout, dq f32 [T, H D]; dk, dv f32 [T, G D]; delta f32 [T, H].
// Grid, 128 threads: delta a warp for each row of a head; dq (H, tiles), a block owns 64 queries and walks their keys;
// dk and dv (G, tiles), a block owns 64 keys and walks the heads of its group in order and for each the queries from the
// diagonal on, so every sum has one owner and a fixed order: deterministic without atomics.
// Latency: as in attention.cu. For dq the next v is fetched before the scores, the next k before dq's product; for dk and dv,
// whose results take twice the registers, halves of the next dout before those of dv's product, of the next q before dk's.
// Numerics: q, k, v, dout, p and ds rounded to bf16 as operands; products exact, sums f32;
// powers of 2 (2 ulp), zero below 2^-126; delta f32.
// CPU twin: crates/qft-autograd/src/cpu/attention/backward.rs, which computes in f32.
// Bound: tensor cores and shared memory as in attention.cu; 14 D operations per visible pair, scores and dp computed in
// both kernels. At D = 128 four tiles take 68 KiB: one block on sm_86 and sm_89, two on sm_80 and sm_90.
#include "attention.cuh"

// delta[t, h] = sum of dout * out over the head; a warp for each, rows = T H.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_delta_f32(const float* __restrict__ out, const float* __restrict__ dout, float* __restrict__ delta,
                    uint64_t rows, uint32_t size) {
    const uint64_t row = static_cast<uint64_t>(blockIdx.x) * (ATTENTION_THREADS / WARP) + warp_index();
    if (row >= rows) return;
    float sum = 0.0f;
    for (uint32_t i = lane_index(); i < size; i += WARP) sum = __fmaf_rn(out[row * size + i], dout[row * size + i], sum);
    sum = warp_sum(sum);
    if (lane_index() == 0) delta[row] = sum;
}

template <uint32_t D>
__device__ __forceinline__ void backward_queries(const float* __restrict__ q, const float* __restrict__ k,
                                                 const float* __restrict__ v, const float* __restrict__ dout,
                                                 const float* __restrict__ lse, const float* __restrict__ delta,
                                                 const uint32_t* __restrict__ tiles, float* __restrict__ dq,
                                                 uint32_t group) {
    DYN_SHARED(uint16_t, shared);
    uint16_t *q_tile = shared, *g_tile = q_tile + TILE_ELEMENTS<D>;
    uint16_t *k_tile = g_tile + TILE_ELEMENTS<D>, *v_tile = k_tile + TILE_ELEMENTS<D>;
    const SegmentTile tile = segment_tile(tiles, blockIdx.y);
    const uint32_t head = blockIdx.x, heads = gridDim.x, row = warp_index() * 16;
    const uint32_t low = row + lane_index() / 4, col = lane_index() % 4 * 2;
    const uint64_t stride = heads * D, key_stride = heads / group * D;
    const uint64_t own = tile.first * stride + head * D;
    const float scale = __fdiv_rn(1.0f, __fsqrt_rn(static_cast<float>(D)));
    load_tile<D>(q_tile, q + own, stride, tile.rows());
    load_tile<D>(g_tile, dout + own, stride, tile.rows());
    // Of the thread's two rows. Rows past the end weigh nothing: exp(-inf).
    float row_lse[2], row_delta[2];
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
        const bool inside = low + half * 8 < tile.rows();
        const uint64_t at = static_cast<uint64_t>(tile.first + low + half * 8) * heads + head;
        row_lse[half] = inside ? lse[at] * LOG2_E : INFINITY;
        row_delta[half] = inside ? delta[at] : 0.0f;
    }
    uint64_t at = tile.start * key_stride + head / group * D;
    const uint32_t keys = min(ATTENTION_TILE, tile.end - tile.start);
    load_tile<D>(k_tile, k + at, key_stride, keys);
    load_tile<D>(v_tile, v + at, key_stride, keys);
    __syncthreads();
    float result[D / 8][4] = {};
    for (uint32_t key = tile.start; key <= tile.first; key += ATTENTION_TILE) {
        at += ATTENTION_TILE * key_stride;
        const uint32_t next = key + ATTENTION_TILE;
        const uint32_t next_keys = next <= tile.first ? min(ATTENTION_TILE, tile.end - next) : 0;
        HalfShare<D> low_half, high_half;
        fetch_half<D>(low_half, v + at, key_stride, next_keys, 0);
        fetch_half<D>(high_half, v + at, key_stride, next_keys, HALF_TILE);
        const bool diagonal = key == tile.first;
        Weights weights;
#pragma unroll
        for (uint32_t first = 0; first < ATTENTION_TILE; first += HALF_TILE) {
            float s[HALF_TILE / 8][4] = {}, ds[HALF_TILE / 8][4] = {};
            multiply_rows<D>(s, q_tile, row, k_tile, first);
            multiply_rows<D>(ds, g_tile, row, v_tile, first);
#pragma unroll
            for (uint32_t n = 0; n < HALF_TILE / 8; ++n) {
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) {
                    const bool hidden = diagonal && first + n * 8 + col + i % 2 > low + i / 2 * 8;
                    const float p = hidden ? 0.0f : exp2_flushed(__fmaf_rn(s[n][i], scale * LOG2_E, -row_lse[i / 2]));
                    ds[n][i] = p * (ds[n][i] - row_delta[i / 2]);
                }
            }
            pack_weights(weights, first, ds);
        }
        __syncthreads();
        store_half<D>(v_tile, low_half, 0);
        store_half<D>(v_tile, high_half, HALF_TILE);
        fetch_half<D>(low_half, k + at, key_stride, next_keys, 0);
        fetch_half<D>(high_half, k + at, key_stride, next_keys, HALF_TILE);
        multiply_weights<D>(result, weights, k_tile, 0);
        multiply_weights<D>(result, weights, k_tile, HALF_TILE);
        __syncthreads();
        store_half<D>(k_tile, low_half, 0);
        store_half<D>(k_tile, high_half, HALF_TILE);
        __syncthreads();
    }
    store_rows<D>(dq + own, stride, row, tile.rows(), result, scale, scale);
}

template <uint32_t D>
__device__ __forceinline__ void backward_keys(const float* __restrict__ q, const float* __restrict__ k,
                                              const float* __restrict__ v, const float* __restrict__ dout,
                                              const float* __restrict__ lse, const float* __restrict__ delta,
                                              const uint32_t* __restrict__ tiles, float* __restrict__ dk,
                                              float* __restrict__ dv, uint32_t group) {
    DYN_SHARED(uint16_t, shared);
    uint16_t *q_tile = shared, *g_tile = q_tile + TILE_ELEMENTS<D>;
    uint16_t *k_tile = g_tile + TILE_ELEMENTS<D>, *v_tile = k_tile + TILE_ELEMENTS<D>;
    __shared__ float row_lse[ATTENTION_TILE];
    __shared__ float row_delta[ATTENTION_TILE];
    const SegmentTile tile = segment_tile(tiles, blockIdx.y);
    const uint32_t key_head = blockIdx.x, heads = gridDim.x * group, row = warp_index() * 16;
    const uint32_t low = row + lane_index() / 4, col = lane_index() % 4 * 2;
    const uint64_t stride = heads * D, key_stride = gridDim.x * D;
    const uint64_t own = tile.first * key_stride + key_head * D;
    const float scale = __fdiv_rn(1.0f, __fsqrt_rn(static_cast<float>(D)));
    load_tile<D>(k_tile, k + own, key_stride, tile.rows());
    load_tile<D>(v_tile, v + own, key_stride, tile.rows());
    // Of a query head's tile: lse and delta, a query to a thread. Queries past the end weigh nothing: exp(-inf).
    const auto fetch_stats = [&](uint32_t head, uint32_t query, uint32_t queries) {
        const bool inside = threadIdx.x < queries;
        const uint64_t stat = static_cast<uint64_t>(query + threadIdx.x) * heads + head;
        return make_float2(inside ? lse[stat] : INFINITY, inside ? delta[stat] : 0.0f);
    };
    const auto store_stats = [&](float2 stats) {
        if (threadIdx.x < ATTENTION_TILE) row_lse[threadIdx.x] = stats.x * LOG2_E, row_delta[threadIdx.x] = stats.y;
    };
    const uint32_t end_head = (key_head + 1) * group;
    uint32_t head = key_head * group, query = tile.first, queries = tile.rows();
    load_tile<D>(q_tile, q + query * stride + head * D, stride, queries);
    load_tile<D>(g_tile, dout + query * stride + head * D, stride, queries);
    store_stats(fetch_stats(head, query, queries));
    __syncthreads();
    float key_result[D / 8][4] = {}, value_result[D / 8][4] = {};
    while (head < end_head) {
        const bool diagonal = query == tile.first;
        Weights p_weights, ds_weights;
#pragma unroll
        for (uint32_t first = 0; first < ATTENTION_TILE; first += HALF_TILE) {
            // Transposed: a row is a key, a column a query.
            float p[HALF_TILE / 8][4] = {}, ds[HALF_TILE / 8][4] = {};
            multiply_rows<D>(p, k_tile, row, q_tile, first);
            multiply_rows<D>(ds, v_tile, row, g_tile, first);
#pragma unroll
            for (uint32_t n = 0; n < HALF_TILE / 8; ++n) {
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) {
                    const uint32_t column = first + n * 8 + col + i % 2;
                    const bool hidden = diagonal && low + i / 2 * 8 > column;
                    p[n][i] = hidden ? 0.0f : exp2_flushed(__fmaf_rn(p[n][i], scale * LOG2_E, -row_lse[column]));
                    ds[n][i] = p[n][i] * (ds[n][i] - row_delta[column]);
                }
            }
            pack_weights(p_weights, first, p);
            pack_weights(ds_weights, first, ds);
        }
        query += ATTENTION_TILE;
        if (query >= tile.end) query = tile.first, ++head;
        queries = head < end_head ? min(ATTENTION_TILE, tile.end - query) : 0;
        const uint64_t at = query * stride + head * D;
        const float2 stats = fetch_stats(head, query, queries);
        // Half a tile at a time for registers' sake: behind its product and a barrier, it takes the rows of the next.
        const auto multiply_and_replace = [&](auto& result, const Weights& weights, uint16_t* operand, const float* next) {
            HalfShare<D> share;
#pragma unroll
            for (uint32_t first = 0; first < ATTENTION_TILE; first += HALF_TILE) {
                fetch_half<D>(share, next + at, stride, queries, first);
                multiply_weights<D>(result, weights, operand, first);
                __syncthreads();
                store_half<D>(operand, share, first);
            }
        };
        multiply_and_replace(value_result, p_weights, g_tile, dout);
        multiply_and_replace(key_result, ds_weights, q_tile, q);
        store_stats(stats);
        __syncthreads();
    }
    // `own` again, by `query`, which has come back to the tile's first token: kept over the loop it would spill.
    const uint64_t results = query * key_stride + key_head * D;
    store_rows<D>(dk + results, key_stride, row, tile.rows(), key_result, scale, scale);
    store_rows<D>(dv + results, key_stride, row, tile.rows(), value_result, 1.0f, 1.0f);
}

// Dynamic shared memory of all below: 4 tiles, 2 * 64 * (D + 8) bytes each.

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_backward_queries_bf16_d32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dq, uint32_t group) {
    backward_queries<32>(q, k, v, dout, lse, delta, tiles, dq, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_backward_keys_bf16_d32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dk, float* __restrict__ dv, uint32_t group) {
    backward_keys<32>(q, k, v, dout, lse, delta, tiles, dk, dv, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_backward_queries_bf16_d64(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dq, uint32_t group) {
    backward_queries<64>(q, k, v, dout, lse, delta, tiles, dq, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_backward_keys_bf16_d64(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dk, float* __restrict__ dv, uint32_t group) {
    backward_keys<64>(q, k, v, dout, lse, delta, tiles, dk, dv, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_backward_queries_bf16_d80(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dq, uint32_t group) {
    backward_queries<80>(q, k, v, dout, lse, delta, tiles, dq, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_backward_keys_bf16_d80(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dk, float* __restrict__ dv, uint32_t group) {
    backward_keys<80>(q, k, v, dout, lse, delta, tiles, dk, dv, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_backward_queries_bf16_d96(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dq, uint32_t group) {
    backward_queries<96>(q, k, v, dout, lse, delta, tiles, dq, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_backward_keys_bf16_d96(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dk, float* __restrict__ dv, uint32_t group) {
    backward_keys<96>(q, k, v, dout, lse, delta, tiles, dk, dv, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_backward_queries_bf16_d128(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dq, uint32_t group) {
    backward_queries<128>(q, k, v, dout, lse, delta, tiles, dq, group);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
attention_backward_keys_bf16_d128(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,
    const uint32_t* __restrict__ tiles, float* __restrict__ dk, float* __restrict__ dv, uint32_t group) {
    backward_keys<128>(q, k, v, dout, lse, delta, tiles, dk, dv, group);
}
