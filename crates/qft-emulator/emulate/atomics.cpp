// Integer atomics.
#include "emulate.h"
#include "races.h"

namespace {

template <class T>
T* accessed(T* p) {
    emulate::access(p, sizeof *p, emulate::Access::ATOMIC);
    return p;
}

template <class T, class Better>
T choose(T* p, T v, Better better) {
    T old = __atomic_load_n(accessed(p), __ATOMIC_SEQ_CST);
    while (better(v, old) && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return old;
}

}  // namespace

int atomicAdd(int* p, int v) { return __atomic_fetch_add(accessed(p), v, __ATOMIC_SEQ_CST); }
uint32_t atomicAdd(uint32_t* p, uint32_t v) { return __atomic_fetch_add(accessed(p), v, __ATOMIC_SEQ_CST); }
unsigned long long atomicAdd(unsigned long long* p, unsigned long long v) {
    return __atomic_fetch_add(accessed(p), v, __ATOMIC_SEQ_CST);
}
uint32_t atomicOr(uint32_t* p, uint32_t v) { return __atomic_fetch_or(accessed(p), v, __ATOMIC_SEQ_CST); }
uint32_t atomicExch(uint32_t* p, uint32_t v) { return __atomic_exchange_n(accessed(p), v, __ATOMIC_SEQ_CST); }
uint32_t atomicCAS(uint32_t* p, uint32_t expected, uint32_t v) {
    __atomic_compare_exchange_n(accessed(p), &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
int atomicMax(int* p, int v) {
    return choose(p, v, [](int a, int b) { return a > b; });
}
int atomicMin(int* p, int v) {
    return choose(p, v, [](int a, int b) { return a < b; });
}
uint32_t atomicMax(uint32_t* p, uint32_t v) {
    return choose(p, v, [](uint32_t a, uint32_t b) { return a > b; });
}
uint32_t atomicMin(uint32_t* p, uint32_t v) {
    return choose(p, v, [](uint32_t a, uint32_t b) { return a < b; });
}
