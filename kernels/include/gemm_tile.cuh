// INT8 tiles of the integer product: copied to shared memory as they are stored, read back as tensor-core fragments.
//
// An operand has an outer axis (m of the first, n of the second) and the contraction axis k; either may be the
// contiguous one. Tensor cores want words of four neighbouring k. A tile covers OUTER x 64 elements and keeps the
// orientation of its matrix, so that global memory is always read along its rows:
//   k contiguous:     [OUTER][64]; `ldmatrix` reads words of four neighbouring k as they stand.
//   outer contiguous: [64][OUTER]; transposing `ldmatrix` moves units of two bytes, here two neighbouring outer indices at
//                     one k. Its row addresses are free: a thread of a quad gets those two indices at k = 4t, 4t + 1 in
//                     one register and at 4t + 2, 4t + 3 in another, and two byte permutations make two words of them.
// No operand is ever transposed through memory.
//
// Octets are eight outer indices that one instruction takes together. A group of 32 outer indices has octets o = 0..3;
// member x = 0..7 of octet o is the outer index place(o, x) of the group. Which indices make an octet is free, as
// long as the epilogue knows; `place` is chosen so that in the result a thread owns four neighbouring columns, and a
// quad of threads 64 contiguous bytes: whole sectors.
//
// Bank conflicts: none. Shared memory serves 128 bytes at once, and each time they are 128 different ones modulo 128.
//   Copies in: eight threads write the eight 16-byte chunks of one aligned line of 128 bytes, in some order.
//   k contiguous: chunk c of row r lies at c ^ (r / 4 % 4). `ldmatrix` reads one chunk of eight rows at a time, those
//     of an octet: r / 4 % 4 = x / 2 takes each value twice, for an even row and the odd one after it, which are the
//     two halves of a line.
//   outer contiguous: chunk c, counted over the tile, of row k lies at c ^ (k % 2 + 2 (k / 4 % 4)). `ldmatrix` reads one
//     chunk of eight rows at a time, k = 4i and 4i + 1 of four i, or 4i + 2 and 4i + 3: the exchange takes each of its
//     eight values once. With OUTER = 64 two rows share a line, and the exchange's upper bit swaps them within it.
#pragma once
#include "mma.cuh"

// Steps of k per tile.
constexpr uint32_t TILE_K = 64;
constexpr uint32_t CHUNK = 16;

// A matrix operand as the kernels get it.
struct Operand {
    const int8_t* data;
    uint64_t stride;  // Elements between two stored rows.
    uint32_t outer;   // Length of the outer axis.
};

// The tiles of one operand; `FIRST` tells the operand whose outer axis is the result's rows.
template <bool FIRST, uint32_t OUTER, bool K_CONTIGUOUS, uint32_t THREADS, bool ALIGNED>
struct Tile {
    static constexpr uint32_t BYTES = OUTER * TILE_K;
    static constexpr uint32_t ROW_CHUNKS = (K_CONTIGUOUS ? TILE_K : OUTER) / CHUNK;
    static constexpr uint32_t COPIES = BYTES / CHUNK / THREADS;
    // Stored rows between two copies of one thread.
    static constexpr uint32_t ROW_STEP = THREADS / ROW_CHUNKS;
    static_assert(THREADS % ROW_CHUNKS == 0 && COPIES * THREADS * CHUNK == BYTES, "whole copies");
    static_assert(OUTER % 64 == 0, "whole groups");

    // Where chunk `column` of stored row `row` of the tile lies, in bytes.
    static __device__ __forceinline__ uint32_t position(uint32_t row, uint32_t column) {
        const uint32_t swizzle = K_CONTIGUOUS ? row / 4 % 4 : row % 2 + row / 4 % 4 * 2;
        return ((row * ROW_CHUNKS + column) ^ swizzle) * CHUNK;
    }

    const int8_t* source;
    uint64_t stride;
    uint32_t row, column;  // This thread's first chunk: stored row and byte within the tile's row.
    int32_t rows_left, columns_left;

    // The thread's place in the tiles whose outer axis starts at `first` and that follow each other along k from `k0`.
    __device__ __forceinline__ Tile(const Operand& operand, uint32_t first, uint32_t k0, uint32_t k_end) {
        row = threadIdx.x / ROW_CHUNKS;
        column = threadIdx.x % ROW_CHUNKS * CHUNK;
        stride = operand.stride;
        const uint32_t start_row = K_CONTIGUOUS ? first : k0, start_column = K_CONTIGUOUS ? k0 : first;
        source = operand.data + static_cast<uint64_t>(start_row + row) * stride + start_column + column;
        rows_left = static_cast<int32_t>((K_CONTIGUOUS ? operand.outer : k_end) - start_row) - static_cast<int32_t>(row);
        columns_left =
            static_cast<int32_t>((K_CONTIGUOUS ? k_end : operand.outer) - start_column) - static_cast<int32_t>(column);
    }

    // Starts copying the next tile along k to `shared`; outside of the matrix it is zero.
    __device__ __forceinline__ void copy_next(uint8_t* shared) {
        const int32_t columns = min(max(columns_left, 0), static_cast<int32_t>(CHUNK));
#pragma unroll
        for (uint32_t i = 0; i < COPIES; ++i) {
            const uint32_t r = row + i * ROW_STEP;
            const int32_t bytes = rows_left > static_cast<int32_t>(i * ROW_STEP) ? columns : 0;
            copy_chunk(shared + position(r, column / CHUNK), source + i * ROW_STEP * stride, bytes);
        }
        if (K_CONTIGUOUS) {
            source += TILE_K;
            columns_left -= TILE_K;
        } else {
            source += TILE_K * stride;
            rows_left -= TILE_K;
        }
    }

    static __device__ __forceinline__ void copy_chunk(uint8_t* shared, const int8_t* source, int32_t bytes) {
        if (ALIGNED) {
            copy_async_16_zero_fill(shared, source, static_cast<uint32_t>(bytes));
        } else {
            uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
            for (int32_t i = 0; i < 16; ++i) {
                if (i < bytes) words[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(source[i])) << (i % 4 * 8);
            }
            *reinterpret_cast<uint4*>(shared) = make_uint4(words[0], words[1], words[2], words[3]);
        }
    }

    // Outer index of member `x` of octet `octet` within a group of 32.
    static __device__ __forceinline__ uint32_t place(uint32_t octet, uint32_t x) {
        return octet / 2 * 16 + (K_CONTIGUOUS ? x / 2 * 4 + octet % 2 * 2 + x % 2 : x * 2 + octet % 2);
    }

    // Where this thread reads the 32 outer indices from `first` on. This depends neither on the stage nor on the step,
    // so the main loop keeps it in registers.
    //   k contiguous, first operand:  [s] is the lane's row for `ldmatrix` in the instruction's half of the tile.
    //   k contiguous, second operand: [0] is the lane's row for `ldmatrix`.
    //   outer contiguous:             [i] is the lane's row for `ldmatrix` in chunk i of the group.
    struct Share {
        uint32_t byte[2];
    };
    static __device__ __forceinline__ Share share(uint32_t first) {
        if (K_CONTIGUOUS) {
            const uint32_t matrix = lane_index() / 8, row = first + place(FIRST ? matrix % 2 : 0, lane_index() % 8);
            if (FIRST) return {{position(row, matrix / 2), position(row, matrix / 2 + 2)}};
            return {{position(row, matrix), 0}};
        }
        const uint32_t matrix = lane_index() / 8, r = lane_index() % 8;
        const uint32_t row = matrix / 2 * 16 + r / 2 * 4 + matrix % 2 * 2 + r % 2;
        return {{position(row, first / CHUNK), position(row, first / CHUNK + 1)}};
    }

    // The words of a group's octets for the 64 steps of k: words[octet][s][h] holds k = 32s + 16h + 4t + (0..3) of
    // member g, where s is the instruction (32 steps each) and h its half.
    static __device__ __forceinline__ void load(uint32_t (&words)[4][2][2], const uint8_t* shared, const Share& share) {
        if (K_CONTIGUOUS) {
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                // A fragment of the first operand holds two octets, one of the second operand one: four matrices in
                // this order are the registers of one or of two fragments.
                uint32_t r[4];
                if (FIRST) {
                    const uint32_t s = i % 2, octet = i / 2 * 2;
                    load_matrices_x4(r, shared + share.byte[s] + place(octet, 0) * TILE_K);
                    words[octet][s][0] = r[0];
                    words[octet + 1][s][0] = r[1];
                    words[octet][s][1] = r[2];
                    words[octet + 1][s][1] = r[3];
                } else {
                    load_matrices_x4(r, shared + share.byte[0] + place(i, 0) * TILE_K);
                    words[i][0][0] = r[0];
                    words[i][0][1] = r[1];
                    words[i][1][0] = r[2];
                    words[i][1][1] = r[3];
                }
            }
        } else {
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                // Bytes of r[2h]: the chunk's outer indices 2g and 2g + 1 at k = 4t, then both at 4t + 1; r[2h + 1]: at
                // 4t + 2 and 4t + 3.
                const uint32_t s = i % 2, octet = i / 2 * 2;
                uint32_t r[4];
                load_matrices_x4_transposed(r, shared + share.byte[i / 2] + s * 32 * OUTER);
#pragma unroll
                for (uint32_t h = 0; h < 2; ++h) {
                    words[octet][s][h] = __byte_perm(r[2 * h], r[2 * h + 1], 0x6420);
                    words[octet + 1][s][h] = __byte_perm(r[2 * h], r[2 * h + 1], 0x7531);
                }
            }
        }
    }
};
