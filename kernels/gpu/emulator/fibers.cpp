// Threads as fibers of one thread of the CPU: each has a stack, and runs until it gives way.
#include "machine.hpp"

namespace {

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

}  // namespace
