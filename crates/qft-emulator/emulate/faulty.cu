// Kernels with the mistakes that the emulator is to find, for its own tests.
#include "common.cuh"
#include "wgmma.cuh"

// Sums neighbours through shared memory; without `barrier` a thread may read before its neighbour has written.
extern "C" __global__ void __launch_bounds__(64) faulty_missing_barrier(uint32_t* out, uint32_t barrier) {
    __shared__ uint32_t values[64];
    values[threadIdx.x] = 0;
    __syncthreads();
    values[threadIdx.x] = threadIdx.x + 1;
    if (barrier) __syncthreads();
    out[threadIdx.x] = values[threadIdx.x] + values[(threadIdx.x + 32) % 64];
}

// The other way: without `barrier` a thread overwrites what its neighbour may not have read.
extern "C" __global__ void __launch_bounds__(64) faulty_overwritten(uint32_t* out, uint32_t barrier) {
    __shared__ uint32_t values[64];
    values[threadIdx.x] = threadIdx.x;
    __syncthreads();
    const uint32_t value = values[(threadIdx.x + 32) % 64];
    if (barrier) __syncthreads();
    values[threadIdx.x] = 0;
    out[threadIdx.x] = value;
}

// Neighbours within a warp: ordered by __syncwarp, not by a shuffle.
extern "C" __global__ void __launch_bounds__(32) faulty_lanes(uint32_t* out, uint32_t barrier, uint32_t shuffle) {
    __shared__ uint32_t values[32];
    values[threadIdx.x] = threadIdx.x;
    if (shuffle) out[threadIdx.x] = __shfl_xor_sync(FULL_MASK, threadIdx.x, 1);
    if (barrier) __syncwarp();
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}

// The rows of matrices are read for other lanes, so writing one's own is not enough.
extern "C" __global__ void __launch_bounds__(32) faulty_matrices(uint32_t* out, uint32_t barrier) {
    __shared__ __align__(16) uint32_t rows[32][4];
    for (uint32_t& word : rows[threadIdx.x]) word = threadIdx.x;
    if (barrier) __syncwarp();
    uint32_t words[4];
    load_matrices_x4(words, rows[threadIdx.x]);
    out[threadIdx.x] = words[0];
}

// Threads that write bytes of the same words; with `whole` the first one of each four writes the word as well.
extern "C" __global__ void __launch_bounds__(64) faulty_bytes(uint32_t* out, uint32_t whole) {
    __shared__ __align__(4) uint8_t bytes[64];
    bytes[threadIdx.x] = static_cast<uint8_t>(threadIdx.x);
    reinterpret_cast<uint8_t*>(out)[threadIdx.x] = bytes[threadIdx.x];
    if (whole && threadIdx.x % 4 == 0) out[threadIdx.x / 4] = 0;
}

// All threads count at once; without `barrier` some look before others have counted.
extern "C" __global__ void __launch_bounds__(64) faulty_counter(uint32_t* out, uint32_t barrier) {
    __shared__ uint32_t count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1u);
    if (barrier) __syncthreads();
    out[threadIdx.x] = count;
}

enum Sharing : uint32_t { OWN, READ, COUNTED, WRITTEN, READ_AND_WRITTEN, COUNTED_AND_READ };

// What the blocks of a launch do with one word, without barriers between them.
extern "C" __global__ void __launch_bounds__(1) faulty_blocks(uint32_t* out, uint32_t sharing) {
    const uint32_t block = blockIdx.x;
    if (sharing == OWN) out[block] = 1;
    if (sharing == READ) out[1 + block] = out[0];
    if (sharing == COUNTED) atomicAdd(out, 1u);
    if (sharing == WRITTEN) out[0] = 1;
    if (sharing == READ_AND_WRITTEN) out[block] = out[0];
    if (sharing == COUNTED_AND_READ) {
        if (block == 0) atomicAdd(out, 1u);
        else out[block] = out[0];
    }
}

// Half of a warp calls a shuffle of the whole.
extern "C" __global__ void __launch_bounds__(32) faulty_divergent_shuffle(uint32_t* out) {
    uint32_t value = threadIdx.x;
    if (threadIdx.x < 16) value = __shfl_xor_sync(FULL_MASK, value, 1);
    out[threadIdx.x] = value;
}

// The same with a mask of the lanes that call: correct.
extern "C" __global__ void __launch_bounds__(32) faulty_not_half_shuffle(uint32_t* out) {
    uint32_t value = threadIdx.x;
    if (threadIdx.x < 16) value = __shfl_xor_sync(0xFFFFu, value, 1);
    out[threadIdx.x] = value;
}

// One thread leaves before the barrier.
extern "C" __global__ void __launch_bounds__(64) faulty_early_exit(uint32_t* out) {
    if (threadIdx.x == 63) return;
    __syncthreads();
    out[threadIdx.x] = 0;
}

// A vector access at an address that is not a multiple of its size.
extern "C" __global__ void __launch_bounds__(1) faulty_misaligned(float* out) {
    *reinterpret_cast<float4*>(out + 1) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// An index past the end of an array in shared memory.
extern "C" __global__ void __launch_bounds__(1) faulty_index(uint32_t* out, uint32_t index) {
    __shared__ uint32_t values[8];
    values[index] = 1;
    out[0] = values[index];
}

// More dynamic shared memory than the launch gave.
extern "C" __global__ void __launch_bounds__(1) faulty_shared_size(uint32_t* out) {
    DYN_SHARED(uint32_t, values);
    out[0] = values[4096];
}

// Copies through shared memory; without `wait` the copy may still be under way when it is read, without `barrier` it is there
// for the thread alone that copied.
extern "C" __global__ void __launch_bounds__(32)
faulty_missing_wait(const uint32_t* in, uint32_t* out, uint32_t wait, uint32_t barrier) {
    __shared__ __align__(16) uint32_t values[32];
    copy_async_4(values + threadIdx.x, in + threadIdx.x);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    if (barrier) __syncthreads();
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}

enum WarpgroupFault : uint32_t {
    NONE,
    NO_COPY_WAIT,
    NO_PROXY_FENCE,
    NO_WGMMA_FENCE,
    MISALIGNED,
    OUTSIDE,
    NO_WAIT,
    SUMS_TOO_EARLY,
    SUMS_WRITTEN,
    OVERWRITTEN,
    ONE_WARP_LESS,
    WARPS_DIFFER,
    ONE_WARP_GONE,
    // The first operand in registers, without a fault and with two.
    REGISTERS,
    REGISTERS_NOT_FENCED,
    REGISTERS_WRITTEN,
};

// One product of a warpgroup, out [64, 256] = 3 + a b^T with a [64, 32], b [256, 32], from shared memory of any swizzle
// (0 none, 1 of 128 bytes, 2 of 64, 3 of 32), the first operand perhaps from registers, with one fault.
extern "C" __global__ void __launch_bounds__(128)
faulty_warpgroup(int32_t* out, const int8_t* a, const int8_t* b, uint32_t swizzle, uint32_t fault) {
    DYN_SHARED(uint8_t, unaligned);
    uint8_t* shared = unaligned + (0u - shared_address(unaligned)) % SWIZZLE_PATTERN;
    const uint32_t width = swizzle == 0 ? 16 : 256 >> swizzle;
    uint8_t* tiles[2] = {shared, shared + 64 * width * (swizzle == 0 ? 2 : 1)};
    // The layouts as a picture of rows shows them: chunks change places within a row, in the same way in rows that share
    // 128 bytes.
    const auto position = [&](uint32_t rows, uint32_t row, uint32_t chunk) {
        return swizzle == 0 ? (chunk * rows + row) * 16 : row * width + (chunk ^ (row * width / 128 % (width / 16))) * 16;
    };
    for (uint32_t i = threadIdx.x; i < 2 * (64 + 256); i += 128) {
        const uint32_t chunk = i % 2, row = i / 2;
        if (row < 64) copy_async_16(tiles[0] + position(64, row, chunk), a + row * 32 + chunk * 16);
        else copy_async_16(tiles[1] + position(256, row - 64, chunk), b + (row - 64) * 32 + chunk * 16);
    }
    copy_async_commit();
    if (fault != NO_COPY_WAIT) copy_async_wait<0>();
    if (fault != NO_PROXY_FENCE) fence_async_proxy();
    __syncthreads();
    const auto descriptor = [&](uint32_t rows, const uint8_t* tile) {
        return static_cast<uint64_t>(shared_address(tile) / 16) | static_cast<uint64_t>(rows) << 16 |
               static_cast<uint64_t>(8 * width / 16) << 32 | static_cast<uint64_t>(swizzle) << 62;
    };
    uint64_t a_tile = descriptor(64, tiles[0]), b_tile = descriptor(256, tiles[1]);
    if (fault == MISALIGNED) a_tile += width / 16;
    if (fault == OUTSIDE) b_tile += 64 * width / 16;
    if (fault == WARPS_DIFFER && warp_index() == 2) a_tile = b_tile;

    if (fault == ONE_WARP_GONE && warp_index() == 3) return;
    int32_t sums[128];
    for (int32_t& sum : sums) sum = 3;
    uint32_t words[4];
    for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t row = warp_index() * 16 + lane_index() / 4 + i % 2 * 8;
        words[i] = *reinterpret_cast<const uint32_t*>(a + row * 32 + i / 2 * 16 + lane_index() % 4 * 4);
    }
    if (fault != NO_WGMMA_FENCE && fault != REGISTERS_NOT_FENCED) wgmma_fence();
    if (fault >= REGISTERS) wgmma_s8_m64n256k32(sums, words, b_tile);
    else if (fault != ONE_WARP_LESS || warp_index() != 1) wgmma_s8_m64n256k32(sums, a_tile, b_tile);
    wgmma_commit();
    if (fault == REGISTERS_WRITTEN && threadIdx.x == 77) words[2] ^= 1;
    if (fault == SUMS_WRITTEN) sums[5] = 0;
    if (fault == OVERWRITTEN) {
        __syncthreads();
        if (threadIdx.x == 0) copy_async_16(tiles[1], b);
    }
    const int32_t early = sums[0];
    if (fault != NO_WAIT) wgmma_wait_all(sums);
    if (fault == SUMS_TOO_EARLY) sums[0] = early;
    for (uint32_t i = 0; i < 128; ++i) {
        const uint32_t row = warp_index() * 16 + lane_index() / 4 + i / 2 % 2 * 8;
        const uint32_t column = i / 4 * 8 + lane_index() % 4 * 2 + i % 2;
        out[row * 256 + column] = sums[i];
    }
}
