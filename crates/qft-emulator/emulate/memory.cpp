// Memory between pages that cannot be touched.
#include "shadow.h"

#include <sys/mman.h>

// Maps `bytes` (whole pages) with `guard` bytes of such pages before and behind, for an allocation that starts at `before`
// of them. Null if there is no memory.
extern "C" unsigned char* qft_emulate_map(size_t bytes, size_t guard, size_t before) {
    void* all = mmap(nullptr, bytes + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    unsigned char* inner = static_cast<unsigned char*>(all) + guard;
    if (mprotect(inner, bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(all, bytes + 2 * guard);
        return nullptr;
    }
    const uintptr_t start = reinterpret_cast<uintptr_t>(inner);
    emulate::watch_device(start, bytes, start + before);
    return inner;
}

extern "C" void qft_emulate_unmap(unsigned char* inner, size_t bytes, size_t guard) {
    emulate::unwatch_device(reinterpret_cast<uintptr_t>(inner));
    munmap(inner - guard, bytes + 2 * guard);
}
