// Tensor-core products of one warp. All 32 lanes call together.
//
// Fragments (PTX ISA, "Matrix Fragments for mma"): g = lane / 4, t = lane % 4.
//   s8 m16n8k32:   a[0] row g, k 4t..4t+3; a[1] row g+8, the same k; a[2], a[3] as these at k + 16.
//                  b[0] column g, k 4t..4t+3; b[1] the same at k + 16.
//   bf16 m16n8k16: a[0] row g, k 2t, 2t+1; a[1] row g+8; a[2], a[3] as these at k + 8; b[0] column g, k 2t, 2t+1;
//                  b[1] at k + 8. The lower k is in the lower half of the word.
//   both:          c[0], c[1] row g, columns 2t, 2t+1; c[2], c[3] row g+8.
#pragma once
#include "common.cuh"

#ifndef QFT_EMULATE
// c += a * b, exact in 32 bits (wraps beyond).
__device__ __forceinline__ void mma_s8_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a * b with exact products; the order and the rounding of the sum of 17 terms are the hardware's.
__device__ __forceinline__ void mma_bf16_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads four 8 x 8 matrices of 16-bit elements from shared memory. Lane l gives the 16-byte aligned address of row
// l % 8 of matrix l / 8; r[m] receives elements 2t, 2t+1 of row g of matrix m. Bytes are moved only: a row of 16 INT8
// values serves as well.
__device__ __forceinline__ void load_matrices_x4(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
// The same for matrices read transposed: r[m] receives elements (2t, g) and (2t+1, g) of matrix m.
__device__ __forceinline__ void load_matrices_x4_transposed(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
#endif
