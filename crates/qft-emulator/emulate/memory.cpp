// Memory between two pages that cannot be touched.
#include <cstddef>
#include <sys/mman.h>

// Maps `bytes` (whole pages) with such a page before and behind. Null if there is no memory.
extern "C" unsigned char* qft_emulate_map(size_t bytes, size_t page) {
    void* all = mmap(nullptr, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    unsigned char* inner = static_cast<unsigned char*>(all) + page;
    if (mprotect(inner, bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(all, bytes + 2 * page);
        return nullptr;
    }
    return inner;
}

extern "C" void qft_emulate_unmap(unsigned char* inner, size_t bytes, size_t page) {
    munmap(inner - page, bytes + 2 * page);
}
