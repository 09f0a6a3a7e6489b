// The language of CUDA for the host's C++ compiler: what the kernels use of it, nothing more.
//
// A thread of a block is a fiber; the threads of a block take turns on one thread of the system and give way only at
// barriers and warp-wide calls. See schedule.cpp for the rules that are checked there.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __shared__ static __thread
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct uint3 { uint32_t x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(4) char4 { signed char x, y, z, w; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline char4 make_char4(signed char x, signed char y, signed char z, signed char w) { return {x, y, z, w}; }

namespace emulate {

// What the running thread may know of its launch.
struct Context {
    uint3 grid, block, block_index, thread_index;
    uint32_t lane;
    unsigned char* dynamic_shared;
};
extern __thread Context context;
inline uint32_t lane() { return context.lane; }

// Gives way until all threads of the block are at the same barrier. The sum of `value` over the block.
uint32_t block_barrier(uint32_t value);

// Gives way until all lanes of `mask` made the same call; deposits `bytes` (at most SLOT_BYTES) for the others to read.
// Returns the deposits of the warp, by lane: valid until the lane's next call.
constexpr size_t SLOT_BYTES = 32;
struct alignas(8) Slot { unsigned char bytes[SLOT_BYTES]; };
struct Deposits {
    Slot lanes[32];
    // A tensor-core product is computed whole by the first lane that goes on, and read by the others.
    bool computed;
    int32_t products[16][8];
    int32_t wide_products[16][256];
    double sums[16][8];
};
Deposits* warp_barrier(uint32_t call, uint32_t mask, const void* deposit, size_t bytes);

// Fills `products` (INT8, exact) or `sums` (bf16, exact products summed in double precision) from the fragments.
void multiply_s8(Deposits* deposits);
void multiply_bf16(Deposits* deposits);

// Ends the launch with a message.
[[noreturn]] void fail(const char* message);

void copy_async(void* dst, const void* src, uint32_t bytes, uint32_t read);
void copy_async_commit();
void copy_async_wait(uint32_t pending);

// Products of a warpgroup: warpgroup.cpp.
uint32_t shared_address(const void* pointer);
void fence_async_proxy();
void wgmma_fence();
void wgmma_s8_k32(int32_t* sums, uint32_t columns, uint64_t a, uint64_t b);
void wgmma_s8_k32(int32_t* sums, uint32_t columns, const uint32_t (&a)[4], uint64_t b);
void wgmma_commit();
void wgmma_wait(uint32_t pending);

enum Call : uint32_t { SYNC, SHUFFLE, VOTE, MMA_S8, MMA_BF16, MATRICES, MATRICES_READ, REDUCE, WGMMA_FENCE, WGMMA_S8, WGMMA_COMMIT, WGMMA_WAIT };

template <class T>
T exchange(uint32_t mask, T value, uint32_t source) {
    static_assert(sizeof(T) <= SLOT_BYTES, "a shuffled value is a word or two");
    const Slot* slots = warp_barrier(SHUFFLE, mask, &value, sizeof(T))->lanes;
    // As on the GPU, what an absent lane would send is unspecified; here it is an error.
    if (!(mask >> (source & 31) & 1)) fail("shuffle reads from a lane outside of its mask");
    T out;
    memcpy(&out, slots[source & 31].bytes, sizeof(T));
    return out;
}

}  // namespace emulate

#define threadIdx (emulate::context.thread_index)
#define blockIdx (emulate::context.block_index)
#define blockDim (emulate::context.block)
#define gridDim (emulate::context.grid)
#define DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(emulate::context.dynamic_shared)

inline void __syncthreads() { emulate::block_barrier(0); }
inline int __syncthreads_count(int predicate) { return static_cast<int>(emulate::block_barrier(predicate != 0)); }
inline int __syncthreads_or(int predicate) { return emulate::block_barrier(predicate != 0) != 0; }
inline int __syncthreads_and(int predicate) { return emulate::block_barrier(predicate == 0) == 0; }
inline void __syncwarp() { emulate::warp_barrier(emulate::SYNC, ~0u, nullptr, 0); }
// Fences are absent: the race check knows barriers only.

// `width` splits the warp into segments of that many lanes, as on the GPU.
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
    const uint32_t segment = emulate::lane() & ~static_cast<uint32_t>(width - 1);
    return emulate::exchange(mask, value, segment + (static_cast<uint32_t>(source) & static_cast<uint32_t>(width - 1)));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int distance, int width = 32) {
    const uint32_t lane = emulate::lane(), source = lane ^ static_cast<uint32_t>(distance);
    const bool inside = source / static_cast<uint32_t>(width) <= lane / static_cast<uint32_t>(width);
    return emulate::exchange(mask, value, inside ? source : lane);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, uint32_t distance, int width = 32) {
    const uint32_t lane = emulate::lane(), inside = lane & static_cast<uint32_t>(width - 1);
    return emulate::exchange(mask, value, inside + distance < static_cast<uint32_t>(width) ? lane + distance : lane);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, uint32_t distance, int width = 32) {
    const uint32_t lane = emulate::lane(), inside = lane & static_cast<uint32_t>(width - 1);
    return emulate::exchange(mask, value, inside >= distance ? lane - distance : lane);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
    const uint32_t mine = predicate != 0;
    const emulate::Slot* slots = emulate::warp_barrier(emulate::VOTE, mask, &mine, sizeof mine)->lanes;
    uint32_t votes = 0;
    for (uint32_t lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        uint32_t vote;
        memcpy(&vote, slots[lane].bytes, sizeof vote);
        votes |= vote << lane;
    }
    return votes;
}
inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t value) {
    const emulate::Slot* slots = emulate::warp_barrier(emulate::REDUCE, mask, &value, sizeof value)->lanes;
    uint32_t largest = 0;
    for (uint32_t lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        uint32_t other;
        memcpy(&other, slots[lane].bytes, sizeof other);
        largest = other > largest ? other : largest;
    }
    return largest;
}
inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Integer atomics. Those on floats are absent: their order would decide bits.
int atomicAdd(int* p, int v);
uint32_t atomicAdd(uint32_t* p, uint32_t v);
unsigned long long atomicAdd(unsigned long long* p, unsigned long long v);
uint32_t atomicOr(uint32_t* p, uint32_t v);
uint32_t atomicExch(uint32_t* p, uint32_t v);
uint32_t atomicCAS(uint32_t* p, uint32_t expected, uint32_t v);
int atomicMax(int* p, int v);
int atomicMin(int* p, int v);
uint32_t atomicMax(uint32_t* p, uint32_t v);
uint32_t atomicMin(uint32_t* p, uint32_t v);

inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
inline float __uint_as_float(uint32_t x) { float y; memcpy(&y, &x, 4); return y; }
inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
inline uint32_t __float_as_uint(float x) { uint32_t y; memcpy(&y, &x, 4); return y; }

// Conversions to integers saturate, and NaN becomes 0, as on the GPU.
inline int emulate_to_int(float x) {
    return x != x ? 0 : x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : static_cast<int>(x);
}
inline int __float2int_rn(float x) { return emulate_to_int(nearbyintf(x)); }
inline int __float2int_rd(float x) { return emulate_to_int(floorf(x)); }
inline int __float2int_ru(float x) { return emulate_to_int(ceilf(x)); }
inline int __float2int_rz(float x) { return emulate_to_int(truncf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(uint32_t x) { return static_cast<float>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint32_t min(uint32_t a, uint32_t b) { return a < b ? a : b; }
inline uint32_t max(uint32_t a, uint32_t b) { return a > b ? a : b; }
inline uint64_t min(uint64_t a, uint64_t b) { return a < b ? a : b; }
inline uint64_t max(uint64_t a, uint64_t b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
// Three bits of the selector for each byte: unlike the instruction, CUDA's function ignores the fourth, which asks for signs.
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
    const uint64_t all = static_cast<uint64_t>(high) << 32 | low;
    uint32_t out = 0;
    for (int byte = 0; byte < 4; ++byte) {
        const uint32_t pick = selector >> (4 * byte) & 7;
        out |= (static_cast<uint32_t>(all >> (8 * pick)) & 0xFF) << (8 * byte);
    }
    return out;
}
inline int __dp4a(int a, int b, int c) {
    for (int byte = 0; byte < 4; ++byte) {
        c += static_cast<int>(static_cast<int8_t>(a >> (8 * byte))) * static_cast<int>(static_cast<int8_t>(b >> (8 * byte)));
    }
    return c;
}
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }

inline void copy_async_16(void* dst, const void* src, bool valid = true) { emulate::copy_async(dst, src, 16, valid ? 16 : 0); }
inline void copy_async_4(void* dst, const void* src, bool valid = true) { emulate::copy_async(dst, src, 4, valid ? 4 : 0); }
inline void copy_async_16_zero_fill(void* dst, const void* src, uint32_t bytes) { emulate::copy_async(dst, src, 16, bytes); }
inline void copy_async_commit() { emulate::copy_async_commit(); }
template <int PENDING>
void copy_async_wait() { emulate::copy_async_wait(PENDING); }

inline void mma_s8_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const uint32_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    emulate::Deposits* deposits = emulate::warp_barrier(emulate::MMA_S8, ~0u, words, sizeof words);
    if (!deposits->computed) emulate::multiply_s8(deposits);
    const uint32_t g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (uint32_t i = 0; i < 4; ++i) {
        const int32_t product = deposits->products[g + 8 * (i / 2)][2 * t + i % 2];
        c[i] = static_cast<int32_t>(static_cast<uint32_t>(c[i]) + static_cast<uint32_t>(product));
    }
}

// One rounding to float for the whole sum; the hardware rounds more often.
inline void mma_bf16_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const uint32_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    emulate::Deposits* deposits = emulate::warp_barrier(emulate::MMA_BF16, ~0u, words, sizeof words);
    if (!deposits->computed) emulate::multiply_bf16(deposits);
    const uint32_t g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (uint32_t i = 0; i < 4; ++i) {
        c[i] = static_cast<float>(c[i] + deposits->sums[g + 8 * (i / 2)][2 * t + i % 2]);
    }
}

void load_matrices_x4(uint32_t (&r)[4], const void* row);
void load_matrices_x4_transposed(uint32_t (&r)[4], const void* row);

inline uint32_t shared_address(const void* pointer) { return emulate::shared_address(pointer); }
inline void fence_async_proxy() { emulate::fence_async_proxy(); }
inline void wgmma_fence() { emulate::wgmma_fence(); }
inline void wgmma_s8_m64n256k32(int32_t (&c)[128], uint64_t a, uint64_t b) { emulate::wgmma_s8_k32(c, 256, a, b); }
inline void wgmma_s8_m64n256k32(int32_t (&c)[128], const uint32_t (&a)[4], uint64_t b) { emulate::wgmma_s8_k32(c, 256, a, b); }
inline void wgmma_commit() { emulate::wgmma_commit(); }
template <int PENDING>
void wgmma_wait() { emulate::wgmma_wait(PENDING); }
inline void wgmma_wait_all(int32_t (&)[128]) { emulate::wgmma_wait(0); }
