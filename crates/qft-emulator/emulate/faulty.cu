// Kernels with the mistakes that the emulator is to find, for its own tests.
#include "common.cuh"

// Sums neighbours through shared memory; without `barrier` a thread may read before its neighbour has written.
extern "C" __global__ void __launch_bounds__(64) faulty_missing_barrier(uint32_t* out, uint32_t barrier) {
    __shared__ uint32_t values[64];
    values[threadIdx.x] = 0;
    __syncthreads();
    values[threadIdx.x] = threadIdx.x + 1;
    if (barrier) __syncthreads();
    out[threadIdx.x] = values[threadIdx.x] + values[(threadIdx.x + 32) % 64];
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

// Copies through shared memory; without `wait` the copy may still be under way when it is read.
extern "C" __global__ void __launch_bounds__(32) faulty_missing_wait(const uint32_t* in, uint32_t* out, uint32_t wait) {
    __shared__ __align__(16) uint32_t values[32];
    copy_async_4(values + threadIdx.x, in + threadIdx.x);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    out[threadIdx.x] = values[threadIdx.x];
}
