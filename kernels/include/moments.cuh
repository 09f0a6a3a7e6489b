// Moments of a row in 8 or 4 bits, a lane's four neighbours at a time: crates/qft-optim/src/moment/code.rs.
#pragma once
#include "quad_access.cuh"

// Elements that share a scale.
constexpr uint32_t BLOCK = 128;

// How many times its root mean square a block reaches in 4 bits.
constexpr float REACH = 2.5f;

// The next bf16 that is not smaller than `max`: qft_optim::moment::block_scale.
__device__ __forceinline__ uint16_t block_scale(float max) {
    if (max < TINY) return 0;
    const uint32_t up = (__float_as_uint(max) + 0xFFFFu) >> 16;
    return static_cast<uint16_t>(up < 0x7F7Fu ? up : 0x7F7Fu);
}

// (bits + 1/2) / 65536 - shift, as offset_from_bits has it, in one operation: every sum and product of it is exact.
__device__ __forceinline__ float offset_from_half(uint32_t bits, float shift) {
    return __fmaf_rn(static_cast<float>(static_cast<int32_t>(bits)), 1.0f / 65536.0f, 1.0f / 131072.0f - shift);
}

// About 1 / sqrt(x), for x that is not subnormal.
__device__ __forceinline__ float approximate_rsqrt(float x) {
#ifdef QFT_EMULATE
    return rsqrtf(x);
#else
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// The square root to nearest as __fsqrt_rn computes it for x in the middle of the range, without its branch for others:
// NaN for infinity.
__device__ __forceinline__ float square_root(float x) {
    const float inverse = approximate_rsqrt(x), root = x * inverse;
    return __fmaf_rn(__fmaf_rn(-root, root, x), 0.5f * inverse, root);
}

// `x` with its sign changed if `sign` is negative.
__device__ __forceinline__ float times_sign(float x, float sign) {
    return __uint_as_float(__float_as_uint(x) ^ (__float_as_uint(sign) & 0x80000000u));
}

// The scale divided by a constant. One correction of the product with the inverse gives the nearest float for every finite
// bf16, and takes no branch as a division does.
__device__ __forceinline__ float divided_scale(uint16_t scale, float divisor, float inverse) {
    const float x = f32_from_bf16(scale), quotient = x * inverse;
    return __fmaf_rn(__fmaf_rn(-quotient, divisor, x), inverse, quotient);
}

// The codes: `units` is the value of one, `below` the largest whose value is not above `a`, with what is left of `a` and what is
// missing to the next one.
struct Sqrt {
    static constexpr int BITS = 8;
    static constexpr float MOST = 127.0f;
    static constexpr bool DITHERED = false;
    __device__ __forceinline__ static float unit(uint16_t scale) { return divided_scale(scale, 16129.0f, 1.0f / 16129.0f); }
    // The product of codes is an exact integer.
    __device__ __forceinline__ static float units(float code) { return code * fabsf(code); }
    __device__ __forceinline__ static float below(float a, float& rest, float& width) {
        const float code = floorf(square_root(a));
        rest = __fmaf_rn(-code, code, a);
        width = __fmaf_rn(2.0f, code, 1.0f);
        return code;
    }
};

struct Linear {
    static constexpr int BITS = 8;
    static constexpr float MOST = 127.0f;
    static constexpr bool DITHERED = false;
    __device__ __forceinline__ static float unit(uint16_t scale) { return divided_scale(scale, 127.0f, 1.0f / 127.0f); }
    __device__ __forceinline__ static float units(float code) { return code; }
    __device__ __forceinline__ static float below(float a, float& rest, float& width) {
        const float code = floorf(a);
        rest = a - code;
        width = 1.0f;
        return code;
    }
};

// Never negative, and never zero: the byte counts from 1.
struct Quartic {
    static constexpr int BITS = 8;
    static constexpr float MOST = 256.0f;
    static constexpr bool DITHERED = true;
    __device__ __forceinline__ static float unit(uint16_t scale) { return f32_from_bf16(scale); }
    __device__ __forceinline__ static float units(float code) {
        const float root = code * (1.0f / 256.0f), square = root * root;
        return square * square;
    }
    __device__ __forceinline__ static float below(float a, float& rest, float& width) {
        const float limited = a < 1.0f ? a : 1.0f;
        const float code = fminf(fmaxf(floorf(256.0f * square_root(square_root(limited))), 1.0f), 255.0f);
        const float value = units(code);
        rest = limited - value;
        width = units(code + 1.0f) - value;
        return code;
    }
};

// Four bits, none of them zero: a code stands for the value between it and the next one, up to a multiple of the root mean square.
struct Sqrt4 {
    static constexpr int BITS = 4;
    static constexpr float MOST = 7.0f;
    static constexpr bool DITHERED = true;
    __device__ __forceinline__ static float unit(uint16_t scale) { return divided_scale(scale, 56.25f, 1.0f / 56.25f); }
    __device__ __forceinline__ static float units(float code) {
        const float half = code + 0.5f;
        return half * fabsf(half);
    }
    __device__ __forceinline__ static int32_t encode(float m, float inverse, float u) {
        const float scaled = fabsf(m) * inverse;
        // Not a number counts as zero, as does what is so small: a square root needs no less.
        const float least = scaled > 1e-18f ? scaled : 1e-18f;
        const float magnitude = least < 56.25f ? least : 56.25f, root = square_root(magnitude);
        const float a = m < 0.0f ? -magnitude : magnitude, signed_root = m < 0.0f ? -root : root;
        const float code = floorf(signed_root - 0.5f), low = units(code);
        return static_cast<int32_t>(a - low > u * (units(code + 1.0f) - low) ? code + 1.0f : code);
    }
};

// Bytes of the codes of a row.
template <class Code>
__device__ __forceinline__ uint64_t code_bytes(uint64_t cols) {
    return Code::BITS == 4 ? (cols + 1) / 2 : cols;
}

// Four bytes of a row of which `left` exist, the others being zero.
__device__ __forceinline__ uint32_t load_bytes(const int8_t* bytes, uint32_t left, bool aligned) {
    if (aligned) return *reinterpret_cast<const uint32_t*>(bytes);
    uint32_t packed = 0;
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) {
        if (i < left) packed |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])) << 8 * i;
    }
    return packed;
}

// The two bytes of four columns of a row of which `left` exist, two to a byte.
__device__ __forceinline__ uint32_t load_nibbles(const int8_t* bytes, uint32_t left, bool aligned) {
    if (aligned) return *reinterpret_cast<const uint16_t*>(bytes);
    uint32_t packed = static_cast<uint8_t>(bytes[0]);
    if (left > 2) packed |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[1])) << 8;
    return packed;
}

__device__ __forceinline__ int32_t signed_byte(uint32_t bytes, uint32_t i) { return static_cast<int8_t>(bytes >> 8 * i); }
__device__ __forceinline__ int32_t signed_nibble(uint32_t bytes, uint32_t i) {
    return static_cast<int32_t>(bytes << (28 - 4 * i)) >> 28;
}

// A lane's four codes, as they lie in memory, and the scale of the block.
struct MomentQuad {
    uint32_t codes;
    uint16_t scale;

    template <class Code>
    __device__ __forceinline__ float code(uint32_t i) const {
        if (Code::BITS == 4) return static_cast<float>(signed_nibble(codes, i));
        if (Code::MOST > 255.0f) return static_cast<float>((codes >> 8 * i & 0xFFu) + 1);
        return static_cast<float>(signed_byte(codes, i));
    }
};

// A row of a moment, at a block of it.
template <class Code>
struct MomentRow {
    // The lane's first code.
    int8_t* codes;
    uint16_t* scale;

    __device__ __forceinline__ MomentRow(int8_t* plane, uint16_t* scales, uint64_t row, uint32_t cols, uint32_t block)
        : codes(plane + row * code_bytes<Code>(cols) + code_bytes<Code>(block * BLOCK + QUAD * lane_index())),
          scale(scales + row * ((cols + BLOCK - 1) / BLOCK) + block) {}

    __device__ __forceinline__ void advance(uint32_t blocks) {
        codes += code_bytes<Code>(blocks * BLOCK);
        scale += blocks;
    }
    // Starts the loads of a quad of which `left` columns exist; where quads are `aligned`, nothing waits for them here.
    __device__ __forceinline__ MomentQuad load(uint32_t left, bool aligned) const {
        MomentQuad x = {0, *scale};
        if (left != 0) x.codes = Code::BITS == 4 ? load_nibbles(codes, left, aligned) : load_bytes(codes, left, aligned);
        return x;
    }
    __device__ __forceinline__ static void decode(float (&out)[QUAD], const MomentQuad& x) {
        const float unit = Code::unit(x.scale);
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) out[i] = Code::units(x.code<Code>(i)) * unit;
    }
    // Codes a block, of which the lane has four values, and `words` decide between neighbours. All lanes of the warp call together,
    // and have read the old scale.
    // Of the columns of the block, `columns` exist.
    __device__ __forceinline__ void store(const float (&m)[QUAD], const uint32_t (&words)[QUAD], uint32_t left, uint32_t columns,
                                          bool aligned) {
        float most = 0.0f;
        // The maximum of a number and NaN is the number; none of them is negative, so that their bits have their order.
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            if (i < left) most = fmaxf(most, fabsf(m[i]));
        }
        most = __uint_as_float(__reduce_max_sync(FULL_MASK, __float_as_uint(most)));
        if (Code::BITS == 4) {
            const float limit = REACH * __fsqrt_rn(__fdiv_rn(square_sum(m, left), static_cast<float>(columns)));
            most = limit < most ? limit : most;
        }
        // A power of two, where the code asks for it.
        const uint32_t rounded = block_scale(most), power = min((rounded + 0x7Fu) & 0x7F80u, 0x7F00u);
        const uint16_t new_scale = static_cast<uint16_t>(Code::MOST > 255.0f ? power : rounded);
        const float unit = Code::unit(new_scale), inverse = unit > 0.0f ? __frcp_rn(unit) : 0.0f;
        int32_t code[QUAD];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) code[i] = encode(m[i], inverse, offset_from_half(words[i] >> 16, 0.0f));
        if (Code::BITS == 4) {
            store_nibbles(code, left, aligned);
        } else {
            store_quad(codes, 0, 0, left, aligned, code);
        }
        if (lane_index() == 0) *scale = new_scale;
    }

  private:
    // The code in the lowest bits.
    __device__ __forceinline__ static int32_t encode(float m, float inverse, float u) {
        if constexpr (Code::BITS == 4) {
            return Code::encode(m, inverse, u);
        } else {
            return encode_magnitude(m, inverse, u);
        }
    }
    __device__ __forceinline__ static int32_t encode_magnitude(float m, float inverse, float u) {
        const float scaled = fabsf(m) * inverse;
        // Not a number becomes the smallest code, as does what is so small: a square root needs no less.
        const float a = scaled > 1e-18f ? scaled : 1e-18f;
        float rest, width;
        const float low = Code::below(a, rest, width);
        const float code = rest > u * width ? low + 1.0f : low;
        // An infinite momentum has the largest, too: the root is NaN then.
        const float magnitude = code < Code::MOST ? code : Code::MOST;
        const float stored = Code::MOST > 255.0f ? magnitude - 1.0f : times_sign(magnitude, m);
        return static_cast<int32_t>(__float_as_uint(stored + MAGIC));
    }
    // Of the block, a lane having four of its elements: by pairs, then the first half of the lanes with the second, over and over.
    __device__ __forceinline__ static float square_sum(const float (&m)[QUAD], uint32_t left) {
        float square[QUAD];
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) square[i] = i < left ? m[i] * m[i] : 0.0f;
        float sum = (square[0] + square[1]) + (square[2] + square[3]);
#pragma unroll
        for (int distance = 16; distance > 0; distance >>= 1) sum += __shfl_xor_sync(FULL_MASK, sum, distance);
        return sum;
    }
    __device__ __forceinline__ void store_nibbles(const int32_t (&code)[QUAD], uint32_t left, bool aligned) {
        uint32_t packed = 0;
#pragma unroll
        for (uint32_t i = 0; i < QUAD; ++i) {
            if (i < left) packed |= (static_cast<uint32_t>(code[i]) & 15u) << 4 * i;
        }
        if (aligned && left != 0) {
            *reinterpret_cast<uint16_t*>(codes) = static_cast<uint16_t>(packed);
            return;
        }
        if (left > 0) codes[0] = static_cast<int8_t>(packed);
        if (left > 2) codes[1] = static_cast<int8_t>(packed >> 8);
    }
};

// The words that decide where a code is dithered: qft_optim::moment::Dither.
constexpr uint32_t DITHER_COLUMN = 0xC13FA9A9u, DITHER_ROW = 0x91E10DA6u;

__device__ __forceinline__ void dither_words(uint32_t (&out)[QUAD], uint32_t start, uint32_t row, uint32_t col) {
#pragma unroll
    for (uint32_t i = 0; i < QUAD; ++i) out[i] = start + row * DITHER_ROW + (col + i) * DITHER_COLUMN;
}
