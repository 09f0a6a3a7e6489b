// Wide channels: the few columns of an activation that carry a second INT8 digit (crates/qft-tensor/src/wide.rs). Such a
// channel stands for (q + 128 * high) * scale.
#pragma once
#include "common.cuh"

// Places for wide channels; what a unit of the second digit is worth in units of the first; an unused place.
constexpr uint32_t WIDE = 8;
constexpr int32_t WIDE_RADIX = 128;
constexpr uint32_t NO_CHANNEL = 0xffffffffu;

// The second digits of an activation of `rows` rows; `high` is null where an operand has none.
struct WideDigits {
    const int8_t* high;        // [rows, WIDE]
    uint64_t stride;           // Elements between two rows of `high`.
    const uint32_t* channels;  // [WIDE], rising, then NO_CHANNEL.

    // The same for all threads of a grid: channels are chosen on the device, so the host cannot know.
    __device__ __forceinline__ bool any() const { return high != nullptr && channels[0] != NO_CHANNEL; }
};
