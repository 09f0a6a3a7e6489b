// Rows of a hybrid matrix as floats: `w = s (q F + r) / F`, and bf16 values at protected positions.
//
// Shapes: q i8 [N, K]; r as many bytes a row as `log_f` asks for, or null to read the high plane alone (`log_f` 0);
// scale f32 [N]; protected weights as in protected.cuh, or null; out f32 [rows, K] with a stride.
// Grid: a block of 4 warps per row; a lane decodes four weights at a time, then the protected ones overwrite theirs.
// Numerics: each step one f32 operation, as the CPU, bit for bit; deterministic.
// CPU twin: crates/qft-quant/src/cpu/decode.rs.
// Bound: memory, 5 to 6 bytes a weight.
#include "fixed_point.cuh"
#include "protected.cuh"

constexpr uint32_t WARPS = 4;
constexpr uint32_t THREADS = WARP * WARPS;

template <int LOG_F>
__device__ __forceinline__ void decode_row(const int8_t* q_row, const int8_t* r_row, float scale, float* out_row,
                                           uint32_t cols, bool planes_aligned, bool out_aligned) {
    constexpr float STEP = 1.0f / (1 << LOG_F);
    for (uint32_t col = QUAD * threadIdx.x; col < cols; col += QUAD * THREADS) {
        int32_t k[QUAD];
        float w[QUAD];
        join_quad<LOG_F>(k, q_row, r_row, col, cols, planes_aligned);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) w[i] = scale * (static_cast<float>(k[i]) * STEP);
        store_quad(out_row, col, 0, cols, out_aligned, w);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
decode_rows_i8_f32(const int8_t* __restrict__ q, const int8_t* __restrict__ r, const float* __restrict__ scale,
                   const uint16_t* __restrict__ values, const uint8_t* __restrict__ protected_cols,
                   const uint8_t* __restrict__ counts, const uint32_t* __restrict__ row_start, float* __restrict__ out,
                   uint64_t stride, uint32_t first_row, uint32_t cols, uint32_t log_f) {
    const uint32_t n = first_row + blockIdx.x;
    const int8_t* const q_row = q + static_cast<uint64_t>(n) * cols;
    float* const out_row = out + blockIdx.x * stride;
    const bool planes = quads_aligned(q, cols) && quads_aligned(r, cols), aligned = quads_aligned(out, stride);
    if (log_f == 8) {
        decode_row<8>(q_row, r + n * residual_bytes<8>(cols), scale[n], out_row, cols, planes, aligned);
    } else if (log_f == 4) {
        decode_row<4>(q_row, r + n * residual_bytes<4>(cols), scale[n], out_row, cols, planes, aligned);
    } else {
        decode_row<0>(q_row, nullptr, scale[n], out_row, cols, planes, aligned);
    }
    if (!values) return;
    __syncthreads();
    for_each_protected(protected_cols, counts, row_start, n, cols, warp_index(), WARPS,
                     [&](uint32_t i, uint32_t col) { out_row[col] = f32_from_bf16(values[i]); });
}
