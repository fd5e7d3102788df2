// The check of every access to memory: inside what, written before, and by whom.
#include "machine.hpp"

namespace {

// Say where an address lies, for one that lies in nothing the kernel may touch.
[[noreturn]] void trap_outside(void* place, char* at, size_t size, const char* verb) {
    const Range* nearest = nullptr;
    size_t distance = SIZE_MAX;
    for (const Range& range : machine.ranges) {
        size_t away = at < range.begin ? range.begin - at : at >= range.end ? at - range.end + 1 : 0;
        if (away < distance) distance = away, nearest = &range;
    }
    if (nearest && distance <= 1 << 20) {
        long long offset = at - nearest->begin, length = nearest->end - nearest->begin;
        trap(place, "%s %zu bytes at byte %lld of argument %d, which has %lld", verb, size, offset, nearest->argument, length);
    }
    trap(place, "%s %zu bytes at an address that belongs to no argument", verb, size);
}

void check_shared(void* place, Shared& shared, char* at, size_t size, bool write) {
    if (at + size > shared.end) trap(place, "%s %zu bytes beyond shared memory", write ? "writes" : "reads", size);
    size_t offset = at - shared.begin;
    Fiber& me = *machine.current;
    if (!write)
        for (size_t i = offset; i < offset + size; i++)
            if (!shared.written[i]) trap(place, "reads shared memory that no thread has written");
    unsigned warp_epoch = machine.warps[me.warp].epoch;
    auto unordered = [&](unsigned other, unsigned epoch, unsigned other_warp_epoch) {
        if (other == NOBODY || other == me.number || epoch != machine.epoch) return false;
        if (other == MANY) return true;
        unsigned warp = other & LANES_OF ? other & ~LANES_OF : other / WARP;
        return warp != me.warp || other_warp_epoch == warp_epoch;
    };
    for (size_t w = offset / 4; w <= (offset + size - 1) / 4; w++) {
        SharedWord& word = shared.words[w];
        if (unordered(word.writer, word.writer_epoch, word.writer_warp_epoch))
            trap(place, "race in shared memory: %s what thread %u of the block wrote, with no barrier between",
                 write ? "overwrites" : "reads", word.writer);
        if (write && unordered(word.reader, word.reader_epoch, word.reader_warp_epoch)) {
            if (word.reader & LANES_OF)
                trap(place, "race in shared memory: overwrites what other threads read, with no barrier between");
            trap(place, "race in shared memory: overwrites what thread %u of the block read, with no barrier between",
                 word.reader);
        }
        if (write) {
            word.writer = me.number, word.writer_epoch = machine.epoch, word.writer_warp_epoch = warp_epoch;
        } else {
            if (!unordered(word.reader, word.reader_epoch, word.reader_warp_epoch))
                word.reader = me.number;
            else if (word.reader == (LANES_OF | me.warp) || word.reader / WARP == me.warp)
                word.reader = LANES_OF | me.warp;
            else
                word.reader = MANY;
            word.reader_epoch = machine.epoch, word.reader_warp_epoch = warp_epoch;
        }
    }
    if (write) memset(&shared.written[offset], 1, size);
}

void check_array(void* place, Range& range, char* at, size_t size, bool write, bool atomic) {
    const char* verb = write ? "writes" : "reads";
    if (at + size > range.end) trap_outside(place, at, size, verb);
    size_t offset = at - range.begin;
    if (range.written) {
        if (!write || atomic)
            for (size_t i = offset; i < offset + size; i++)
                if (!range.written[i])
                    trap(place, "reads byte %zu of argument %d, which nothing has written", i, range.argument);
        if (write) memset(range.written + offset, 1, size);
    }
    if (atomic) return;
    for (size_t w = offset / 4; w <= (offset + size - 1) / 4; w++) {
        ArrayWord& word = range.words[w];
        if (word.writer != NOBODY && word.writer != machine.block)
            trap(place, "race between blocks: %s byte %zu of argument %d, which block %u of the grid wrote", verb, w * 4,
                 range.argument, word.writer);
        if (!write) {
            word.reader = word.reader == NOBODY || word.reader == machine.block ? machine.block : MANY;
            continue;
        }
        if (word.reader != NOBODY && word.reader != machine.block)
            trap(place, "race between blocks: writes byte %zu of argument %d, which another block read", w * 4,
                 range.argument);
        word.writer = machine.block;
    }
}

void access(void* place, void* address, size_t size, bool write, bool atomic = false) {
    if (!machine.watching) return;
    char* at = (char*)address;
    Fiber& me = *machine.current;
    if (at >= me.stack && at < me.stack + STACK) return;
    for (Shared* shared : {&machine.fixed, &machine.dynamic})
        if (at >= shared->begin && at < shared->end) {
            if (!atomic) check_shared(place, *shared, at, size, write);
            return;
        }
    for (size_t i = 0, n = machine.ranges.size(); i < n; i++) {
        size_t which = (machine.last_range + i) % n;
        Range& range = machine.ranges[which];
        if (at >= range.begin && at < range.end) {
            machine.last_range = which;
            return check_array(place, range, at, size, write, atomic);
        }
    }
    if (at >= machine.image && at < machine.image_end) return;
    if (at >= machine.dynamic.end && at < machine.dynamic.begin + MOST_SHARED)
        trap(place, "%s %zu bytes beyond the %zu of dynamic shared memory", write ? "writes" : "reads", size,
             (size_t)(machine.dynamic.end - machine.dynamic.begin));
    trap_outside(place, at, size, write ? "writes" : "reads");
}

}  // namespace

#define HERE __builtin_return_address(0)
#define EMU_ACCESS(N)                                                                      \
    void __tsan_read##N(void* at) { access(HERE, at, N, false); }                          \
    void __tsan_write##N(void* at) { access(HERE, at, N, true); }                          \
    void __tsan_unaligned_read##N(void* at) { access(HERE, at, N, false); }                \
    void __tsan_unaligned_write##N(void* at) { access(HERE, at, N, true); }
extern "C" {
EMU_ACCESS(1) EMU_ACCESS(2) EMU_ACCESS(4) EMU_ACCESS(8) EMU_ACCESS(16)
void __tsan_read_range(void* at, size_t size) { access(HERE, at, size, false); }
void __tsan_write_range(void* at, size_t size) { access(HERE, at, size, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void emu_atomic(void* at, unsigned size) { access(HERE, at, size, true, true); }

// -fsanitize=bounds: an index past the end of an array whose length the compiler knows.
void __ubsan_handle_out_of_bounds(void*, uintptr_t index) {
    trap(HERE, "index %lld is outside of the array", (long long)(intptr_t)index);
}
}
