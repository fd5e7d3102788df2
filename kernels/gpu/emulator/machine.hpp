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
//
// The files of the machine are compiled as one: machine.hpp says what they share, fibers.cpp switches between threads,
// meetings.cpp is barriers and warps, access.cpp checks every access, launch.cpp runs the blocks of a grid.
#pragma once
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

// fibers.cpp
void give_way();
void resume(Fiber& fiber);
void prepare(Fiber& fiber);
[[noreturn]] void trap(void* place, const char* format, ...);
// meetings.cpp
void open_barrier();
void finish_meeting(Warp& warp, Meeting& meeting, unsigned base);

}  // namespace
