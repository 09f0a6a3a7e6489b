// Memory between pages that cannot be touched.
#include <cstddef>
#include <sys/mman.h>

// Maps `bytes` (whole pages) with `guard` bytes of such pages before and behind. Null if there is no memory.
extern "C" unsigned char* qft_emulate_map(size_t bytes, size_t guard) {
    void* all = mmap(nullptr, bytes + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    unsigned char* inner = static_cast<unsigned char*>(all) + guard;
    if (mprotect(inner, bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(all, bytes + 2 * guard);
        return nullptr;
    }
    return inner;
}

extern "C" void qft_emulate_unmap(unsigned char* inner, size_t bytes, size_t guard) {
    munmap(inner - guard, bytes + 2 * guard);
}
