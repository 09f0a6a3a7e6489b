// What the generated file behind each kernel source needs: an entry's parameter list, and a call from untyped arguments.
#pragma once
#include <cstdint>
#include <type_traits>
#include <utility>

namespace emulate {

// One letter per parameter: p pointer, l 64-bit integer, w 32-bit integer, f float.
template <class T>
constexpr char letter() {
    if constexpr (std::is_pointer_v<T>) return 'p';
    else if constexpr (std::is_same_v<T, float>) return 'f';
    else {
        static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "a kernel takes pointers, 32- and 64-bit integers and floats");
        return sizeof(T) == 8 ? 'l' : 'w';
    }
}

template <class... A>
const char* parameters(void (*)(A...)) {
    static constexpr char letters[] = {letter<A>()..., 0};
    return letters;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void* const* arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void* const* arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>{});
}

constexpr uint32_t first_bound(uint32_t threads, uint32_t = 0) { return threads; }

}  // namespace emulate

// `...` is what stands in __launch_bounds__.
#define QFT_EMULATE_ENTRY(name, ...)                                                                   \
    extern "C" void qft_emulate_call_##name(void* const* arguments) { emulate::call(name, arguments); } \
    extern "C" const char* qft_emulate_parameters_##name() { return emulate::parameters(name); }        \
    extern "C" uint32_t qft_emulate_threads_##name() { return emulate::first_bound(__VA_ARGS__); }
