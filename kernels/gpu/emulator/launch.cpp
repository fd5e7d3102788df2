// A launch: the blocks of a grid one after another, and the threads of a block in the order asked for.
#include "machine.hpp"

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
