// Tensor-core products of one warp, put together from the fragments of its lanes (layout: kernels/include/mma.cuh).
#include "emulate.h"

namespace emulate {

void multiply_s8(Deposits* deposits) {
    alignas(64) int16_t a[16][32], b[8][32];
    for (uint32_t lane = 0; lane < 32; ++lane) {
        const uint32_t g = lane / 4, t = lane % 4;
        int8_t bytes[24];
        memcpy(bytes, deposits->lanes[lane].bytes, sizeof bytes);
        for (uint32_t e = 0; e < 4; ++e) {
            a[g][4 * t + e] = bytes[e];
            a[g + 8][4 * t + e] = bytes[4 + e];
            a[g][16 + 4 * t + e] = bytes[8 + e];
            a[g + 8][16 + 4 * t + e] = bytes[12 + e];
            b[g][4 * t + e] = bytes[16 + e];
            b[g][16 + 4 * t + e] = bytes[20 + e];
        }
    }
    for (uint32_t m = 0; m < 16; ++m) {
        for (uint32_t n = 0; n < 8; ++n) {
            int32_t sum = 0;
            for (uint32_t k = 0; k < 32; ++k) sum += static_cast<int32_t>(a[m][k]) * b[n][k];
            deposits->products[m][n] = sum;
        }
    }
    deposits->computed = true;
}

void multiply_bf16(Deposits* deposits) {
    double a[16][16], b[16][8];
    for (uint32_t lane = 0; lane < 32; ++lane) {
        const uint32_t g = lane / 4, t = lane % 4;
        uint32_t words[6];
        memcpy(words, deposits->lanes[lane].bytes, sizeof words);
        for (uint32_t half = 0; half < 2; ++half) {
            const auto value = [&](uint32_t word) {
                return static_cast<double>(__uint_as_float(half == 0 ? words[word] << 16 : words[word] & 0xFFFF0000u));
            };
            const uint32_t k = 2 * t + half;
            a[g][k] = value(0);
            a[g + 8][k] = value(1);
            a[g][8 + k] = value(2);
            a[g + 8][8 + k] = value(3);
            b[k][g] = value(4);
            b[8 + k][g] = value(5);
        }
    }
    for (uint32_t m = 0; m < 16; ++m) {
        double sums[8] = {};
        for (uint32_t k = 0; k < 16; ++k) {
            for (uint32_t n = 0; n < 8; ++n) sums[n] += a[m][k] * b[k][n];
        }
        memcpy(deposits->sums[m], sums, sizeof sums);
    }
    deposits->computed = true;
}

}  // namespace emulate
