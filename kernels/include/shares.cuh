// Sums over the rows of a matrix: of fixed blocks of rows first, then of these shares in order.
#pragma once
#include "common.cuh"

constexpr uint32_t SHARE_THREADS = 128;  // Of a block, a column each.
constexpr uint32_t SHARE_ROWS = 64;
