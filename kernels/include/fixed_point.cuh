// The two planes of a weight as one fixed-point integer: crates/qft-quant/src/fixed_point.rs.
//
// k = q * F + r with F = 2^LOG_F; q = (k + F / 2) >> LOG_F, so r is in -F / 2..F / 2.
#pragma once
#include "quad_access.cuh"

// Bytes of the residual plane of a row.
template <int LOG_F>
__device__ __forceinline__ uint64_t residual_bytes(uint32_t cols) {
    return LOG_F == 0 ? 0 : LOG_F == 4 ? (static_cast<uint64_t>(cols) + 1) / 2 : cols;
}

// Joins the weights col..col + 4 of a row; those beyond its end are zero. `aligned` holds for both planes: with 4 bits, two
// columns share a byte, so a quad of residuals is two bytes.
template <int LOG_F>
__device__ __forceinline__ void join_quad(int32_t (&k)[QUAD], const int8_t* q_row, const int8_t* r_row, uint32_t col,
                                          uint32_t cols, bool aligned) {
    int32_t q[QUAD], r[QUAD] = {};
    load_quad(q, q_row, col, 0, cols, aligned);
    if (LOG_F == 8) load_quad(r, r_row, col, 0, cols, aligned);
    if (LOG_F == 4) {
#pragma unroll
        for (uint32_t pair = 0; pair < 2; ++pair) {
            const int8_t byte = col + 2 * pair < cols ? r_row[col / 2 + pair] : 0;
            r[2 * pair] = static_cast<int8_t>(byte << 4) >> 4;
            // Beside the last weight of an odd row is no weight.
            r[2 * pair + 1] = col + 2 * pair + 1 < cols ? byte >> 4 : 0;
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) k[i] = q[i] * (1 << LOG_F) + r[i];
}

// The inverse of join_quad, for |k| <= 127 F; nothing is written beyond the row's end.
template <int LOG_F>
__device__ __forceinline__ void split_quad(const int32_t (&k)[QUAD], int8_t* q_row, int8_t* r_row, uint32_t col,
                                           uint32_t cols, bool aligned) {
    int32_t q[QUAD];
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) q[i] = (k[i] + (1 << LOG_F >> 1)) >> LOG_F;
    store_quad(q_row, col, 0, cols, aligned, q);
    if (LOG_F == 8) store_quad(r_row, col, 0, cols, aligned, k);
    if (LOG_F == 4) {
#pragma unroll
        for (uint32_t pair = 0; pair < 2; ++pair) {
            // An odd row ends in an empty nibble.
            const int32_t high = col + 2 * pair + 1 < cols ? k[2 * pair + 1] : 0;
            if (col + 2 * pair < cols) r_row[col / 2 + pair] = static_cast<int8_t>((k[2 * pair] & 15) | high * 16);
        }
    }
}
