// Matrix loads from shared memory (layout: kernels/include/mma.cuh).
#include "emulate.h"
#include "races.h"

namespace {

using Rows = const unsigned char* [32];

// The rows of all lanes. Each row is read for other lanes as well.
void gather(const void* row, Rows& rows) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulate::fail("load_matrices: a row that is not 16-byte aligned");
    emulate::access(row, 16, emulate::Access::READ, emulate::By::WARP);
    const emulate::Slot* slots = emulate::warp_barrier(emulate::MATRICES, ~0u, &row, sizeof row)->lanes;
    for (uint32_t lane = 0; lane < 32; ++lane) memcpy(&rows[lane], slots[lane].bytes, sizeof row);
}

// The matrices are read by all lanes before any goes on.
void finish() { emulate::warp_barrier(emulate::MATRICES_READ, ~0u, nullptr, 0); }

}  // namespace

void load_matrices_x4(uint32_t (&r)[4], const void* row) {
    Rows rows;
    gather(row, rows);
    const uint32_t g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (uint32_t m = 0; m < 4; ++m) memcpy(&r[m], rows[8 * m + g] + 4 * t, 4);
    finish();
}

void load_matrices_x4_transposed(uint32_t (&r)[4], const void* row) {
    Rows rows;
    gather(row, rows);
    const uint32_t g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (uint32_t m = 0; m < 4; ++m) {
        uint16_t low, high;
        memcpy(&low, rows[8 * m + 2 * t] + 2 * g, 2);
        memcpy(&high, rows[8 * m + 2 * t + 1] + 2 * g, 2);
        r[m] = low | static_cast<uint32_t>(high) << 16;
    }
    finish();
}
