// Where threads wait for one another: the barrier of a block, and the collectives of a warp.
#include "machine.hpp"

namespace {

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
