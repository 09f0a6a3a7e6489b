// Float product of the reference mode, in f32 throughout (no tensor cores).
//
//   out[m, n] (+)= sum_k a(m, k) b(n, k)
//
// Shapes: nt: a [M, K], b [N, K]; nn: a [M, K], b [K, N]; tn: a [K, M], b [K, N]; out [M, N]; any row strides.
// Grid: one block of 256 threads per tile of 128 x 64, one-dimensional; a thread owns 8 x 4 elements of the result.
// Accumulator: one f32 per element, fused multiply-adds along k in ascending order, then one addition if accumulating:
// the order depends on nothing, so the same inputs give the same bits. CPU twin: crates/qft-tensor/src/cpu/gemm.rs, whose
// order of summation differs. Bound: arithmetic; per k a thread reads 12 floats from shared memory for 32 fused
// multiply-adds, and a tile of 128 x 64 reads 192 floats from the L2 cache for 8192 of them.
#include "tile_order.cuh"

namespace {

constexpr uint32_t THREADS = 256, BM = 128, BN = 64, BK = 16;
// Four floats of padding keep rows 16-byte aligned and spread the transposing writes over the banks.
constexpr uint32_t PAD = 4;

struct Operand {
    const float* data;
    uint64_t stride;  // Elements between two stored rows.
    uint32_t outer;   // Length of the axis that the operand shares with the result.
};

// The part of an operand's tile of OUTER x BK that one thread carries from global to shared memory. Neighbouring threads
// take neighbouring elements of a stored row.
template <uint32_t OUTER, bool K_CONTIGUOUS>
struct Part {
    static constexpr uint32_t COUNT = OUTER * BK / THREADS;
    float values[COUNT];

    static __device__ __forceinline__ uint32_t outer_of(uint32_t i) {
        const uint32_t index = threadIdx.x + i * THREADS;
        return K_CONTIGUOUS ? index / BK : index % OUTER;
    }
    static __device__ __forceinline__ uint32_t k_of(uint32_t i) {
        const uint32_t index = threadIdx.x + i * THREADS;
        return K_CONTIGUOUS ? index % BK : index / OUTER;
    }

    __device__ __forceinline__ void load(const Operand& x, uint32_t first, uint32_t k0, uint32_t k_end) {
#pragma unroll
        for (uint32_t i = 0; i < COUNT; ++i) {
            const uint32_t outer = first + outer_of(i), k = k0 + k_of(i);
            const uint64_t at = K_CONTIGUOUS ? outer * x.stride + k : k * x.stride + outer;
            values[i] = outer < x.outer && k < k_end ? x.data[at] : 0.0f;
        }
    }

    __device__ __forceinline__ void store(float (*shared)[OUTER + PAD]) const {
#pragma unroll
        for (uint32_t i = 0; i < COUNT; ++i) shared[k_of(i)][outer_of(i)] = values[i];
    }
};

__device__ __forceinline__ void read_four(float* to, const float* from) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
}

template <bool A_K, bool B_K>
__device__ __forceinline__ void product(const Operand& a, const Operand& b, uint32_t k, float* out, uint64_t out_stride,
                                        bool accumulate) {
    __shared__ __align__(16) float a_shared[2][BK][BM + PAD];
    __shared__ __align__(16) float b_shared[2][BK][BN + PAD];
    const TilePlace tile = tile_place((a.outer + BM - 1) / BM, (b.outer + BN - 1) / BN);
    const uint32_t m0 = tile.row * BM, n0 = tile.column * BN;
    const uint32_t row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;

    float sums[8][4] = {};
    Part<BM, A_K> a_part;
    Part<BN, B_K> b_part;
    a_part.load(a, m0, 0, k);
    b_part.load(b, n0, 0, k);
    uint32_t half = 0;
    for (uint32_t k0 = 0; k0 < k; k0 += BK) {
        // The other half was read before the last barrier, so this one may be written while slower threads still read it.
        a_part.store(a_shared[half]);
        b_part.store(b_shared[half]);
        __syncthreads();
        if (k0 + BK < k) {
            a_part.load(a, m0, k0 + BK, k);
            b_part.load(b, n0, k0 + BK, k);
        }
#pragma unroll
        for (uint32_t step = 0; step < BK; ++step) {
            float x[8], y[4];
            read_four(x, &a_shared[half][step][row]);
            read_four(x + 4, &a_shared[half][step][row + BM / 2]);
            read_four(y, &b_shared[half][step][column]);
#pragma unroll
            for (uint32_t i = 0; i < 8; ++i) {
#pragma unroll
                for (uint32_t j = 0; j < 4; ++j) sums[i][j] = __fmaf_rn(x[i], y[j], sums[i][j]);
            }
        }
        half ^= 1;
    }

    const uint32_t n = n0 + column;
    const bool vectors = is_aligned(out, 16) && out_stride % 4 == 0 && n + 4 <= b.outer;
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
        const uint32_t m = m0 + row + i % 4 + i / 4 * (BM / 2);
        if (m >= a.outer) continue;
        float* cells = out + m * out_stride + n;
        if (vectors) {
            float old[4] = {};
            if (accumulate) read_four(old, cells);
            *reinterpret_cast<float4*>(cells) =
                accumulate ? make_float4(__fadd_rn(old[0], sums[i][0]), __fadd_rn(old[1], sums[i][1]),
                                         __fadd_rn(old[2], sums[i][2]), __fadd_rn(old[3], sums[i][3]))
                           : make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
        } else {
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                if (n + j < b.outer) cells[j] = accumulate ? __fadd_rn(cells[j], sums[i][j]) : sums[i][j];
            }
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 2)
gemm_f32_f32_nt(const float* __restrict__ a, uint64_t a_stride, const float* __restrict__ b, uint64_t b_stride,
                float* __restrict__ out, uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    product<true, true>({a, a_stride, m}, {b, b_stride, n}, k, out, out_stride, accumulate != 0);
}
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gemm_f32_f32_nn(const float* __restrict__ a, uint64_t a_stride, const float* __restrict__ b, uint64_t b_stride,
                float* __restrict__ out, uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    product<true, false>({a, a_stride, m}, {b, b_stride, n}, k, out, out_stride, accumulate != 0);
}
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gemm_f32_f32_tn(const float* __restrict__ a, uint64_t a_stride, const float* __restrict__ b, uint64_t b_stride,
                float* __restrict__ out, uint64_t out_stride, uint32_t m, uint32_t n, uint32_t k, uint32_t accumulate) {
    product<false, false>({a, a_stride, m}, {b, b_stride, n}, k, out, out_stride, accumulate != 0);
}
