// Rows by index: embedding lookup and its gradient, gather and scatter.
//
// gather: out[i] = src[index[i]]; scatter: dst[index[i]] = src[i]; decode: out[i] = s * ((q * F + r) / F) of the hybrid
// row index[i], protected weights as they are; gradient: grad[v] += sum over t with ids[t] = v of dy[t].
// Shapes: index u32 [count]; rows f32 of `cols`; hybrid planes as crates/qft-quant/src/hybrid.rs says; dy f32
// [tokens, cols]; grad f32 [rows, cols] with a stride. The host has checked that indices are in range.
// Grid: gather, scatter and decode one block a row; gradient one block for 8 rows of the table and 1024 columns, each
// thread four columns.
// Numerics: bytes are moved; a decoded value is two products; gradients are f32 sums in order of t, one owner each, with
// the CPU's bits. Deterministic. CPU twin: crates/qft-autograd/src/cpu/embedding.rs, crates/qft-quant/src/cpu/decode.rs.
// Bound: memory. The gradient reads each row of dy once and the ids once for every 8 rows (from L2: 131 MB in all for
// 2048 tokens, 32,000 rows and 4096 columns); rows without a token cost nothing else.
#include "fixed_point.cuh"
#include "protected.cuh"

constexpr uint32_t EMBED_THREADS = 256;

// Copies a row of floats; 16 bytes at once where both rows allow.
__device__ __forceinline__ void copy_row(const float* __restrict__ src, float* __restrict__ dst, uint32_t cols) {
    const uint32_t vectors = is_aligned(src, 16) && is_aligned(dst, 16) ? cols / 4 : 0;
    for (uint32_t i = threadIdx.x; i < vectors; i += EMBED_THREADS)
        reinterpret_cast<float4*>(dst)[i] = reinterpret_cast<const float4*>(src)[i];
    for (uint32_t i = vectors * 4 + threadIdx.x; i < cols; i += EMBED_THREADS) dst[i] = src[i];
}

extern "C" __global__ void __launch_bounds__(EMBED_THREADS)
gather_rows_f32(const float* __restrict__ src, const uint32_t* __restrict__ index, float* __restrict__ out,
                uint32_t cols) {
    const uint64_t from = index[blockIdx.x];
    copy_row(src + from * cols, out + static_cast<uint64_t>(blockIdx.x) * cols, cols);
}

extern "C" __global__ void __launch_bounds__(EMBED_THREADS)
scatter_rows_f32(const float* __restrict__ src, const uint32_t* __restrict__ index, float* __restrict__ dst,
                 uint32_t cols) {
    const uint64_t to = index[blockIdx.x];
    copy_row(src + static_cast<uint64_t>(blockIdx.x) * cols, dst + to * cols, cols);
}

// Writes s * (k / F) of a row, k the two planes joined.
template <int LOG_F>
__device__ __forceinline__ void decode_planes(const int8_t* __restrict__ q, const int8_t* __restrict__ residual, float s,
                                              float* __restrict__ out, uint64_t row, uint32_t cols) {
    const int8_t *high = q + row * cols, *low = residual + row * residual_bytes<LOG_F>(cols);
    const bool aligned = quads_aligned(q, cols) && quads_aligned(residual, cols);
    const bool out_aligned = quads_aligned(out, cols);
    for (uint32_t col = threadIdx.x * QUAD; col < cols; col += EMBED_THREADS * QUAD) {
        int32_t k[QUAD];
        join_quad<LOG_F>(k, high, low, col, cols, aligned);
        float x[QUAD];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) x[i] = __fmul_rn(s, __fmul_rn(static_cast<float>(k[i]), 1.0f / (1 << LOG_F)));
        store_quad(out, col, 0, cols, out_aligned, x);
    }
}

// `log_f` is the number of residual bits: 0, 4 or 8. The pointers of absent parts are null.
extern "C" __global__ void __launch_bounds__(EMBED_THREADS)
embed_hybrid_f32(const uint32_t* __restrict__ ids, const int8_t* __restrict__ q, const float* __restrict__ scale,
                 const int8_t* __restrict__ residual, const uint16_t* __restrict__ values,
                 const uint8_t* __restrict__ columns, const uint8_t* __restrict__ counts,
                 const uint32_t* __restrict__ row_start, float* __restrict__ out, uint32_t cols, uint32_t log_f) {
    const uint32_t row = ids[blockIdx.x];
    float* to = out + static_cast<uint64_t>(blockIdx.x) * cols;
    if (log_f == 8) {
        decode_planes<8>(q, residual, scale[row], to, row, cols);
    } else if (log_f == 4) {
        decode_planes<4>(q, residual, scale[row], to, row, cols);
    } else {
        decode_planes<0>(q, residual, scale[row], to, row, cols);
    }
    if (values == nullptr) return;
    __syncthreads();
    for_each_protected(columns, counts, row_start, row, cols, warp_index(), EMBED_THREADS / WARP,
                     [&](uint32_t i, uint32_t col) { to[col] = f32_from_bf16(values[i]); });
}

constexpr uint32_t GRADIENT_ROWS = 8;
constexpr uint32_t GRADIENT_COLS = 4 * EMBED_THREADS;

// `first_row` is the table's row at grad's row 0.
extern "C" __global__ void __launch_bounds__(EMBED_THREADS)
embed_backward_f32(const uint32_t* __restrict__ ids, const float* __restrict__ dy, float* __restrict__ grad,
                   uint32_t tokens, uint32_t first_row, uint32_t rows, uint32_t cols, uint64_t stride) {
    // Tokens of a chunk of ids that name a row of this block, in order, and these rows.
    __shared__ uint32_t found_token[EMBED_THREADS];
    __shared__ uint32_t found_row[EMBED_THREADS];
    __shared__ uint32_t warp_count[EMBED_THREADS / WARP];
    const uint32_t block_row = blockIdx.x * GRADIENT_ROWS;
    const uint32_t block_rows = min(GRADIENT_ROWS, rows - block_row);
    const uint32_t block_col = blockIdx.y * GRADIENT_COLS;
    const uint32_t block_cols = min(GRADIENT_COLS, cols - block_col);
    const bool vector = cols % 4 == 0 && stride % 4 == 0 && is_aligned(dy, 16) && is_aligned(grad, 16);
    for (uint32_t chunk = 0; chunk < tokens; chunk += EMBED_THREADS) {
        const uint32_t token = chunk + threadIdx.x;
        // Wraps to a row that does not exist for ids before the block.
        const uint32_t row = token < tokens ? ids[token] - first_row - block_row : FULL_MASK;
        const bool hit = row < block_rows;
        const uint32_t hits = __ballot_sync(FULL_MASK, hit);
        if (lane_index() == 0) warp_count[warp_index()] = __popc(hits);
        __syncthreads();
        uint32_t before = __popc(hits & ((1u << lane_index()) - 1u)), count = 0;
#pragma unroll
        for (uint32_t warp = 0; warp < EMBED_THREADS / WARP; ++warp) {
            if (warp < warp_index()) before += warp_count[warp];
            count += warp_count[warp];
        }
        if (hit) {
            found_token[before] = token;
            found_row[before] = row;
        }
        __syncthreads();
        // A column has one owner, so a row named twice needs no barrier between.
        for (uint32_t i = 0; i < count; ++i) {
            const float* from = dy + static_cast<uint64_t>(found_token[i]) * cols + block_col;
            float* to = grad + (static_cast<uint64_t>(block_row) + found_row[i]) * stride + block_col;
            if (vector) {
                if (threadIdx.x < block_cols / 4) {
                    const float4 a = reinterpret_cast<const float4*>(from)[threadIdx.x];
                    float4 b = reinterpret_cast<float4*>(to)[threadIdx.x];
                    b.x = __fadd_rn(b.x, a.x);
                    b.y = __fadd_rn(b.y, a.y);
                    b.z = __fadd_rn(b.z, a.z);
                    b.w = __fadd_rn(b.w, a.w);
                    reinterpret_cast<float4*>(to)[threadIdx.x] = b;
                }
            } else {
                for (uint32_t c = threadIdx.x; c < block_cols; c += EMBED_THREADS) to[c] = __fadd_rn(to[c], from[c]);
            }
        }
    }
}
