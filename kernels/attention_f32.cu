// Causal attention in f32 for heads of any size, its backward pass, and attention of new tokens to a cache.
//
// Equations and shapes as attention.cu and attention_backward.cu; decoding reads q, out f32 [n, H D] and k, v f32
// [capacity, G D], query i the rows 0..past + i + 1.
// Grid: forward and dq (H, tiles), dk and dv (G, tiles), a warp at a time owns one row of the 64 of a tile; decoding
// a block for each query of each head, whose warps share the keys and meet at the end in order.
// A warp goes by 32 keys (or queries): each lane makes the dot products of one of them, then each lane sums its columns
// of the head over all 32. Head sizes are a matter of shared memory alone.
// Numerics: f32 throughout, fused multiply-adds, the exp of the CPU backend. Deterministic. CPU twin:
// crates/qft-autograd/src/cpu/attention/; sums differ in order.
// Bound: 4 D operations per visible pair at about a quarter of f32's peak: a lane waits for its own row. Meant for sizes
// without a tensor-core kernel, and for decoding, which reads the cache once: 8 G D bytes a token of it.
#include "exp.cuh"

constexpr uint32_t F32_THREADS = 256;
constexpr uint32_t F32_TILE = 64;

// A row of a tile that a warp works for, and the segment around it.
struct TileRows {
    uint32_t first, start, end;
};
__device__ __forceinline__ TileRows tile_rows(const uint32_t* __restrict__ tiles, uint32_t index) {
    const uint32_t* entry = tiles + static_cast<uint64_t>(index) * 3;
    return {entry[0], entry[1], entry[2]};
}

// a . b over `size` floats; `row` may be read by fours where `size` is a multiple.
__device__ __forceinline__ float dot(const float* shared, const float* __restrict__ row, uint32_t size) {
    float sum = 0.0f;
    if (size % 4 == 0) {
#pragma unroll 4
        for (uint32_t d = 0; d < size; d += 4) {
            const float4 x = *reinterpret_cast<const float4*>(row + d);
            sum = __fmaf_rn(shared[d], x.x, sum);
            sum = __fmaf_rn(shared[d + 1], x.y, sum);
            sum = __fmaf_rn(shared[d + 2], x.z, sum);
            sum = __fmaf_rn(shared[d + 3], x.w, sum);
        }
    } else {
#pragma unroll 4
        for (uint32_t d = 0; d < size; ++d) sum = __fmaf_rn(shared[d], row[d], sum);
    }
    return sum;
}

// Copies a row to shared memory of the warp, times a factor.
__device__ __forceinline__ void fetch(float* shared, const float* __restrict__ row, uint32_t size, float factor) {
    for (uint32_t d = lane_index(); d < size; d += WARP) shared[d] = row[d] * factor;
}

// sums[d] = sums[d] * shrink + sum over j < count of weights[j] * rows[j * stride + d].
__device__ __forceinline__ void accumulate(float* sums, float shrink, const float* weights,
                                           const float* __restrict__ rows, uint64_t stride, uint32_t count,
                                           uint32_t size) {
    for (uint32_t d = lane_index(); d < size; d += WARP) {
        float sum = sums[d] * shrink;
#pragma unroll 8
        for (uint32_t j = 0; j < count; ++j) sum = __fmaf_rn(weights[j], rows[j * stride + d], sum);
        sums[d] = sum;
    }
}

// Online softmax of one scaled query against the keys first, first + step, .. , 32 at a time, below `end`. `sums` [size]
// holds the weighted values relative to `maximum`; `weights` [32] is the warp's.
__device__ __forceinline__ void attend(const float* query, const float* __restrict__ k, const float* __restrict__ v,
                                       uint64_t stride, uint32_t size, uint32_t first, uint32_t end, uint32_t step,
                                       float* weights, float* sums, float& maximum, float& total) {
    maximum = -INFINITY;
    total = 0.0f;
    for (uint32_t d = lane_index(); d < size; d += WARP) sums[d] = 0.0f;
    for (uint32_t block = first; block < end; block += step) {
        const uint32_t key = block + lane_index();
        const float score = key < end ? dot(query, k + key * stride, size) : -INFINITY;
        const float largest = fmaxf(maximum, warp_max(score)), shrink = exp_f32(maximum - largest);
        const float weight = exp_f32(score - largest);
        total = __fmaf_rn(total, shrink, warp_sum(weight));
        maximum = largest;
        weights[lane_index()] = weight;
        __syncwarp();
        accumulate(sums, shrink, weights, v + block * stride, stride, min(WARP, end - block), size);
        __syncwarp();
    }
}

// Dynamic shared memory: 2 size + 32 floats a warp.
extern "C" __global__ void __launch_bounds__(F32_THREADS, 2)
attention_forward_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                      const uint32_t* __restrict__ tiles, float* __restrict__ lse, float* __restrict__ out,
                      uint32_t group, uint32_t size, float scale) {
    DYN_SHARED(float, shared);
    float* query = shared + warp_index() * (2 * size + WARP);
    float *sums = query + size, *weights = sums + size;
    const TileRows tile = tile_rows(tiles, blockIdx.y);
    const uint32_t head = blockIdx.x, heads = gridDim.x, warps = blockDim.x / WARP;
    const uint64_t stride = static_cast<uint64_t>(heads) * size, key_stride = stride / group;
    const uint64_t keys = tile.start * key_stride + static_cast<uint64_t>(head / group) * size;
    for (uint32_t t = tile.first + warp_index(); t < min(tile.first + F32_TILE, tile.end); t += warps) {
        const uint64_t row = t * stride + static_cast<uint64_t>(head) * size;
        fetch(query, q + row, size, scale);
        __syncwarp();
        float maximum, total;
        attend(query, k + keys, v + keys, key_stride, size, 0, t - tile.start + 1, WARP, weights, sums, maximum, total);
        const float inverse = __fdiv_rn(1.0f, total);
        for (uint32_t d = lane_index(); d < size; d += WARP) out[row + d] = sums[d] * inverse;
        if (lane_index() == 0) lse[static_cast<uint64_t>(t) * heads + head] = maximum + logf(total);
        __syncwarp();
    }
}

// Dynamic shared memory: size floats, and size + 34 a warp.
extern "C" __global__ void __launch_bounds__(F32_THREADS, 2)
attention_decode_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                     float* __restrict__ out, uint32_t past, uint32_t heads, uint32_t group, uint32_t size,
                     float scale) {
    DYN_SHARED(float, query);
    const uint32_t token = blockIdx.x / heads, head = blockIdx.x % heads, warps = blockDim.x / WARP, warp = warp_index();
    // Of all warps: sums [warps, size], weights [warps, 32], maximum and total [warps].
    float *sums = query + size, *weights = sums + warps * size, *maxima = weights + warps * WARP;
    float* totals = maxima + warps;
    const uint64_t key_stride = static_cast<uint64_t>(heads / group) * size;
    const uint64_t row = static_cast<uint64_t>(blockIdx.x) * size;
    const uint64_t keys = static_cast<uint64_t>(head / group) * size;
    for (uint32_t d = threadIdx.x; d < size; d += blockDim.x) query[d] = q[row + d] * scale;
    __syncthreads();
    float maximum, total;
    attend(query, k + keys, v + keys, key_stride, size, warp * WARP, past + token + 1, warps * WARP,
           weights + warp * WARP, sums + warp * size, maximum, total);
    if (lane_index() == 0) {
        maxima[warp] = maximum;
        totals[warp] = total;
    }
    __syncthreads();
    // The first warp has a key, so the largest is finite; a warp without keys weighs exp(-inf) = 0.
    float largest = maxima[0], all = 0.0f;
    for (uint32_t w = 1; w < warps; ++w) largest = fmaxf(largest, maxima[w]);
    for (uint32_t w = 0; w < warps; ++w) all = __fmaf_rn(totals[w], exp_f32(maxima[w] - largest), all);
    const float inverse = __fdiv_rn(1.0f, all);
    for (uint32_t d = threadIdx.x; d < size; d += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t w = 0; w < warps; ++w) sum = __fmaf_rn(sums[w * size + d], exp_f32(maxima[w] - largest), sum);
        out[row + d] = sum * inverse;
    }
}

// Dynamic shared memory: 3 size + 32 floats a warp.
extern "C" __global__ void __launch_bounds__(F32_THREADS, 2)
attention_backward_queries_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                               const float* __restrict__ dout, const float* __restrict__ lse,
                               const float* __restrict__ delta, const uint32_t* __restrict__ tiles,
                               float* __restrict__ dq, uint32_t group, uint32_t size, float scale) {
    DYN_SHARED(float, shared);
    float* query = shared + warp_index() * (3 * size + WARP);
    float *gradient = query + size, *sums = gradient + size, *weights = sums + size;
    const TileRows tile = tile_rows(tiles, blockIdx.y);
    const uint32_t head = blockIdx.x, heads = gridDim.x, warps = blockDim.x / WARP;
    const uint64_t stride = static_cast<uint64_t>(heads) * size, key_stride = stride / group;
    const uint64_t keys = static_cast<uint64_t>(head / group) * size;
    for (uint32_t t = tile.first + warp_index(); t < min(tile.first + F32_TILE, tile.end); t += warps) {
        const uint64_t row = t * stride + static_cast<uint64_t>(head) * size;
        const float row_lse = lse[static_cast<uint64_t>(t) * heads + head];
        const float row_delta = delta[static_cast<uint64_t>(t) * heads + head];
        fetch(query, q + row, size, scale);
        fetch(gradient, dout + row, size, 1.0f);
        for (uint32_t d = lane_index(); d < size; d += WARP) sums[d] = 0.0f;
        __syncwarp();
        for (uint32_t block = tile.start; block <= t; block += WARP) {
            const uint64_t key = block + lane_index(), at = key * key_stride + keys;
            float ds = 0.0f;
            if (key <= t) {
                const float p = exp_f32(dot(query, k + at, size) - row_lse);
                ds = p * (dot(gradient, v + at, size) - row_delta);
            }
            weights[lane_index()] = ds;
            __syncwarp();
            accumulate(sums, 1.0f, weights, k + block * key_stride + keys, key_stride, min(WARP, t + 1 - block), size);
            __syncwarp();
        }
        for (uint32_t d = lane_index(); d < size; d += WARP) dq[row + d] = sums[d] * scale;
        __syncwarp();
    }
}

// Dynamic shared memory: 4 size + 64 floats a warp.
extern "C" __global__ void __launch_bounds__(F32_THREADS, 2)
attention_backward_keys_f32(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
                            const float* __restrict__ dout, const float* __restrict__ lse,
                            const float* __restrict__ delta, const uint32_t* __restrict__ tiles,
                            float* __restrict__ dk, float* __restrict__ dv, uint32_t group, uint32_t size,
                            float scale) {
    DYN_SHARED(float, shared);
    float* key = shared + warp_index() * (4 * size + 2 * WARP);
    float *value = key + size, *key_sums = value + size, *value_sums = key_sums + size;
    float *probabilities = value_sums + size, *weights = probabilities + WARP;
    const TileRows tile = tile_rows(tiles, blockIdx.y);
    const uint32_t key_head = blockIdx.x, heads = gridDim.x * group, warps = blockDim.x / WARP;
    const uint64_t stride = static_cast<uint64_t>(heads) * size, key_stride = stride / group;
    for (uint32_t t = tile.first + warp_index(); t < min(tile.first + F32_TILE, tile.end); t += warps) {
        const uint64_t row = t * key_stride + static_cast<uint64_t>(key_head) * size;
        fetch(key, k + row, size, scale);
        fetch(value, v + row, size, 1.0f);
        for (uint32_t d = lane_index(); d < size; d += WARP) key_sums[d] = value_sums[d] = 0.0f;
        __syncwarp();
        for (uint32_t head = key_head * group; head < (key_head + 1) * group; ++head) {
            for (uint32_t block = t; block < tile.end; block += WARP) {
                const uint64_t query = block + lane_index(), at = query * stride + static_cast<uint64_t>(head) * size;
                float p = 0.0f, ds = 0.0f;
                if (query < tile.end) {
                    p = exp_f32(dot(key, q + at, size) - lse[query * heads + head]);
                    ds = p * (dot(value, dout + at, size) - delta[query * heads + head]);
                }
                probabilities[lane_index()] = p;
                weights[lane_index()] = ds;
                __syncwarp();
                const uint64_t first = block * stride + static_cast<uint64_t>(head) * size;
                const uint32_t queries = min(WARP, tile.end - block);
                accumulate(value_sums, 1.0f, probabilities, dout + first, stride, queries, size);
                accumulate(key_sums, 1.0f, weights, q + first, stride, queries, size);
                __syncwarp();
            }
        }
        for (uint32_t d = lane_index(); d < size; d += WARP) {
            dk[row + d] = key_sums[d] * scale;
            dv[row + d] = value_sums[d];
        }
        __syncwarp();
    }
}
