// What is a race, and what is not.
//
// Two accesses to the same byte by different threads are a race unless both read, both are atomic, or one happens before the
// other: both in one block with one of its barriers between, or both in one warp with a __syncwarp between. Nothing else
// orders memory: shuffles, votes, matrix loads and products do not, and between the blocks of a launch nothing does.
//
// A stamp says who accessed and when. A word keeps two: of its last write, and of the reads and atomic operations of those
// who are still unordered with each other. That is enough to find every race of the order in which threads run here: what
// an access replaces happens before it, and so before everything that is ordered behind it.
#pragma once
#include "races.h"

namespace emulate {

// A stamp: the block's number in the process, the time in its block (a count of barriers), of the accesses since the last
// barrier of the block and since that of the warp whether there were reads and atomic operations, by how many, and by which
// thread (of several the last).
constexpr uint32_t BREADTH_SHIFT = 10, WARP_KINDS_SHIFT = 12, KINDS_SHIFT = 14, TIME_SHIFT = 16, BLOCK_SHIFT = 34;
constexpr uint64_t THREAD_MASK = 1023, BREADTH_MASK = uint64_t{3} << BREADTH_SHIFT, KINDS_MASK = 3;
constexpr uint64_t READ_KIND = 1, ATOMIC_KIND = 2;
// Of reads and atomic operations: by one thread, lanes of a warp, warps of a block, blocks of a launch.
enum Breadth : uint64_t { ONE, LANES, WARPS, BLOCKS };
// Of a write: a copy that is under way.
constexpr uint64_t COPYING = BLOCKS;
// In place of a write: the word's bytes differ, see the parts.
constexpr uint64_t PARTED = ~uint64_t{0};

inline uint64_t breadth(uint64_t stamp) { return (stamp & BREADTH_MASK) >> BREADTH_SHIFT; }
inline uint64_t widened(uint64_t stamp, uint64_t to) { return (stamp & ~BREADTH_MASK) | to << BREADTH_SHIFT; }
inline uint64_t kinds(uint64_t stamp) { return stamp >> KINDS_SHIFT & KINDS_MASK; }
inline uint64_t warp_kinds(uint64_t stamp) { return stamp >> WARP_KINDS_SHIFT & KINDS_MASK; }
inline uint64_t both_kinds(uint64_t kind) { return kind << KINDS_SHIFT | kind << WARP_KINDS_SHIFT; }
inline bool same_block(uint64_t stamp, const Viewer& me) { return stamp >> BLOCK_SHIFT == me.block >> BLOCK_SHIFT; }
inline bool same_warp(uint64_t stamp, const Viewer& me) { return ((stamp ^ me.thread) & THREAD_MASK) < 32; }

// An access that is not ordered before this one.
enum class Earlier : uint32_t { NONE, READ, ATOMIC, WRITE, COPY };
struct Conflict {
    uint64_t stamp = 0;
    Earlier what = Earlier::NONE;

    explicit operator bool() const { return what != Earlier::NONE; }
};

// What a cell knows, seen by the running thread. Shared memory begins anew with each block, device memory with each launch.
template <bool SHARED>
struct Rules {
    const Viewer& me;
    By by;

    bool forgotten(uint64_t stamp) const { return SHARED ? !same_block(stamp, me) : stamp < me.launch; }

    // Whether everything the stamp stands for happens before the access of this thread, or is its own.
    bool ordered(uint64_t stamp) const {
        if (forgotten(stamp)) return true;
        if (breadth(stamp) == BLOCKS || !same_block(stamp, me)) return false;
        if (stamp < me.block) return true;
        if (breadth(stamp) == WARPS || !same_warp(stamp, me)) return false;
        if (stamp < me.warp) return true;
        return breadth(stamp) == ONE && (stamp & THREAD_MASK) == me.thread && by == By::LANE;
    }

    Conflict with_write(uint64_t stamp) const {
        if (ordered(stamp)) return {};
        return {stamp, SHARED && breadth(stamp) == COPYING ? Earlier::COPY : Earlier::WRITE};
    }

    static Earlier earlier(uint64_t kinds) { return kinds & ATOMIC_KIND ? Earlier::ATOMIC : Earlier::READ; }

    Conflict write(Cell& cell) const {
        const uint64_t own = me.warp | me.thread;
        if (cell.write == own) return {};
        if (const Conflict conflict = with_write(cell.write)) return conflict;
        if (!ordered(cell.others)) return {cell.others, earlier(kinds(cell.others))};
        cell.write = own;
        return {};
    }

    // A read or an atomic operation.
    Conflict other(Cell& cell, uint64_t kind) const {
        const uint64_t own = widened(me.warp | me.thread | both_kinds(kind), by == By::WARP ? LANES : ONE);
        const uint64_t before = cell.others;
        if (before == own) return {};
        if (const Conflict conflict = with_write(cell.write)) return conflict;
        // What is not ordered before this access, and what is left to remember.
        uint64_t unordered, now;
        const uint64_t all = own | kinds(before) << KINDS_SHIFT;
        if (forgotten(before)) {
            unordered = 0, now = own;
        } else if (breadth(before) == BLOCKS || !same_block(before, me)) {
            unordered = kinds(before), now = widened((before > own ? before : own) | both_kinds(unordered | kind), BLOCKS);
        } else if (before < me.block) {
            unordered = 0, now = own;
        } else if (breadth(before) == WARPS || !same_warp(before, me)) {
            unordered = kinds(before), now = widened(all, WARPS);
        } else if (before < me.warp) {
            unordered = 0, now = all;
        } else if (ordered(before)) {
            unordered = 0, now = before | own;
        } else {
            unordered = warp_kinds(before), now = widened(all | unordered << WARP_KINDS_SHIFT, LANES);
        }
        if (unordered & ~kind) return {before, earlier(unordered)};
        cell.others = now;
        if (forgotten(cell.write)) cell.write = 0;
        return {};
    }

    Conflict one(Cell& cell, Access kind) const {
        return kind == Access::WRITE ? write(cell) : other(cell, kind == Access::READ ? READ_KIND : ATOMIC_KIND);
    }

    Conflict all(Shadow& shadow, size_t offset, size_t bytes, Access kind) const {
        constexpr size_t WORD = Shadow::WORD_BYTES;
        for (const size_t end = offset + bytes; offset < end;) {
            Cell& word = shadow.words[offset / WORD];
            Cell* parts = shadow.parts + offset / WORD * WORD;
            const bool whole = offset % WORD == 0 && end - offset >= WORD;
            if (whole && word.write != PARTED) {
                if (const Conflict conflict = one(word, kind)) return conflict;
                offset += WORD;
                continue;
            }
            if (word.write != PARTED) {
                for (size_t i = 0; i < WORD; ++i) parts[i] = word;
                word.write = PARTED;
            }
            do {
                if (const Conflict conflict = one(parts[offset % WORD], kind)) return conflict;
            } while (++offset < end && offset % WORD != 0);
            if (!whole) continue;
            // The bytes have a common past again: reads before a write no longer matter.
            bool alike = kind == Access::WRITE;
            if (alike) parts[0].others = 0;
            else alike = same(parts[0], parts[1]) && same(parts[0], parts[2]) && same(parts[0], parts[3]);
            if (alike) word = parts[0];
        }
        return {};
    }

    static bool same(const Cell& a, const Cell& b) { return a.write == b.write && a.others == b.others; }
};

}  // namespace emulate
