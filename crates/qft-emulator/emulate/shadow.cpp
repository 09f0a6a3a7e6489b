// Where the race check finds its memory of an address.
#include "shadow.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

namespace emulate {

namespace {

constexpr uint32_t PAGE_BITS = 12, LEAF_BITS = 18, ADDRESS_BITS = 48;
// A table of two levels: the shadow of each page of the address space.
using Leaf = std::atomic<Shadow*>;
std::atomic<Leaf*> root[size_t{1} << (ADDRESS_BITS - PAGE_BITS - LEAF_BITS)];

// Zeros that take memory where they are touched.
void* reserve(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fputs("no address space for the race check\n", stderr);
        abort();
    }
    return memory;
}

Leaf* leaf_of(uintptr_t address) {
    std::atomic<Leaf*>& entry = root[address >> (PAGE_BITS + LEAF_BITS)];
    if (Leaf* leaf = entry.load(std::memory_order_acquire)) return leaf;
    constexpr size_t BYTES = sizeof(Leaf) << LEAF_BITS;
    Leaf *fresh = static_cast<Leaf*>(reserve(BYTES)), *present = nullptr;
    if (entry.compare_exchange_strong(present, fresh)) return fresh;
    munmap(fresh, BYTES);
    return present;
}

Leaf& place_of(uintptr_t address) {
    return leaf_of(address)[address >> PAGE_BITS & ((uintptr_t{1} << LEAF_BITS) - 1)];
}

}  // namespace

Shadow::Shadow(uintptr_t start, size_t bytes, uintptr_t origin) : start(start), bytes(bytes), origin(origin) {
    if (bytes == 0) return;
    words = static_cast<Cell*>(reserve(word_count() * sizeof(Cell)));
    parts = static_cast<Cell*>(reserve(word_count() * WORD_BYTES * sizeof(Cell)));
}

Shadow::~Shadow() {
    if (bytes == 0) return;
    munmap(words, word_count() * sizeof(Cell));
    munmap(parts, word_count() * WORD_BYTES * sizeof(Cell));
}

Shadow* device_shadow(uintptr_t address) {
    if (address >> ADDRESS_BITS != 0) return nullptr;
    Leaf* leaf = root[address >> (PAGE_BITS + LEAF_BITS)].load(std::memory_order_acquire);
    if (!leaf) return nullptr;
    return leaf[address >> PAGE_BITS & ((uintptr_t{1} << LEAF_BITS) - 1)].load(std::memory_order_acquire);
}

void watch_device(uintptr_t start, size_t bytes, uintptr_t origin) {
    Shadow* shadow = new Shadow(start, bytes, origin);
    for (uintptr_t page = start; page < start + bytes; page += uintptr_t{1} << PAGE_BITS) {
        place_of(page).store(shadow, std::memory_order_release);
    }
}

void unwatch_device(uintptr_t start) {
    Shadow* shadow = device_shadow(start);
    for (uintptr_t page = start; page < start + shadow->bytes; page += uintptr_t{1} << PAGE_BITS) {
        place_of(page).store(nullptr, std::memory_order_release);
    }
    delete shadow;
}

}  // namespace emulate
