// Rotation of rows: in place, x <- x R, and on the way to INT8 with one scale a row, to nearest.
//
// Shapes: x f32 [rows, cols] with a stride; q i8 [rows, cols], dense; scale f32 [rows]. Grid: to INT8 a
// block of 256 threads per row; in place a block per row, of a warp for each 512 columns, 8 at most.
// Numerics: sums and exact halvings in a fixed order: the bits of the CPU. CPU twin: crates/qft-tensor/src/rotation.rs.
// Bound: memory, 8 bytes an element, 5 to INT8; a thread's 16 loads are under way together.
#include "activation_rows.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rotate_rows_f32(float* __restrict__ x, uint64_t stride, uint32_t cols) {
    float* const row = x + blockIdx.x * stride;
    walk_rotated(cols, [&](uint32_t i) { return row[i]; }, [&](uint32_t i, float v) { row[i] = v; });
}

// Dynamic shared memory: `cols` floats if `staged`, else none.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rotate_quantize_rows_f32_i8(const float* __restrict__ x, uint64_t stride, int8_t* __restrict__ q, float* __restrict__ scale,
                            uint32_t cols, uint32_t staged) {
    DYN_SHARED(float, turned);
    __shared__ float reduced[ROW_WARPS];
    const float* const row = x + blockIdx.x * stride;
    quantize_row(cols, true, staged ? turned : nullptr, reduced, q + static_cast<uint64_t>(blockIdx.x) * cols, scale + blockIdx.x,
                 [&](uint32_t i) { return row[i]; });
}
