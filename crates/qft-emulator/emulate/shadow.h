// What the race check remembers of memory: for each word, and for each byte of words that are accessed in parts, who
// accessed it last.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emulate {

// Stamps of the last write, and of the reads and atomic operations since: races.cpp. Zero is nobody.
struct Cell {
    uint64_t write, others;
};

// Cells of a stretch of memory that begins at a multiple of WORD_BYTES.
struct Shadow {
    static constexpr size_t WORD_BYTES = 4;

    uintptr_t start = 0;
    size_t bytes = 0;
    // Of device memory: where the allocation starts.
    uintptr_t origin = 0;
    Cell* words = nullptr;
    // Four to each word. Pages of either that are not used take no memory.
    Cell* parts = nullptr;

    Shadow(uintptr_t start, size_t bytes, uintptr_t origin);
    ~Shadow();
    Shadow(const Shadow&) = delete;
    Shadow& operator=(const Shadow&) = delete;

    bool contains(uintptr_t address) const { return address - start < bytes; }
    size_t word_count() const { return (bytes + WORD_BYTES - 1) / WORD_BYTES; }
};

// The shadow of the device memory around an address, or null if it is not device memory.
Shadow* device_shadow(uintptr_t address);

// Begins and ends to watch pages of device memory.
void watch_device(uintptr_t start, size_t bytes, uintptr_t origin);
void unwatch_device(uintptr_t start);

}  // namespace emulate
