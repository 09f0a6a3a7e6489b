// Known answers: one INT8 product, one bf16 product, matrix loads and one block of random numbers, by one warp.
//
// Shapes: a i8 [16, 32], b i8 [8, 32], products i32 [16, 8] = a b^T; fa bf16 [16, 16], fb bf16 [8, 16], sums f32
// [16, 8] = fa fb^T of small integers, exact; words u32 [64], block `block` of the stream; loads u32 [2, 4, 32]: what each
// lane receives of the four 8 x 8 matrices of 16-bit elements that `a` is, plain and transposed. Grid: one block of 32.
// CPU twin: crates/qft-cuda/src/self_test.rs. Run once when a device is opened.
#include "mma.cuh"
#include "random.cuh"

extern "C" __global__ void __launch_bounds__(32)
self_test(const uint8_t* __restrict__ a, const uint8_t* __restrict__ b, const uint16_t* __restrict__ fa,
          const uint16_t* __restrict__ fb, int32_t* __restrict__ products, float* __restrict__ sums,
          uint32_t* __restrict__ words, uint32_t* __restrict__ loads, uint64_t seed, uint32_t step, uint32_t tensor,
          uint32_t purpose, uint32_t block) {
    __shared__ __align__(16) uint32_t staged[128];
    const uint32_t lane = lane_index(), g = lane / 4, t = lane % 4;
    const uint32_t* a_words = reinterpret_cast<const uint32_t*>(a);
    const uint32_t* b_words = reinterpret_cast<const uint32_t*>(b);
    const uint32_t* fa_words = reinterpret_cast<const uint32_t*>(fa);
    const uint32_t* fb_words = reinterpret_cast<const uint32_t*>(fb);

    // Eight words a row, four INT8 each; two bf16 each.
    int32_t c[4] = {0, 0, 0, 0};
    const uint32_t a_fragment[4] = {a_words[8 * g + t], a_words[8 * (g + 8) + t], a_words[8 * g + t + 4],
                                    a_words[8 * (g + 8) + t + 4]};
    const uint32_t b_fragment[2] = {b_words[8 * g + t], b_words[8 * g + t + 4]};
    mma_s8_m16n8k32(c, a_fragment, b_fragment);
    float f[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const uint32_t fa_fragment[4] = {fa_words[8 * g + t], fa_words[8 * (g + 8) + t], fa_words[8 * g + t + 4],
                                     fa_words[8 * (g + 8) + t + 4]};
    const uint32_t fb_fragment[2] = {fb_words[8 * g + t], fb_words[8 * g + t + 4]};
    mma_bf16_m16n8k16(f, fa_fragment, fb_fragment);
    for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t row = g + 8 * (i / 2), column = 2 * t + i % 2;
        products[8 * row + column] = c[i];
        sums[8 * row + column] = f[i];
    }

    for (uint32_t i = lane; i < 128; i += WARP) staged[i] = a_words[i];
    __syncwarp();
    uint32_t plain[4], transposed[4];
    load_matrices_x4(plain, staged + 4 * lane);
    load_matrices_x4_transposed(transposed, staged + 4 * lane);
    for (uint32_t m = 0; m < 4; ++m) {
        loads[32 * m + lane] = plain[m];
        loads[32 * (4 + m) + lane] = transposed[m];
    }

    if (lane < LANES) {
        const uint4 w = philox_words(philox(seed, step, tensor, purpose), LANES * block + lane);
        words[lane] = w.x;
        words[16 + lane] = w.y;
        words[32 + lane] = w.z;
        words[48 + lane] = w.w;
    }
}
