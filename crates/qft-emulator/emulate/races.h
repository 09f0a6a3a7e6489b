// The race check: reports accesses of different threads to the same memory that no barrier orders.
#pragma once
#include "shadow.h"

#include <memory>

namespace emulate {

enum class Access : uint8_t { READ, WRITE, ATOMIC };
// Whether one lane accesses, or, by one instruction, lanes of its warp that cannot be told apart.
enum class By : uint8_t { LANE, WARP };

// Of the instrumented kernels, and of what the emulator does for them. Fails if there is a race.
void access(const void* address, size_t bytes, Access kind, By by = By::LANE);
// A copy that writes `bytes` at `address` has been started, or has been waited for, by this thread. In between, nobody may
// access them.
void begin_copy(const void* address, size_t bytes);
void end_copy(const void* address, size_t bytes);

// The running thread, as the check sees it. Stamps are below `launch` if they are of an earlier launch, below `block` if a
// barrier of the block lies between, below `warp` if one of the warp does.
struct Viewer {
    uint64_t launch, block, warp, newest;
    uint32_t thread;
    uintptr_t stack;
    size_t stack_bytes;
    Shadow *dynamic_shared, *static_shared;
};
extern __thread Viewer viewer;

// The shadows of a system's thread that runs blocks.
struct SharedShadows {
    std::unique_ptr<Shadow> dynamic_memory, static_memory;
};

// For the scheduler: a block begins. `first_block` is the number of its launch's first block, `index` its own from there on;
// no other launch of the process has the same numbers. Dynamic shared memory begins at `shared` of these `pages`.
void begin_block(SharedShadows& shadows, const void* pages, size_t page_bytes, const void* shared, uint64_t first_block,
                 uint64_t index);
// A stamp behind all others of the block, from which a barrier counts. Zero if there have been too many.
uint64_t next_stamp();

}  // namespace emulate
