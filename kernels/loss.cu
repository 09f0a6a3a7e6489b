// Cross-entropy over blocks of the vocabulary: a running log-sum-exp, and the gradient of one block in place.
//
// Stats: max' = max(max, largest logit), sum' = sum * exp(max - max') + sum over columns of exp(logit - max').
// Gradient: logits = exp(logit - max) * (weight / sum), less `weight` at the target.
// Shapes: logits f32 [rows, cols], the columns `start`.. of the vocabulary; targets u32 [rows]; max, sum, target_logit
// f32 [rows]. Grid: one block a row.
// Numerics: f32, the exp of the CPU backend, sums in its 16 lanes: the CPU's bits. Deterministic. A NaN raises no
// maximum. CPU twin: crates/qft-autograd/src/cpu/loss.rs.
// Bound: the logits of one block, 8 MiB, come from L2 on cards that hold them: 4 bytes an element for stats, 8 for the
// gradient, and about 20 instructions.
#include "activation_rows.cuh"
#include "exp.cuh"

constexpr uint32_t LOSS_TILE = 2048;

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
loss_stats_f32(const float* __restrict__ logits, const uint32_t* __restrict__ targets, float* __restrict__ max,
               float* __restrict__ sum, float* __restrict__ target_logit, uint32_t start, uint32_t cols) {
    __shared__ float tile[LOSS_TILE];
    __shared__ float reduced[ROW_WARPS];
    const uint32_t row = blockIdx.x;
    const float* x = logits + static_cast<uint64_t>(row) * cols;
    const float old_max = start == 0 ? -INFINITY : max[row];
    const float old_sum = start == 0 ? 0.0f : sum[row];
    float largest = -INFINITY;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) largest = fmaxf(largest, x[i]);
    largest = block_max<ROW_WARPS>(largest, reduced);
    const float new_max = largest > old_max ? largest : old_max;
    // `reduced` is written again below.
    __syncthreads();
    const float block_sum = sum_row<LOSS_TILE>(
        cols, reduced, [&](uint32_t i, uint32_t to) { tile[to] = exp_f32(__fsub_rn(x[i], new_max)); },
        [&](float lane, uint32_t i) { return __fadd_rn(lane, tile[i]); });
    if (threadIdx.x == 0) {
        max[row] = new_max;
        sum[row] = __fmaf_rn(old_sum, exp_f32(__fsub_rn(old_max, new_max)), block_sum);
        const uint32_t target = targets[row];
        if (target >= start && target - start < cols) {
            target_logit[row] = x[target - start];
        } else if (start == 0) {
            target_logit[row] = 0.0f;
        }
    }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
loss_gradient_f32(float* __restrict__ logits, const uint32_t* __restrict__ targets, const float* __restrict__ max,
                  const float* __restrict__ sum, uint32_t start, uint32_t cols, float weight) {
    const uint32_t row = blockIdx.x;
    float* x = logits + static_cast<uint64_t>(row) * cols;
    const float row_max = max[row], factor = __fdiv_rn(weight, sum[row]);
    // Wraps to a column that does not exist where the target lies before the block.
    const uint32_t target = targets[row] - start;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < cols; i += ROW_THREADS) {
        const float p = __fmul_rn(exp_f32(__fsub_rn(x[i], row_max)), factor);
        x[i] = i == target ? __fsub_rn(p, weight) : p;
    }
}
