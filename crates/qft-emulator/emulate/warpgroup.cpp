// Products of a warpgroup, as the PTX ISA ("Asynchronous Warpgroup Level Matrix Instructions") has them.
//
// The operands are fetched through their descriptors, byte by byte as the swizzle of the address says. A product is computed
// when it is started; until its group is waited for, the sums' registers hold garbage, and what it read must not change,
// in shared memory and in registers.
// Found besides: descriptors that are misaligned or not of this kind of memory, operands whose asynchronous copy has not been
// waited for or not been made visible by a fence of the async proxy, products without wgmma.fence, also behind the loading
// of an operand in registers, which is taken to happen once a group, calls in which the four warps of a warpgroup differ (see schedule.cpp for those that some do not reach), threads that end without waiting. Not
// found: ordinary stores to shared memory without the fence of the async proxy.
#include "warpgroup.h"
#include "races.h"

namespace emulate {

namespace {

constexpr uint32_t CHUNK_BYTES = 16;
// Steps of k, which are bytes, of an INT8 instruction.
constexpr uint32_t K_BYTES = 32;
// Where dynamic shared memory begins. A GPU promises no more than the alignment of the array, 16 bytes, so neither is this
// a multiple of a larger one.
constexpr uint32_t SHARED_START = 1024 + 16;
constexpr int32_t GARBAGE = static_cast<int32_t>(0xC3C3C3C3);

// A matrix of `rows` x 32 bytes in shared memory.
struct Matrix {
    uint32_t start, leading, stride, base_offset, swizzle;

    explicit Matrix(uint64_t descriptor)
        : start(static_cast<uint32_t>(descriptor & 0x3FFF) * 16),
          leading(static_cast<uint32_t>(descriptor >> 16 & 0x3FFF) * 16),
          stride(static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) * 16),
          base_offset(static_cast<uint32_t>(descriptor >> 49 & 7)),
          swizzle(static_cast<uint32_t>(descriptor >> 62)) {
        if (base_offset != 0) fail("a matrix descriptor with a base offset, which is not emulated");
        // The swizzle repeats after eight rows of `width` bytes, and within a row only k advances.
        const uint32_t width = row_bytes();
        if (swizzle != 0 && start % (8 * width) >= width) {
            fail("a matrix descriptor whose swizzle does not begin at its alignment");
        }
        if (swizzle != 0 && start % width + K_BYTES > width) fail("a matrix descriptor whose rows do not fit its swizzle");
    }

    // 1: 128 bytes, 2: 64 bytes, 3: 32 bytes; without a swizzle, core matrices of 8 x 16 bytes lie on their own.
    uint32_t row_bytes() const { return swizzle == 0 ? CHUNK_BYTES : 256 >> swizzle; }

    // The shared address of chunk `chunk` (0 or 1) of row `row`.
    uint32_t address(uint32_t row, uint32_t chunk) const {
        const uint32_t across = swizzle == 0 ? chunk * leading : chunk * CHUNK_BYTES;
        const uint32_t linear = start + row / 8 * stride + row % 8 * row_bytes() + across;
        // As many address bits from bit 4 on as a row has chunks are exchanged with those from bit 7 on.
        const uint32_t bits = row_bytes() / CHUNK_BYTES - 1;
        return linear ^ (linear >> 7 & bits) << 4;
    }
};

const unsigned char* at(uint32_t address) {
    const BlockProducts& block = block_products();
    const uint32_t offset = address - SHARED_START;
    if (address < SHARED_START || offset + CHUNK_BYTES > block.bytes) {
        fail("a matrix descriptor that reaches outside of dynamic shared memory");
    }
    switch (block.chunks[offset / CHUNK_BYTES]) {
        case Chunk::COPYING: fail("a product of a tile before the wait of the asynchronous copy that fills it");
        case Chunk::LANDED: fail("a product of a tile that was copied without a fence of the async proxy behind it");
        default: break;
    }
    access(block.shared + offset, CHUNK_BYTES, Access::READ, By::WARP);
    return block.shared + offset;
}

void fetch(const Matrix& matrix, uint32_t row, int8_t* bytes) {
    for (uint32_t chunk = 0; chunk < 2; ++chunk) {
        memcpy(bytes + chunk * CHUNK_BYTES, at(matrix.address(row, chunk)), CHUNK_BYTES);
    }
}

// Of 16 bytes that a product reads.
uint64_t hash_chunk(uint64_t hash, const void* bytes) {
    uint64_t words[2];
    memcpy(words, bytes, sizeof words);
    hash = (hash ^ words[0]) * 0x9E3779B97F4A7C15u;
    return (hash ^ words[1] ^ hash >> 32) * 0x9E3779B97F4A7C15u;
}

// Of the bytes that a part of a product reads: a thread's registers, and for the first lane the warp's shared memory. A
// copy that has been started over them has already changed them.
uint64_t hash_operands(const FirstOperand& a, uint64_t b, uint32_t columns, uint32_t first_row) {
    const BlockProducts& block = block_products();
    uint64_t hash = 0;
    const auto add = [&](const Matrix& matrix, uint32_t row) {
        for (uint32_t chunk = 0; chunk < 2; ++chunk) {
            hash = hash_chunk(hash, block.shared + (matrix.address(row, chunk) - SHARED_START));
        }
    };
    if (a.registers) hash = hash_chunk(hash, a.registers);
    if (lane() != 0) return hash;
    if (!a.registers) {
        const Matrix first(a.descriptor);
        for (uint32_t row = 0; row < 16; ++row) add(first, first_row + row);
    }
    const Matrix second(b);
    for (uint32_t row = 0; row < columns; ++row) add(second, row);
    return hash;
}

// What a thread deposits for a product of its warpgroup.
struct Operands {
    uint64_t b;
    union {
        uint64_t a;
        uint32_t registers[4];
    };
};

// The warp's rows of the first operand.
void fetch_first(const Deposits& deposits, bool in_registers, uint32_t first_row, int8_t (&a)[16][K_BYTES]) {
    if (in_registers) {
        for (uint32_t lane = 0; lane < 32; ++lane) {
            Operands operands;
            memcpy(&operands, deposits.lanes[lane].bytes, sizeof operands);
            for (uint32_t i = 0; i < 4; ++i) {
                memcpy(a[lane / 4 + i % 2 * 8] + i / 2 * 16 + lane % 4 * 4, &operands.registers[i], sizeof(uint32_t));
            }
        }
    } else {
        Operands operands;
        memcpy(&operands, deposits.lanes[0].bytes, sizeof operands);
        const Matrix first(operands.a);
        for (uint32_t row = 0; row < 16; ++row) fetch(first, first_row + row, a[row]);
    }
}

void multiply(Deposits* deposits, bool in_registers, uint32_t columns, uint32_t first_row) {
    // Each thread has registers of its own.
    const size_t common = in_registers ? sizeof(uint64_t) : 2 * sizeof(uint64_t);
    for (uint32_t lane = 1; lane < 32; ++lane) {
        if (memcmp(deposits->lanes[0].bytes, deposits->lanes[lane].bytes, common) != 0) {
            fail("a product whose matrix descriptors differ between threads");
        }
    }
    uint64_t b_descriptor;
    memcpy(&b_descriptor, deposits->lanes[0].bytes, sizeof b_descriptor);
    const Matrix second(b_descriptor);
    int8_t a[16][K_BYTES];
    fetch_first(*deposits, in_registers, first_row, a);
    for (uint32_t column = 0; column < columns; ++column) {
        int8_t b[K_BYTES];
        fetch(second, column, b);
        for (uint32_t row = 0; row < 16; ++row) {
            int32_t sum = 0;
            for (uint32_t k = 0; k < K_BYTES; ++k) sum += static_cast<int32_t>(a[row][k]) * b[k];
            deposits->wide_products[row][column] = sum;
        }
    }
    deposits->computed = true;
}

uint32_t first_row() { return warp_of_block() % 4 * 16; }

// Notes a call of the whole warp; all warps of a warpgroup must make the same ones.
void note(Call call, uint64_t detail) {
    ThreadProducts& thread = thread_products();
    if (context.block.x * context.block.y * context.block.z < warp_of_block() / 4 * 128 + 128) {
        fail("a warpgroup-wide call of less than four warps");
    }
    if (lane() == 0) {
        std::vector<uint64_t>& calls = block_products().calls[warp_of_block() / 4];
        const uint64_t entry = (detail ^ call) * 0x9E3779B97F4A7C15u ^ detail >> 32;
        if (thread.calls == calls.size()) calls.push_back(entry);
        if (calls[thread.calls] != entry) fail("a warpgroup-wide call in which its warps differ");
    }
    ++thread.calls;
}

}  // namespace

void ThreadProducts::clear() {
    group = calls = fenced_group = 0;
    fenced = false;
    pending.clear();
    readings.clear();
    landed.clear();
}

void begin_products(unsigned char* shared, uint32_t bytes, uint32_t threads) {
    BlockProducts& block = block_products();
    block.shared = shared;
    block.bytes = bytes;
    block.chunks.assign((bytes + CHUNK_BYTES - 1) / CHUNK_BYTES, Chunk::UNKNOWN);
    block.calls.assign((threads + 127) / 128, {});
}

void mark_copy(const void* dst, Chunk state) {
    BlockProducts& block = block_products();
    const size_t offset = static_cast<size_t>(static_cast<const unsigned char*>(dst) - block.shared);
    if (offset >= block.bytes) return;
    const uint32_t chunk = static_cast<uint32_t>(offset / CHUNK_BYTES);
    block.chunks[chunk] = state;
    if (state == Chunk::LANDED) thread_products().landed.push_back(chunk);
}

void end_products() {
    if (!thread_products().pending.empty()) fail("a thread that ends before it has waited for a product");
}

uint32_t shared_address(const void* pointer) {
    const BlockProducts& block = block_products();
    const size_t offset = static_cast<size_t>(static_cast<const unsigned char*>(pointer) - block.shared);
    if (offset > block.bytes) fail("the shared address of what is not in dynamic shared memory");
    return SHARED_START + static_cast<uint32_t>(offset);
}

void fence_async_proxy() {
    BlockProducts& block = block_products();
    for (uint32_t chunk : thread_products().landed) {
        if (block.chunks[chunk] == Chunk::LANDED) block.chunks[chunk] = Chunk::VISIBLE;
    }
    thread_products().landed.clear();
}

void wgmma_fence() {
    warp_barrier(WGMMA_FENCE, ~0u, nullptr, 0);
    note(WGMMA_FENCE, 0);
    thread_products().fenced = true;
    thread_products().fenced_group = thread_products().group + 1;
}

namespace {

void start_product(int32_t* sums, uint32_t columns, const FirstOperand& a, uint64_t b) {
    Operands operands = {b, {}};
    if (a.registers) memcpy(operands.registers, a.registers, sizeof operands.registers);
    else operands.a = a.descriptor;
    Deposits* deposits = warp_barrier(WGMMA_S8, ~0u, &operands, sizeof operands);
    if (!deposits->computed) multiply(deposits, a.registers != nullptr, columns, first_row());
    note(WGMMA_S8, a.descriptor * 31 + b);

    ThreadProducts& thread = thread_products();
    if (a.registers && thread.fenced_group != thread.group + 1) {
        fail("a product without wgmma.fence behind the loading of its registers");
    }
    const uint32_t count = columns / 2;
    Pending* pending = nullptr;
    for (Pending& other : thread.pending) {
        if (other.registers == sums) pending = &other;
    }
    if (!pending) {
        // Products on the same sums are ordered among themselves; anything else needs the fence.
        if (!thread.fenced) fail("a product without wgmma.fence behind the last use of its sums");
        thread.pending.push_back({sums, count, thread.group, {}});
        pending = &thread.pending.back();
        memcpy(pending->sums.data(), sums, count * sizeof *sums);
        for (uint32_t i = 0; i < count; ++i) sums[i] = GARBAGE;
    }
    pending->group = thread.group;
    const uint32_t g = lane() / 4, t = lane() % 4;
    for (uint32_t i = 0; i < count; ++i) {
        const int32_t product = deposits->wide_products[g + i / 2 % 2 * 8][i / 4 * 8 + 2 * t + i % 2];
        pending->sums[i] = static_cast<int32_t>(static_cast<uint32_t>(pending->sums[i]) + static_cast<uint32_t>(product));
    }
    if (lane() == 0 || a.registers) {
        thread.readings.push_back({a, b, columns, thread.group, hash_operands(a, b, columns, first_row())});
    }
}

}  // namespace

void wgmma_s8_k32(int32_t* sums, uint32_t columns, uint64_t a, uint64_t b) { start_product(sums, columns, {a, nullptr}, b); }

void wgmma_s8_k32(int32_t* sums, uint32_t columns, const uint32_t (&a)[4], uint64_t b) {
    start_product(sums, columns, {0, a}, b);
}

void wgmma_commit() {
    warp_barrier(WGMMA_COMMIT, ~0u, nullptr, 0);
    note(WGMMA_COMMIT, 0);
    ++thread_products().group;
}

void wgmma_wait(uint32_t pending) {
    warp_barrier(WGMMA_WAIT, ~0u, nullptr, 0);
    note(WGMMA_WAIT, pending);
    ThreadProducts& thread = thread_products();
    // Group g is complete if at most `pending` committed groups are newer.
    const auto complete = [&](uint32_t group) { return group + pending < thread.group; };
    size_t kept = 0;
    for (size_t i = 0; i < thread.readings.size(); ++i) {
        const Reading reading = thread.readings[i];
        if (!complete(reading.group)) {
            thread.readings[kept++] = reading;
        } else if (hash_operands(reading.a, reading.b, reading.columns, first_row()) != reading.hash) {
            fail("shared memory or registers that are overwritten while a product reads them");
        }
    }
    thread.readings.resize(kept);
    kept = 0;
    for (size_t i = 0; i < thread.pending.size(); ++i) {
        const Pending& sums = thread.pending[i];
        if (!complete(sums.group)) {
            if (kept != i) thread.pending[kept] = sums;
            ++kept;
            continue;
        }
        for (uint32_t j = 0; j < sums.count; ++j) {
            if (sums.registers[j] != GARBAGE) fail("sums that are written while a product computes them");
        }
        memcpy(sums.registers, sums.sums.data(), sums.count * sizeof(int32_t));
        thread.fenced = false;
    }
    thread.pending.resize(kept);
}

}  // namespace emulate
