// The race check: accesses of threads are compared with what the shadow of their memory remembers, by the rules of
// race_rules.h.
#include "emulate.h"
#include "race_rules.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <link.h>

namespace emulate {

__thread Viewer viewer;

namespace {

// Blocks run at the same time: a lock for every 64 bytes of device memory, and for those that share it.
constexpr size_t LOCKED_BYTES = 64;
struct Lock {
    std::atomic<bool>& taken;

    explicit Lock(uintptr_t address) : taken(all()[address / LOCKED_BYTES % COUNT]) {
        while (taken.exchange(true, std::memory_order_acquire)) {}
    }
    ~Lock() { taken.store(false, std::memory_order_release); }

    static constexpr size_t COUNT = 4096;
    static std::atomic<bool>* all() {
        static std::atomic<bool> locks[COUNT];
        return locks;
    }
};

[[noreturn]] __attribute__((noinline)) void report(const Conflict& conflict, const Shadow& shadow, uintptr_t address,
                                                   size_t bytes, Access kind) {
    constexpr const char* OWN[] = {"a read", "a write", "an atomic operation"};
    constexpr const char* EARLIER[] = {"", "a read", "an atomic operation", "a write", "an asynchronous copy under way"};
    // Of several, the last one is named.
    constexpr const char* OTHERS[] = {"", ", and other lanes of its warp", ", and other warps of its block",
                                      ", and other blocks"};
    const bool alone = conflict.what == Earlier::WRITE || conflict.what == Earlier::COPY;
    const uint3 size = context.block, grid = context.grid;
    const uint32_t thread = static_cast<uint32_t>(conflict.stamp & THREAD_MASK);
    const uint32_t block = static_cast<uint32_t>((conflict.stamp - viewer.launch) >> BLOCK_SHIFT);
    char where[64] = "dynamic shared memory", message[320];
    if (&shadow == viewer.static_shared) {
        snprintf(where, sizeof where, "the static shared memory of all kernels");
    } else if (&shadow != viewer.dynamic_shared) {
        snprintf(where, sizeof where, "the allocation at %#zx", static_cast<size_t>(shadow.origin));
    }
    snprintf(message, sizeof message,
             "a race: %s of %zu bytes at byte %zu of %s, with %s by thread (%u, %u, %u) of block (%u, %u, %u)%s",
             OWN[static_cast<size_t>(kind)], bytes, static_cast<size_t>(address - shadow.origin), where,
             EARLIER[static_cast<size_t>(conflict.what)], thread % size.x, thread / size.x % size.y, thread / size.x / size.y,
             block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y,
             alone ? "" : OTHERS[breadth(conflict.stamp)]);
    fail(message);
}

template <bool SHARED>
__attribute__((always_inline)) inline void check(Shadow& shadow, uintptr_t address, size_t bytes, Access kind, By by) {
    const Rules<SHARED> rules{viewer, by};
    Conflict conflict;
    if (SHARED) {
        conflict = rules.all(shadow, address - shadow.start, bytes, kind);
    } else {
        for (size_t done = 0; done < bytes && !conflict;) {
            const size_t left = bytes - done, to_next = LOCKED_BYTES - (address + done) % LOCKED_BYTES;
            const size_t part = left < to_next ? left : to_next;
            Lock lock(address + done);
            conflict = rules.all(shadow, address + done - shadow.start, part, kind);
            done += part;
        }
    }
    if (conflict) report(conflict, shadow, address, bytes, kind);
}

// The part of a thread's own memory where `static __thread` variables lie: __shared__ ones of kernels, and others.
int find_own_memory(dl_phdr_info* info, size_t, void* found) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_TLS || !info->dlpi_tls_data) continue;
        const uintptr_t start = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
        if (reinterpret_cast<uintptr_t>(&context) - start >= segment.p_memsz) continue;
        static_cast<std::unique_ptr<Shadow>*>(found)->reset(new Shadow(start, segment.p_memsz, start));
        return 1;
    }
    return 0;
}

Shadow* shared_shadow(uintptr_t address) {
    const Viewer& me = viewer;
    if (me.dynamic_shared->contains(address)) return me.dynamic_shared;
    return me.static_shared->contains(address) ? me.static_shared : nullptr;
}

void mark_copy(const void* pointer, size_t bytes, uint64_t state) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    Shadow* shadow = shared_shadow(address);
    if (!shadow) fail("an asynchronous copy to what is not shared memory");
    // Copies are of whole words.
    for (size_t i = 0; i < bytes; i += Shadow::WORD_BYTES) {
        Cell& word = shadow->words[(address - shadow->start + i) / Shadow::WORD_BYTES];
        word = {widened(viewer.warp | viewer.thread, state), 0};
    }
}

// Compiled for each size by itself.
__attribute__((always_inline)) inline void touch(const void* pointer, size_t bytes, Access kind, By by) {
    const Viewer& me = viewer;
    const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    if (address - me.stack < me.stack_bytes || address - reinterpret_cast<uintptr_t>(&context) < sizeof context) return;
    if (Shadow* shared = shared_shadow(address)) {
        check<true>(*shared, address, bytes, kind, by);
    } else if (Shadow* shadow = device_shadow(address)) {
        check<false>(*shadow, address, bytes, kind, by);
    }
}

}  // namespace

void access(const void* address, size_t bytes, Access kind, By by) { touch(address, bytes, kind, by); }

void begin_copy(const void* address, size_t bytes) {
    access(address, bytes, Access::WRITE);
    mark_copy(address, bytes, COPYING);
}

void end_copy(const void* address, size_t bytes) { mark_copy(address, bytes, ONE); }

void begin_block(SharedShadows& shadows, const void* pages, size_t page_bytes, const void* shared, uint64_t first_block,
                 uint64_t index) {
    if (!shadows.static_memory) dl_iterate_phdr(find_own_memory, &shadows.static_memory);
    const uintptr_t start = reinterpret_cast<uintptr_t>(pages);
    std::unique_ptr<Shadow>& dynamic_memory = shadows.dynamic_memory;
    if (!dynamic_memory || dynamic_memory->start != start || dynamic_memory->bytes != page_bytes) {
        dynamic_memory.reset(new Shadow(start, page_bytes, start));
    }
    dynamic_memory->origin = reinterpret_cast<uintptr_t>(shared);
    viewer = {};
    viewer.launch = first_block << BLOCK_SHIFT;
    viewer.block = viewer.warp = viewer.newest = (first_block + index) << BLOCK_SHIFT;
    viewer.dynamic_shared = dynamic_memory.get();
    viewer.static_shared = shadows.static_memory.get();
}

uint64_t next_stamp() {
    viewer.newest += uint64_t{1} << TIME_SHIFT;
    return same_block(viewer.newest, viewer) ? viewer.newest : 0;
}

}  // namespace emulate

// What compilers call under -fsanitize=thread, for the kernels are compiled so: before each read and write of memory. Their
// runtime library is not linked.
extern "C" {
using emulate::touch;
using emulate::Access;
using emulate::By;

#define SIZE(n)                                                                       \
    void __tsan_read##n(void* p) { touch(p, n, Access::READ, By::LANE); }             \
    void __tsan_write##n(void* p) { touch(p, n, Access::WRITE, By::LANE); }           \
    void __tsan_unaligned_read##n(void* p) { touch(p, n, Access::READ, By::LANE); }   \
    void __tsan_unaligned_write##n(void* p) { touch(p, n, Access::WRITE, By::LANE); }
SIZE(1)
SIZE(2)
SIZE(4)
SIZE(8)
SIZE(16)

void __tsan_read_range(void* p, size_t bytes) { emulate::access(p, bytes, Access::READ); }
void __tsan_write_range(void* p, size_t bytes) { emulate::access(p, bytes, Access::WRITE); }

void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    emulate::access(from, bytes, Access::READ);
    emulate::access(to, bytes, Access::WRITE);
    return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    emulate::access(from, bytes, Access::READ);
    emulate::access(to, bytes, Access::WRITE);
    return memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
    emulate::access(to, bytes, Access::WRITE);
    return memset(to, value, bytes);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
