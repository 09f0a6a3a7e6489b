// What the scheduler keeps for products of warpgroups.
#pragma once
#include "emulate.h"

#include <array>
#include <vector>

namespace emulate {

// Sums in registers that a product under way will write.
struct Pending {
    int32_t* registers;
    uint32_t count;
    uint32_t group;  // That of the last product on them.
    std::array<int32_t, 128> sums;
};

// The first operand of a product: in shared memory by its descriptor, or in registers of the thread.
struct FirstOperand {
    uint64_t descriptor;
    const uint32_t* registers;  // Four, or null.
};

// A product under way: what the thread's warp, or the thread itself, read for it when it was started.
struct Reading {
    FirstOperand a;
    uint64_t b;
    uint32_t columns, group;
    uint64_t hash;
};

struct ThreadProducts {
    // Groups committed so far; calls of a whole warpgroup so far.
    uint32_t group = 0, calls = 0;
    // Whether wgmma.fence was called since sums were last waited for; and in which group the last time, counted from one.
    bool fenced = false;
    uint32_t fenced_group = 0;
    std::vector<Pending> pending;
    std::vector<Reading> readings;
    // Chunks of shared memory whose copies have landed since the last fence of the async proxy.
    std::vector<uint32_t> landed;

    void clear();
};

// What products may know of 16 bytes of dynamic shared memory.
enum class Chunk : uint8_t { UNKNOWN, COPYING, LANDED, VISIBLE };

struct BlockProducts {
    unsigned char* shared = nullptr;
    uint32_t bytes = 0;
    std::vector<Chunk> chunks;
    // The calls of each warpgroup, in order: what its four warps have in common.
    std::vector<std::vector<uint64_t>> calls;
};

// Of the running thread, its block, and its warp's index: kept by schedule.cpp.
ThreadProducts& thread_products();
BlockProducts& block_products();
uint32_t warp_of_block();

// For the scheduler.
void begin_products(unsigned char* shared, uint32_t bytes, uint32_t threads);
void mark_copy(const void* dst, Chunk state);
// Fails if the thread ends with products that it has not waited for.
void end_products();

}  // namespace emulate
