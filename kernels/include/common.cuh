// What every kernel shares: integer types, vector accesses, reductions, asynchronous copies to shared memory.
//
// The same source is compiled twice: by nvcc for the GPU, and by the host's C++ compiler with QFT_EMULATE, where
// crates/qft-emulator/emulate/emulate.h supplies the language of CUDA. Only what has an emulated twin may be used.
#pragma once

#ifdef QFT_EMULATE
#include "emulate.h"
#else
#include <stdint.h>

// Shared memory whose size the launch gives; 16-byte aligned, one array per kernel.
#define DYN_SHARED(T, name)                                                      \
    extern __shared__ __align__(16) unsigned char qft_dynamic_shared[];          \
    T* name = reinterpret_cast<T*>(qft_dynamic_shared)

// The address of shared memory as the asynchronous copies and matrix loads want it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 (or 4) bytes from global to shared memory without waiting; both addresses are aligned to the size.
// With `valid` false, zeros are written and `src` is not read. Visible to the thread after copy_async_wait, to the
// block after a barrier behind it.
__device__ __forceinline__ void copy_async_16(void* dst, const void* src, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src),
                 "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_4(void* dst, const void* src, bool valid = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(dst)), "l"(src),
                 "r"(valid ? 4 : 0) : "memory");
}

// As copy_async_16 for the first `bytes` (0 to 16) bytes; the rest of the 16 becomes zero.
__device__ __forceinline__ void copy_async_16_zero_fill(void* dst, const void* src, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src), "r"(bytes)
                 : "memory");
}

// Closes the group of copies issued by this thread since the last call.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` of the newest groups of this thread are under way.
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#endif

constexpr uint32_t WARP = 32;
constexpr uint32_t FULL_MASK = 0xffffffffu;

__device__ __forceinline__ uint32_t lane_index() { return threadIdx.x % WARP; }
__device__ __forceinline__ uint32_t warp_index() { return threadIdx.x / WARP; }

// Whether a pointer may be accessed in units of `bytes`, a power of two.
__device__ __forceinline__ bool is_aligned(const void* pointer, uint32_t bytes) {
    return (reinterpret_cast<uintptr_t>(pointer) & (bytes - 1)) == 0;
}

// Reductions over a warp: every lane gets the result. The order of a sum is fixed: a butterfly from distance 16 to 1.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(FULL_MASK, value, distance);
    return value;
}
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        value = fmaxf(value, __shfl_xor_sync(FULL_MASK, value, distance));
    return value;
}
__device__ __forceinline__ uint32_t warp_max(uint32_t value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value = max(value, __shfl_xor_sync(FULL_MASK, value, distance));
    return value;
}
__device__ __forceinline__ int32_t warp_sum(int32_t value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(FULL_MASK, value, distance);
    return value;
}

// The same value, of which the compiler does not see where it comes from: it neither makes a copy of what follows for each of the
// cases that led to it, nor keeps what it has computed from the value before.
template <class T>
__device__ __forceinline__ T opaque(T x) {
#ifndef QFT_EMULATE
    if constexpr (sizeof(T) == 8) asm volatile("" : "+l"(x));
    else asm volatile("" : "+r"(x));
#endif
    return x;
}

// Reductions over a one-dimensional block of `WARPS` full warps: every thread gets the result, whole warps in a fixed
// order. `shared` holds WARPS values; it may be used again after the block's next barrier.
template <uint32_t WARPS, class T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
    value = warp_sum(value);
    if (lane_index() == 0) shared[warp_index()] = value;
    __syncthreads();
    T total = shared[0];
#pragma unroll
    for (uint32_t warp = 1; warp < WARPS; ++warp) total += shared[warp];
    return total;
}
template <uint32_t WARPS, class T>
__device__ __forceinline__ T block_max(T value, T* shared) {
    value = warp_max(value);
    if (lane_index() == 0) shared[warp_index()] = value;
    __syncthreads();
    T largest = shared[0];
#pragma unroll
    for (uint32_t warp = 1; warp < WARPS; ++warp) largest = shared[warp] > largest ? shared[warp] : largest;
    return largest;
}
