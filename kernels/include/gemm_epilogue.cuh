// The end of an INT8 product's sums: the result as scaled floats, or as whole numbers of units.
#pragma once
#include "common.cuh"
#include "numeric.cuh"

// WIDTH (2 or 4) neighbouring cells of a row of the result, from (m, n) on, where n divides by WIDTH.
template <uint32_t WIDTH>
struct Cells {
    uint32_t m, n;
    int32_t sum[WIDTH];
};

template <class Word, uint32_t WIDTH>
struct alignas(WIDTH * sizeof(Word)) Words {
    Word x[WIDTH];
};

// What an absent scale is read from.
static __device__ const float ONE = 1.0f;

// A scale per index, or one for all where there is none, without a branch.
struct Scale {
    const float* first;
    uint32_t step;

    explicit __device__ __forceinline__ Scale(const float* scale)
        : first(opaque(scale != nullptr ? scale : &ONE)), step(opaque(scale != nullptr ? 1u : 0u)) {}
    __device__ __forceinline__ float operator[](uint32_t index) const { return __ldg(first + index * step); }
};

// What is written for a float, and how it is added: the float itself.
struct AsFloats {
    using Word = float;
    // What a row's floats are written by.
    using Row = uint32_t;

    __device__ __forceinline__ Row row(uint32_t) const { return 0; }
    // What is added to where nothing was: it changes no number.
    static __device__ __forceinline__ float none() { return -0.0f; }
    static __device__ __forceinline__ float word(float value, Row) { return value; }
    static __device__ __forceinline__ float add(float old, float value) { return __fadd_rn(old, value); }
};

// The nearest whole number of its row's unit, ties to even; what is not a number is 0.
struct AsUnits {
    using Word = int32_t;
    // The inverse unit.
    using Row = float;

    const float* bound;  // [M].
    uint32_t count;

    __device__ __forceinline__ Row row(uint32_t m) const { return inverse_sum_unit(__ldg(bound + m), count); }
    static __device__ __forceinline__ int32_t none() { return 0; }
    static __device__ __forceinline__ int32_t word(float value, Row inverse) {
        const float units = __fmul_rn(value, inverse);
        return units != units ? 0 : __float2int_rn(units);
    }
    static __device__ __forceinline__ int32_t add(int32_t old, int32_t units) {
        return static_cast<int32_t>(static_cast<uint32_t>(old) + static_cast<uint32_t>(units));
    }
};

// out[m, n] (+)= f32(sum) * row_scale[m] * col_scale[n], as END says.
template <class End>
struct Epilogue {
    using Word = typename End::Word;

    const float* row_scale;  // [M] or null.
    const float* col_scale;  // [N] or null.
    Word* out;
    uint64_t stride;
    bool accumulate;
    End end;

    // Writes the COUNT cells of a thread, `at(0)` to `at(COUNT - 1)`. `inside` says, the same for all threads of a block, that
    // none of its cells is outside of the result [m_end, n_end].
    template <uint32_t WIDTH, uint32_t COUNT, class At>
    __device__ __forceinline__ void write(const At& at, uint32_t m_end, uint32_t n_end, bool inside) const {
        const Scale row(row_scale), column(col_scale);
        if (inside && is_aligned(out, WIDTH * sizeof(Word)) && stride % WIDTH == 0) {
            if (accumulate) write_inside<true, WIDTH, COUNT>(at, row, column);
            else write_inside<false, WIDTH, COUNT>(at, row, column);
            return;
        }
#pragma unroll
        for (uint32_t i = 0; i < COUNT; ++i) {
            const uint32_t add = opaque(static_cast<uint32_t>(accumulate));
            const Cells<WIDTH> cells = at(i);
            if (cells.m >= m_end) continue;
            const auto by = end.row(cells.m);
#pragma unroll
            for (uint32_t v = 0; v < WIDTH; ++v) {
                if (cells.n + v >= n_end) continue;
                Word* cell = out + cells.m * stride + cells.n + v;
                const float value = scaled(cells.sum[v], row[cells.m], column[cells.n + v]);
                *cell = End::add(add ? *cell : End::none(), End::word(value, by));
            }
        }
    }

private:
    static __device__ __forceinline__ float scaled(int32_t sum, float row, float column) {
        return __fmul_rn(__fmul_rn(__int2float_rn(sum), row), column);
    }

    // Without a branch, and with all loads of some cells before the first of their stores: a load never waits alone.
    template <bool ACCUMULATE, uint32_t WIDTH, uint32_t COUNT, class At>
    __device__ __forceinline__ void write_inside(const At& at, const Scale& row, const Scale& column) const {
        constexpr uint32_t TOGETHER = COUNT % 8 == 0 ? 8 : COUNT;
#pragma unroll
        for (uint32_t first = 0; first < COUNT; first += TOGETHER) {
            Words<Word, WIDTH> old[TOGETHER];
            float scale[TOGETHER];
            typename End::Row by[TOGETHER];
#pragma unroll
            for (uint32_t i = 0; i < TOGETHER; ++i) {
                const Cells<WIDTH> cells = at(first + i);
                scale[i] = row[cells.m];
                by[i] = end.row(cells.m);
                if (ACCUMULATE) old[i] = *reinterpret_cast<const Words<Word, WIDTH>*>(out + cells.m * stride + cells.n);
            }
#pragma unroll
            for (uint32_t i = 0; i < TOGETHER; ++i) {
                const Cells<WIDTH> cells = at(first + i);
                Words<Word, WIDTH> words;
#pragma unroll
                for (uint32_t v = 0; v < WIDTH; ++v) {
                    const Word word = End::word(scaled(cells.sum[v], scale[i], column[cells.n + v]), by[i]);
                    words.x[v] = ACCUMULATE ? End::add(old[i].x[v], word) : word;
                }
                *reinterpret_cast<Words<Word, WIDTH>*>(out + cells.m * stride + cells.n) = words;
            }
        }
    }
};
