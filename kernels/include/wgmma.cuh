// Tensor-core products of a warpgroup, on Hopper (sm_90a) alone. A warpgroup is four warps, the first of which has an index
// that divides by four; all of its 128 threads call together. Operands lie in shared memory, the first one in registers if
// the caller likes; sums are in registers.
//
// Order of calls. A product runs on behind the call that starts it, and reads shared memory through another path than
// threads write it:
//   1. A thread that has written operands makes them visible by fence_async_proxy, after copy_async_wait if they came by an
//      asynchronous copy; a barrier behind that tells the others.
//   2. wgmma_fence before the first product, and whenever a thread has touched registers of a product since the last one.
//   3. Products on the same sums follow each other without any wait between them.
//   4. wgmma_commit closes a group. Behind wgmma_wait of it, its operands may be overwritten, those in registers too; behind
//      wgmma_wait_all the sums are there.
//
// Operands (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout"): rows of 128 bytes along k, each aligned to
// 128, eight of them to a pattern that is aligned to 1024. Chunk c of 16 bytes of row r lies at c ^ (r % 8): this is
// the swizzle of 128 bytes, which the hardware applies to bits of the address. An instruction takes 32 bytes of each row.
// Sums: warp w of the warpgroup has rows 16w..16w+15; with g = lane / 4, t = lane % 4, c[4j], c[4j + 1] are row g, columns
// 8j + 2t, 8j + 2t + 1, and c[4j + 2], c[4j + 3] the same of row g + 8.
// The first operand in registers: of the same rows, a[0] is row g, k = 4t..4t+3, a[1] the same of row g + 8, a[2] and a[3]
// both at k + 16, as for mma.sync.
#pragma once
#include "common.cuh"

// Bytes of a row of an operand; of the eight rows after which the swizzle repeats.
constexpr uint32_t SWIZZLE_ROW = 128;
constexpr uint32_t SWIZZLE_PATTERN = 8 * SWIZZLE_ROW;
// Steps of k, or bytes, of one instruction.
constexpr uint32_t WGMMA_K = 32;
constexpr uint32_t WARPGROUP = 128;

// Where chunk `chunk` of row `row` of an operand lies, in bytes behind a multiple of 1024.
__device__ __forceinline__ uint32_t swizzled_position(uint32_t row, uint32_t chunk) {
    return row * SWIZZLE_ROW + (chunk ^ (row % 8)) * 16;
}

// Describes an operand from the first of its rows on, whose shared address is a multiple of 1024. Bits 0-13: the address;
// 16-29: not used with this swizzle; 32-45: from one pattern to the next; 62-63: the swizzle of 128 bytes. Sizes count
// units of 16 bytes.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t address) {
    return static_cast<uint64_t>(address / 16) | uint64_t{1} << 16 | uint64_t{SWIZZLE_PATTERN / 16} << 32 | uint64_t{1} << 62;
}
// The same operand `bytes` (a multiple of 16) further along k. The swizzle is of addresses, so they are added as they are.
__device__ __forceinline__ uint64_t wgmma_advance(uint64_t descriptor, uint32_t bytes) { return descriptor + bytes / 16; }

#ifndef QFT_EMULATE
// Makes this thread's writes to shared memory visible to products.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most `PENDING` of the newest groups are under way.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
__device__ __forceinline__ void wgmma_wait_all(int32_t (&c)[128]) {
    wgmma_wait<0>();
    // The compiler takes a product for complete when it is started: this keeps it from using the sums before.
#pragma unroll
    for (uint32_t i = 0; i < 128; ++i) asm volatile("" : "+r"(c[i])::"memory");
}

// Starts c += a b^T, a [64, 32] by its descriptor or in registers, b [256, 32], exact in 32 bits (wraps beyond).
#define EIGHT(i) \
    "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3]), "+r"(c[i + 4]), "+r"(c[i + 5]), "+r"(c[i + 6]), "+r"(c[i + 7])
#define SUMS \
    EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24), EIGHT(32), EIGHT(40), EIGHT(48), EIGHT(56), EIGHT(64), EIGHT(72), EIGHT(80), \
        EIGHT(88), EIGHT(96), EIGHT(104), EIGHT(112), EIGHT(120)
#define WGMMA_S8_M64N256K32(operands) \
    "{.reg .pred p; setp.eq.u32 p, 0, 0;" \
    "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31," \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63," \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95," \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}, " operands ", p;}"
__device__ __forceinline__ void wgmma_s8_m64n256k32(int32_t (&c)[128], uint64_t a, uint64_t b) {
    asm volatile(WGMMA_S8_M64N256K32("%128, %129") : SUMS : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma_s8_m64n256k32(int32_t (&c)[128], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(WGMMA_S8_M64N256K32("{%128,%129,%130,%131}, %132") : SUMS : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef WGMMA_S8_M64N256K32
#undef SUMS
#undef EIGHT
#endif
