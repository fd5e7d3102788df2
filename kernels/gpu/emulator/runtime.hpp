// What a compiled kernel and the machine that runs it (machine.hpp) say to each other.
#pragma once
#include <stddef.h>

extern "C" {

struct emu_dim3 {
    unsigned x, y, z;
};

typedef void (*emu_body)(void* arguments);

// An array among the arguments; `written` has a byte for each of its bytes, or is null.
struct emu_array {
    void* begin;
    size_t size;
    void* written;
    int argument;
};

enum { EMU_FORWARD, EMU_BACKWARD, EMU_SHUFFLED };

struct emu_launch {
    emu_dim3 grid, block;
    size_t shared;  // bytes of dynamic shared memory
    int order;
    unsigned seed;
    emu_body body;
    void* arguments;
    void *shared_begin, *shared_end, *image, *image_end;
    const emu_array* array;
    unsigned arrays;
};

// Run a launch; 1, a message and the place in the image where it happened (0 for none) when it trapped.
int emu_run(const emu_launch* launch, char* message, size_t length, size_t* place);

// question: 0 how many said yes, 1 whether all did, 2 whether one did
int emu_barrier(int site, int line, int said, int question);
unsigned emu_warp(unsigned mask, const void* value, unsigned size, void* result, int source, int kind, int line, int said);
void emu_atomic(void* at, unsigned size);
void* emu_dynamic_shared();
[[noreturn]] void emu_fail(const char* what, int line);

// The same for a thread all its life: the compiler may call them once.
__attribute__((const)) unsigned emu_lane();
__attribute__((const)) emu_dim3 emu_thread_index();
__attribute__((const)) emu_dim3 emu_block_index();
__attribute__((const)) emu_dim3 emu_block_size();
__attribute__((const)) emu_dim3 emu_grid_size();
}
