// Runs the threads of one block as fibers on one thread of the system.
//
// A warp runs until each of its lanes stands at the block's barrier or has ended. Warps take turns in an order that the
// seed shuffles, so that what depends on it shows as a wrong result under some seed. Found and reported, with kernel, block
// and thread: barriers and warp-wide calls that not all threads reach, accesses outside of device memory (by guard pages
// around each allocation), misaligned accesses and array bounds (by the compiler's checks, which trap), and reads of shared
// memory before the wait of the asynchronous copy that fills it. Races are found by races.cpp, what is wrong around products
// of warpgroups by warpgroup.cpp.
#include "races.h"
#include "warpgroup.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <utility>
#include <vector>

namespace emulate {

__thread Context context;

namespace {

constexpr size_t STACK_BYTES = 128 << 10;
constexpr size_t PAGE_BYTES = 4096;
// Behind dynamic shared memory: untouchable, and as much as a block could have asked for.
constexpr size_t GUARD_BYTES = 256 << 10;

enum class State : uint8_t { RUNNING, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };

struct Copy {
    void* dst;
    const void* src;
    uint32_t bytes, group;
    uint32_t read;  // The first bytes; the others become zero.
};

struct Fiber {
    void* stack_pointer;
    char* stack;
    uint3 index;
    uint32_t lane, warp;
    State state;
    uint32_t call, mask;
    uint32_t group;
    std::vector<Copy> copies;
    ThreadProducts products;
};

struct Warp {
    uint32_t parity;
    // The race check's stamp of the last barrier.
    uint64_t since;
    Deposits deposits[2];
};

// All that one thread of the system needs to run blocks.
struct Worker {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<char*> stacks;
    std::vector<uint32_t> order;
    unsigned char* dynamic_shared = nullptr;
    size_t dynamic_shared_bytes = 0;
    void (*call)(void* const*) = nullptr;
    void* const* arguments = nullptr;
    Fiber* current = nullptr;
    void* scheduler = nullptr;
    uint32_t barrier_sum = 0, barrier_result = 0;
    BlockProducts products;
    SharedShadows shadows;
    char message[384] = {0};

    ~Worker() {
        for (char* stack : stacks) munmap(stack, STACK_BYTES);
        if (dynamic_shared) munmap(dynamic_shared, dynamic_shared_bytes);
    }
};
thread_local Worker worker_storage;
// The storage above costs a check at each use; this pointer does not.
__thread Worker* worker = nullptr;

extern "C" void qft_emulate_switch(void** save, void* to);
#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".type qft_emulate_switch, @function\n"
    "qft_emulate_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
constexpr int SAVED = 6;
constexpr int RETURN = 6;
#elif defined(__aarch64__)
__asm__(
    ".text\n"
    ".type qft_emulate_switch, %function\n"
    "qft_emulate_switch:\n"
    " sub sp, sp, #160\n"
    " stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
    " stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    " stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
    " mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
    " ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
    " ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
    " ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
    " add sp, sp, #160\n ret\n");
constexpr int SAVED = 20;
constexpr int RETURN = 11;
#else
#error "the kernel emulator needs a stack switch for this processor"
#endif

void give_way(State state) {
    Worker* self = worker;
    self->current->state = state;
    qft_emulate_switch(&self->current->stack_pointer, self->scheduler);
}

void run_thread() {
    worker->call(worker->arguments);
    end_products();
    give_way(State::ENDED);
    abort();
}

void prepare(Fiber& fiber) {
    // The stack looks as if run_thread had been interrupted before its first instruction. Stacks begin at different
    // offsets within a page: the processor's cache would otherwise keep only a few of them at a time.
    const size_t offset = 64 + (fiber.index.x + 32 * fiber.index.y) % 32 * 192;
    void** top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES - offset);
    *--top = nullptr;
#if defined(__x86_64__)
    *--top = reinterpret_cast<void*>(run_thread);
    top -= SAVED;
#else
    --top;
    top -= SAVED;
    top[RETURN] = reinterpret_cast<void*>(run_thread);
#endif
    fiber.stack_pointer = top;
}

uint32_t next_random(uint64_t& seed) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(seed >> 33);
}

constexpr const char* TOO_MANY_BARRIERS = "more barriers than the race check can count";

bool describe(Worker& self, const char* what, const Fiber* fiber) {
    const uint3 block = context.block_index;
    if (fiber) {
        snprintf(self.message, sizeof self.message, "%s, in block (%u, %u, %u), thread (%u, %u, %u)", what, block.x, block.y,
                 block.z, fiber->index.x, fiber->index.y, fiber->index.z);
    } else {
        snprintf(self.message, sizeof self.message, "%s, in block (%u, %u, %u)", what, block.x, block.y, block.z);
    }
    return false;
}

// Lets a lane run until it gives way. False if it failed.
bool resume(Worker& self, Fiber& fiber) {
    if (!fiber.stack) {
        if (self.stacks.empty()) {
            void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (stack == MAP_FAILED) return describe(self, "no memory for a stack", nullptr);
            // A page that cannot be touched ends a kernel whose local arrays do not fit.
            mprotect(stack, PAGE_BYTES, PROT_NONE);
            self.stacks.push_back(static_cast<char*>(stack));
        }
        fiber.stack = self.stacks.back();
        self.stacks.pop_back();
        prepare(fiber);
    }
    self.current = &fiber;
    context.thread_index = fiber.index;
    context.lane = fiber.lane;
    viewer.warp = self.warps[fiber.warp].since;
    viewer.thread = static_cast<uint32_t>(&fiber - self.fibers.data());
    viewer.stack = reinterpret_cast<uintptr_t>(fiber.stack);
    qft_emulate_switch(&self.scheduler, fiber.stack_pointer);
    if (fiber.state == State::ENDED || self.message[0]) {
        // Threads without barriers share one stack, which stays in the cache.
        self.stacks.push_back(fiber.stack);
        fiber.stack = nullptr;
    }
    return self.message[0] == 0;
}

// Frees the lanes whose warp-wide call is complete. False if there are calls of which none is.
bool release(Worker& self, Warp& warp, Fiber* lanes, uint32_t count) {
    bool progress = false, waiting = false;
    uint32_t freed = 0, call = 0;
    for (uint32_t i = 0; i < count; ++i) {
        if (lanes[i].state != State::AT_WARP_BARRIER || (freed >> i & 1)) continue;
        waiting = true;
        const uint32_t present = count == 32 ? ~0u : (1u << count) - 1, mask = lanes[i].mask & present;
        bool complete = mask >> i & 1;
        for (uint32_t j = 0; j < count && complete; ++j) {
            if (!(mask >> j & 1)) continue;
            complete = lanes[j].state == State::AT_WARP_BARRIER && lanes[j].mask == lanes[i].mask && lanes[j].call == lanes[i].call;
        }
        if (complete) {
            freed |= mask;
            call = lanes[i].call;
            progress = true;
        }
    }
    for (uint32_t i = 0; i < count; ++i) {
        if (freed >> i & 1) lanes[i].state = State::RUNNING;
    }
    warp.parity ^= progress;
    // A __syncwarp is always of all lanes.
    if (progress && call == SYNC && (warp.since = next_stamp()) == 0) return describe(self, TOO_MANY_BARRIERS, nullptr);
    if (waiting && !progress) return describe(self, "a warp-wide call that not all lanes of its mask reach", nullptr);
    return true;
}

bool run_warp(Worker& self, Warp& warp, Fiber* lanes, uint32_t count, bool backwards) {
    for (;;) {
        for (uint32_t i = 0; i < count; ++i) {
            Fiber& fiber = lanes[backwards ? count - 1 - i : i];
            if (fiber.state == State::RUNNING && !resume(self, fiber)) return false;
        }
        if (!release(self, warp, lanes, count)) return false;
        bool running = false;
        for (uint32_t i = 0; i < count; ++i) running |= lanes[i].state == State::RUNNING;
        if (!running) return true;
    }
}

bool run_block(Worker& self, uint64_t seed) {
    const uint32_t threads = static_cast<uint32_t>(self.fibers.size()), warps = static_cast<uint32_t>(self.warps.size());
    for (;;) {
        for (uint32_t i = warps; i > 1; --i) std::swap(self.order[i - 1], self.order[next_random(seed) % i]);
        for (uint32_t w : self.order) {
            const uint32_t first = 32 * w, count = threads - first < 32 ? threads - first : 32;
            if (!run_warp(self, self.warps[w], &self.fibers[first], count, next_random(seed) & 1)) return false;
        }
        for (uint32_t w = 0; w < warps; ++w) {
            const Fiber& fiber = self.fibers[32 * w];
            if (fiber.products.calls != self.products.calls[w / 4].size()) {
                return describe(self, "a warpgroup-wide call that not all warps of the warpgroup reach", &fiber);
            }
        }
        uint32_t ended = 0;
        for (Fiber& fiber : self.fibers) ended += fiber.state == State::ENDED;
        if (ended == threads) return true;
        if (ended != 0) return describe(self, "a block barrier that not all threads reach", nullptr);
        for (Fiber& fiber : self.fibers) fiber.state = State::RUNNING;
        self.barrier_result = self.barrier_sum;
        self.barrier_sum = 0;
        if ((viewer.block = next_stamp()) == 0) return describe(self, TOO_MANY_BARRIERS, nullptr);
        for (Warp& warp : self.warps) warp.since = viewer.block;
    }
}

struct sigaction previous[3];
constexpr int SIGNALS[3] = {SIGSEGV, SIGBUS, SIGILL};

// A fault of a kernel ends the launch with a message; any other goes to whoever was there before.
void on_fault(int signal, siginfo_t* info, void*) {
    if (worker && worker->current) {
        char what[96];
        if (signal == SIGILL) snprintf(what, sizeof what, "a misaligned access, or an array index out of bounds");
        else snprintf(what, sizeof what, "access outside of device memory, address %p", info->si_addr);
        describe(*worker, what, worker->current);
        give_way(State::ENDED);
    }
    for (int i = 0; i < 3; ++i) {
        if (SIGNALS[i] == signal) sigaction(signal, &previous[i], nullptr);
    }
}

}  // namespace

uint32_t block_barrier(uint32_t value) {
    worker->barrier_sum += value;
    give_way(State::AT_BLOCK_BARRIER);
    return worker->barrier_result;
}

Deposits* warp_barrier(uint32_t call, uint32_t mask, const void* deposit, size_t bytes) {
    Fiber* fiber = worker->current;
    Warp& warp = worker->warps[fiber->warp];
    // Deposits alternate between two sets: those of the last call can still be read while those of the next are made.
    Deposits* deposits = &warp.deposits[warp.parity];
    if (bytes) memcpy(deposits->lanes[fiber->lane].bytes, deposit, bytes);
    deposits->computed = false;
    fiber->call = call;
    fiber->mask = mask;
    give_way(State::AT_WARP_BARRIER);
    return deposits;
}

ThreadProducts& thread_products() { return worker->current->products; }
BlockProducts& block_products() { return worker->products; }
uint32_t warp_of_block() { return worker->current->warp; }

void fail(const char* message) {
    describe(*worker, message, worker->current);
    give_way(State::ENDED);
    abort();
}

void copy_async(void* dst, const void* src, uint32_t bytes, uint32_t read) {
    if (read > bytes) fail("an asynchronous copy that reads more than it writes");
    if (reinterpret_cast<uintptr_t>(dst) % bytes != 0 || (read != 0 && reinterpret_cast<uintptr_t>(src) % bytes != 0)) {
        fail("a misaligned asynchronous copy");
    }
    access(src, read, Access::READ);
    begin_copy(dst, bytes);
    memset(dst, 0xC3, bytes);
    mark_copy(dst, Chunk::COPYING);
    worker->current->copies.push_back({dst, src, bytes, worker->current->group, read});
}

void copy_async_commit() { ++worker->current->group; }

void copy_async_wait(uint32_t pending) {
    Fiber* fiber = worker->current;
    size_t kept = 0;
    for (size_t i = 0; i < fiber->copies.size(); ++i) {
        const Copy copy = fiber->copies[i];
        // Group g is complete if at most `pending` committed groups are newer.
        if (copy.group + pending < fiber->group) {
            access(copy.src, copy.read, Access::READ);
            end_copy(copy.dst, copy.bytes);
            memcpy(copy.dst, copy.src, copy.read);
            memset(static_cast<unsigned char*>(copy.dst) + copy.read, 0, copy.bytes - copy.read);
            mark_copy(copy.dst, Chunk::LANDED);
        } else {
            fiber->copies[kept++] = copy;
        }
    }
    fiber->copies.resize(kept);
}

}  // namespace emulate

// Installs the fault handlers; called once.
extern "C" void qft_emulate_start() {
    using namespace emulate;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    // On the signal stack: a kernel's own may be what overflowed.
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &action, &previous[i]);
}

// Runs one block; `first_block` is a number for its launch's first one, see begin_block. Returns null, or what went wrong; the
// text lives until the thread's next call.
extern "C" const char* qft_emulate_block(void (*call)(void* const*), void* const* arguments, const uint32_t* grid,
                                         const uint32_t* block, const uint32_t* block_index, uint32_t shared_bytes,
                                         uint64_t first_block, uint64_t seed) {
    using namespace emulate;
    worker = &worker_storage;
    Worker& self = *worker;
    self.message[0] = 0;
    self.barrier_sum = 0;
    const size_t pages = (shared_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (self.dynamic_shared_bytes != pages + GUARD_BYTES) {
        if (self.dynamic_shared) munmap(self.dynamic_shared, self.dynamic_shared_bytes);
        self.dynamic_shared_bytes = pages + GUARD_BYTES;
        void* memory = mmap(nullptr, self.dynamic_shared_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            self.dynamic_shared = nullptr;
            self.dynamic_shared_bytes = 0;
            return "no memory for shared memory";
        }
        self.dynamic_shared = static_cast<unsigned char*>(memory);
        mprotect(self.dynamic_shared + pages, GUARD_BYTES, PROT_NONE);
    }
    // The array ends where the untouchable pages begin, as nearly as 16-byte alignment allows.
    context.dynamic_shared = self.dynamic_shared + (pages - (shared_bytes + 15) / 16 * 16);
    memset(context.dynamic_shared, 0xA5, shared_bytes);
    context.grid = {grid[0], grid[1], grid[2]};
    context.block = {block[0], block[1], block[2]};
    context.block_index = {block_index[0], block_index[1], block_index[2]};
    self.call = call;
    self.arguments = arguments;

    const uint32_t threads = block[0] * block[1] * block[2], warps = (threads + 31) / 32;
    for (Fiber& fiber : self.fibers) {
        if (fiber.stack) self.stacks.push_back(fiber.stack); // Left by a block that failed.
        fiber.stack = nullptr;
    }
    self.fibers.resize(threads);
    self.warps.resize(warps);
    self.order.resize(warps);
    const uint64_t index = block_index[0] + uint64_t{grid[0]} * (block_index[1] + uint64_t{grid[1]} * block_index[2]);
    begin_block(self.shadows, self.dynamic_shared, pages, context.dynamic_shared, first_block, index);
    viewer.stack_bytes = STACK_BYTES;
    for (uint32_t w = 0; w < warps; ++w) {
        self.order[w] = w;
        self.warps[w].parity = 0;
        self.warps[w].since = viewer.block;
    }
    for (uint32_t i = 0; i < threads; ++i) {
        Fiber& fiber = self.fibers[i];
        fiber.index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
        fiber.lane = i % 32;
        fiber.warp = i / 32;
        fiber.state = State::RUNNING;
        fiber.group = 0;
        fiber.copies.clear();
        fiber.products.clear();
    }
    begin_products(context.dynamic_shared, shared_bytes, threads);
    const bool good = run_block(self, seed);
    self.current = nullptr;
    return good ? nullptr : self.message;
}
