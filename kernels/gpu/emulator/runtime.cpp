// The machine that emulated kernels run on: threads as fibers, barriers, warps, and a check of every access to memory.
//
// Blocks run one after another; the threads of a block are fibers of one thread of the CPU, which give way only at
// barriers, at warp collectives and at their end. Between those points threads run in an order that the caller chooses,
// and since no order is promised by CUDA, a right kernel gives the same result in all of them.
//
// Kernels are compiled with -fsanitize=thread, which calls access() below before each load and store but those of a
// thread's own variables. (Its library is not linked: only the calls are wanted.) So every byte that a kernel touches is
// known, and held to this:
//
//   array       inside an argument; written before it is read; a word that one block writes, no other block touches
//   shared      inside the block's shared memory; written before it is read; two threads that touch one word, one of
//               them writing, have a barrier between them (__syncwarp counts within a warp)
//   anything    else but the thread's own stack and the module's constants is an error
//
// A trap ends the launch: its message is kept, and the fibers are left where they are (kernels own nothing to free).

#include "runtime.hpp"

#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#define FIBERS_BY_UCONTEXT 1
#endif

namespace {

constexpr size_t STACK = 128 * 1024;
constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr unsigned NOBODY = 0xFFFFFFFF, MANY = 0xFFFFFFFE, LANES_OF = 0x80000000;  // LANES_OF | w: several lanes of warp w
constexpr size_t MOST_SHARED = 227 * 1024;

enum State : uint8_t { READY, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
    char* stack = nullptr;
    void* pointer = nullptr;  // the stack pointer while it waits
    emu_dim3 index{};
    unsigned number = 0, lane = 0, warp = 0;
    State state = DONE;
    int line = 0;               // of the barrier or collective where it waits
    int source = 0;             // the lane whose value a shuffle wants
    unsigned verdict = 0;       // what a vote found
    alignas(16) unsigned char given[16], got[16];
#ifdef FIBERS_BY_UCONTEXT
    ucontext_t context;
#endif
};

// Lanes of a warp that wait for one another in a collective.
struct Meeting {
    unsigned mask = 0, arrived = 0, yes = 0;
    int kind = 0;
};

struct Warp {
    Meeting meetings[4];
    unsigned alive = 0, lanes = WARP, epoch = 0;  // epoch: the collectives of the whole warp so far
};

// Who touched a word of shared memory last, and when.
struct SharedWord {
    unsigned writer = NOBODY, writer_epoch = 0, writer_warp_epoch = 0;
    unsigned reader = NOBODY, reader_epoch = 0, reader_warp_epoch = 0;
};

// Which blocks touched a word of an array in this launch.
struct ArrayWord {
    unsigned writer = NOBODY, reader = NOBODY;
};

struct Range {
    char *begin, *end;
    unsigned char* written;  // a byte for every byte of the array, not 0 once it was written; null: all was
    int argument;
    std::vector<ArrayWord> words;
};

struct Shared {
    char *begin = nullptr, *end = nullptr;
    std::vector<unsigned char> written;
    std::vector<SharedWord> words;

    void cover(char* from, char* to) {
        begin = from, end = to;
        written.resize(to - from), words.resize((to - from + 3) / 4);
    }
    void clear() {
        if (begin == end) return;
        memset(begin, 0xFF, end - begin);
        memset(written.data(), 0, written.size());
        for (SharedWord& word : words) word = SharedWord{};
    }
};

struct Machine {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    char* stacks = nullptr;
    size_t stack_count = 0;
    Fiber* current = nullptr;
    void* scheduler = nullptr;  // the scheduler's stack pointer while a fiber runs
#ifdef FIBERS_BY_UCONTEXT
    ucontext_t scheduler_context;
#endif
    emu_dim3 block_index{}, block_size{}, grid_size{};
    unsigned threads = 0, alive = 0, block = 0;
    // the barrier: who waits, where, and what they said
    unsigned waiting = 0, epoch = 0, count = 0, said_count = 0;
    int barrier_site = 0, barrier_line = 0, every = 1, some = 0, said_every = 1, said_some = 0;
    Shared fixed, dynamic;
    std::vector<char> dynamic_memory;
    std::vector<Range> ranges;
    size_t last_range = 0;
    char *image = nullptr, *image_end = nullptr;
    bool watching = false;  // a kernel's code runs, rather than the machine's
    emu_body body = nullptr;
    void* arguments = nullptr;
    std::string error;
    void* error_place = nullptr;
    uint64_t switches = 0;
} machine;

// --- fibers ----------------------------------------------------------------------------------------------------------

#ifndef FIBERS_BY_UCONTEXT
extern "C" void emu_switch(void** save, void* to) __attribute__((visibility("hidden")));
asm(R"(
.text
.hidden emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

void give_way() {
    Fiber* me = machine.current;
    machine.switches++;
    machine.watching = false;
#ifdef FIBERS_BY_UCONTEXT
    swapcontext(&me->context, &machine.scheduler_context);
#else
    emu_switch(&me->pointer, machine.scheduler);
#endif
    machine.watching = true;
}

void resume(Fiber& fiber) {
    machine.current = &fiber;
    machine.watching = true;
#ifdef FIBERS_BY_UCONTEXT
    swapcontext(&machine.scheduler_context, &fiber.context);
#else
    emu_switch(&machine.scheduler, fiber.pointer);
#endif
    machine.watching = false;
}

[[noreturn]] void trap(void* place, const char* format, ...) {
    machine.watching = false;
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    machine.error = text;
    machine.error_place = place;
    give_way();
    abort();
}

void finish_meeting(Warp& warp, Meeting& meeting, unsigned base);
void open_barrier();

void run_fiber() {
    machine.body(machine.arguments);
    Fiber& me = *machine.current;
    Warp& warp = machine.warps[me.warp];
    me.state = DONE;
    machine.alive--;
    warp.alive &= ~(1u << me.lane);
    // a barrier waits for the threads that have not ended
    if (machine.waiting && machine.waiting == machine.alive) open_barrier();
    for (Meeting& meeting : warp.meetings)
        if (meeting.arrived && meeting.arrived == (meeting.mask & warp.alive)) finish_meeting(warp, meeting, me.warp * WARP);
    give_way();
    abort();
}

void prepare(Fiber& fiber) {
#ifdef FIBERS_BY_UCONTEXT
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
#else
    void** top = (void**)(((uintptr_t)fiber.stack + STACK) & ~(uintptr_t)15);
    *--top = nullptr;  // where run_fiber would return to
    *--top = (void*)&run_fiber;
    for (int i = 0; i < 6; i++) *--top = nullptr;  // the registers that emu_switch takes back
    fiber.pointer = top;
#endif
    fiber.state = READY;
}

// --- barriers and warps ----------------------------------------------------------------------------------------------

void open_barrier() {
    machine.said_count = machine.count, machine.said_every = machine.every, machine.said_some = machine.some;
    machine.count = 0, machine.every = 1, machine.some = 0;
    machine.waiting = 0, machine.barrier_line = 0;
    machine.epoch++;
    for (unsigned i = 0; i < machine.threads; i++)
        if (machine.fibers[i].state == AT_BARRIER) machine.fibers[i].state = READY;
}

// Give each lane the value of the lane it asked for; poison where that lane did not take part.
void finish_meeting(Warp& warp, Meeting& meeting, unsigned base) {
    for (unsigned i = 0; i < warp.lanes; i++) {
        if (!(meeting.arrived >> i & 1)) continue;
        Fiber& fiber = machine.fibers[base + i];
        bool there = fiber.source >= 0 && fiber.source < 32 && (meeting.arrived >> fiber.source & 1);
        if (there)
            memcpy(fiber.got, machine.fibers[base + fiber.source].given, sizeof fiber.got);
        else
            memset(fiber.got, 0xFF, sizeof fiber.got);
        fiber.verdict = meeting.yes;
        if (fiber.state == IN_WARP) fiber.state = READY;
    }
    if ((meeting.arrived & warp.alive) == warp.alive) warp.epoch++;
    meeting = Meeting{};
}

}  // namespace

extern "C" {

int emu_barrier(int site, int line, int said, int question) {
    if (machine.waiting && machine.barrier_site != site)
        trap(nullptr, "divergent barrier: line %d, while other threads wait at another one in line %d", line,
             machine.barrier_line);
    machine.barrier_site = site, machine.barrier_line = line;
    machine.count += said != 0, machine.every &= said != 0, machine.some |= said != 0;
    machine.current->line = line;
    machine.current->state = AT_BARRIER;
    if (++machine.waiting == machine.alive) {
        open_barrier();
        machine.current->state = READY;
    } else {
        give_way();
    }
    return question == 0 ? (int)machine.said_count : question == 1 ? machine.said_every : machine.said_some;
}

unsigned emu_warp(unsigned mask, const void* value, unsigned size, void* result, int source, int kind, int line, int said) {
    Fiber& me = *machine.current;
    Warp& warp = machine.warps[me.warp];
    bool watched = machine.watching;
    machine.watching = false;
    if (warp.lanes < WARP) mask &= (1u << warp.lanes) - 1;
    if (!(mask >> me.lane & 1)) trap(nullptr, "warp collective in line %d: the calling lane is not in its own mask", line);
    Meeting* place = nullptr;
    for (Meeting& meeting : warp.meetings)
        if (meeting.arrived && (meeting.mask & mask)) {
            if (meeting.mask != mask || meeting.kind != kind)
                trap(nullptr, "divergent warp collective in line %d: lanes disagree about the mask or the operation", line);
            place = &meeting;
        }
    for (Meeting& meeting : warp.meetings)
        if (!place && !meeting.arrived) {
            place = &meeting;
            *place = Meeting{mask, 0, 0, kind};
        }
    if (!place) trap(nullptr, "more than 4 groups of one warp wait in collectives at once");
    if (value) memcpy(me.given, value, size);
    me.source = source, me.line = line;
    place->arrived |= 1u << me.lane;
    if (said) place->yes |= 1u << me.lane;
    if (place->arrived == (place->mask & warp.alive)) {
        finish_meeting(warp, *place, me.warp * WARP);
    } else {
        me.state = IN_WARP;
        give_way();
    }
    if (result && source >= 0) memcpy(result, me.got, size);
    machine.watching = watched;
    return me.verdict;
}

unsigned emu_lane() { return machine.current->lane; }
emu_dim3 emu_thread_index() { return machine.current->index; }
emu_dim3 emu_block_index() { return machine.block_index; }
emu_dim3 emu_block_size() { return machine.block_size; }
emu_dim3 emu_grid_size() { return machine.grid_size; }
void* emu_dynamic_shared() { return machine.dynamic.begin; }
void emu_fail(const char* what, int line) { trap(nullptr, "%s in line %d", what, line); }

}  // extern "C"

// --- the check of every access ---------------------------------------------------------------------------------------

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

// --- launching -------------------------------------------------------------------------------------------------------

namespace {

void run_block(int order, unsigned& random) {
    machine.alive = machine.threads;
    machine.waiting = machine.epoch = machine.count = 0;
    machine.every = 1, machine.some = 0, machine.barrier_line = 0;
    machine.fixed.clear(), machine.dynamic.clear();
    unsigned warps = machine.warps.size();
    for (unsigned i = 0; i < warps; i++) {
        Warp& warp = machine.warps[i];
        warp = Warp{};
        warp.lanes = i + 1 == warps ? machine.threads - i * WARP : WARP;
        warp.alive = warp.lanes == WARP ? ~0u : (1u << warp.lanes) - 1;
    }
    for (unsigned i = 0; i < machine.threads; i++) prepare(machine.fibers[i]);
    while (machine.alive) {
        bool moved = false;
        unsigned shift = 0;
        if (order == EMU_SHUFFLED) {
            random = random * 1664525u + 1013904223u;
            shift = random >> 16;
        }
        for (unsigned k = 0; k < warps; k++) {
            unsigned w = order == EMU_BACKWARD ? warps - 1 - k : (k + shift) % warps;
            unsigned lanes = machine.warps[w].lanes;
            for (bool again = true; again;) {
                again = false;
                for (unsigned j = 0; j < lanes; j++) {
                    unsigned lane = order == EMU_BACKWARD ? lanes - 1 - j : (j + shift) % lanes;
                    Fiber& fiber = machine.fibers[w * WARP + lane];
                    if (fiber.state != READY) continue;
                    resume(fiber);
                    if (!machine.error.empty()) return;
                    moved = again = true;
                }
            }
        }
        if (moved) continue;
        char text[512];
        int n = snprintf(text, sizeof text, "deadlock: %u of %u threads never go on;", machine.alive, machine.threads);
        unsigned shown = 0;
        for (unsigned i = 0; i < machine.threads && shown < 3; i++) {
            Fiber& fiber = machine.fibers[i];
            if (fiber.state == DONE) continue;
            n += snprintf(text + n, sizeof text - n, " thread %u waits in line %d at a %s;", i, fiber.line,
                          fiber.state == AT_BARRIER ? "barrier" : "warp collective");
            shown++;
        }
        text[n - 1] = 0;
        machine.error = text;
        machine.current = nullptr;
        return;
    }
}

const char* bad_launch(const emu_launch& launch) {
    auto [gx, gy, gz] = launch.grid;
    auto [bx, by, bz] = launch.block;
    uint64_t threads = (uint64_t)bx * by * bz;
    if (!threads || threads > MOST_THREADS || bz > 64) return "invalid launch: a block has 1 to 1,024 threads, at most 64 along z";
    if (!gx || !gy || !gz || gx > 2147483647u || gy > 65535 || gz > 65535)
        return "invalid launch: a grid has at least 1 and at most 2,147,483,647 × 65,535 × 65,535 blocks";
    if (launch.shared > MOST_SHARED) return "invalid launch: a block has at most 227 KiB of shared memory";
    return nullptr;
}

}  // namespace

extern "C" int emu_run(const emu_launch* launch, char* message, size_t length, size_t* place) {
    machine.error.clear();
    machine.error_place = nullptr;
    machine.current = nullptr;
    if (const char* reason = bad_launch(*launch)) {
        snprintf(message, length, "%s", reason);
        *place = 0;
        return 1;
    }
    machine.grid_size = launch->grid, machine.block_size = launch->block;
    machine.threads = launch->block.x * launch->block.y * launch->block.z;
    machine.body = launch->body, machine.arguments = launch->arguments;
    machine.image = (char*)launch->image, machine.image_end = (char*)launch->image_end;
    if (machine.stack_count < machine.threads) {
        if (machine.stacks) munmap(machine.stacks, machine.stack_count * STACK);
        machine.stack_count = machine.threads;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        machine.stacks = (char*)mmap(nullptr, machine.stack_count * STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    machine.fibers.resize(machine.threads);
    machine.warps.resize((machine.threads + WARP - 1) / WARP);
    for (unsigned i = 0; i < machine.threads; i++) {
        Fiber& fiber = machine.fibers[i];
        fiber.stack = machine.stacks + i * STACK;
        fiber.number = i, fiber.lane = i % WARP, fiber.warp = i / WARP;
        fiber.index = {i % launch->block.x, i / launch->block.x % launch->block.y,
                       i / launch->block.x / launch->block.y};
    }
    machine.fixed.cover((char*)launch->shared_begin, (char*)launch->shared_end);
    machine.dynamic_memory.resize(MOST_SHARED + 16);  // all of it, so that what lies beyond the launch's part is known
    char* aligned = (char*)(((uintptr_t)machine.dynamic_memory.data() + 15) & ~(uintptr_t)15);
    machine.dynamic.cover(aligned, aligned + launch->shared);
    machine.ranges.clear();
    machine.last_range = 0;
    for (unsigned i = 0; i < launch->arrays; i++) {
        const emu_array& array = launch->array[i];
        char* begin = (char*)array.begin;
        machine.ranges.push_back({begin, begin + array.size, (unsigned char*)array.written, array.argument, {}});
        machine.ranges.back().words.resize((array.size + 3) / 4);
    }
    uint64_t blocks = (uint64_t)launch->grid.x * launch->grid.y * launch->grid.z;
    unsigned random = launch->seed;
    for (uint64_t k = 0; k < blocks && machine.error.empty(); k++) {
        uint64_t b = launch->order == EMU_BACKWARD ? blocks - 1 - k : k;
        machine.block = (unsigned)b;
        machine.block_index = {(unsigned)(b % launch->grid.x), (unsigned)(b / launch->grid.x % launch->grid.y),
                               (unsigned)(b / launch->grid.x / launch->grid.y)};
        run_block(launch->order, random);
    }
    if (machine.error.empty()) return 0;
    emu_dim3 b = machine.block_index;
    if (machine.current) {
        emu_dim3 t = machine.current->index;
        snprintf(message, length, "thread (%u, %u, %u) of block (%u, %u, %u): %s", t.x, t.y, t.z, b.x, b.y, b.z,
                 machine.error.c_str());
    } else {
        snprintf(message, length, "block (%u, %u, %u): %s", b.x, b.y, b.z, machine.error.c_str());
    }
    *place = machine.error_place ? (size_t)((char*)machine.error_place - machine.image) : 0;
    return 1;
}
