"""One framework in a separate process: builds a workload, then runs the requested numbers of steps.

    python -m benchmarks.worker FRAMEWORK WORKLOAD VARIANT DEVICE PRECISION THREADS

Answers on standard output, one JSON object a line: first itself (version, seconds to import, build and first step),
then {"ms": …} for each number of steps read from standard input; {"peak_mib": …} of the device's memory, or of the
process's own with {"above_import_mib": …}, for "memory"; our own step's time by op for "profile N".
"""

import importlib
import json
import os
import sys
import time
from typing import NamedTuple


class Place(NamedTuple):
    """Where steps run: cpu, cuda or cuda-emulated, products in float32 or tf32, threads of the processor."""

    device: str
    precision: str
    threads: int


def say(**answer):
    print(json.dumps(answer), flush=True)


def resident(field):
    """Return a field of /proc/self/status in MiB: VmRSS, or VmHWM since the last reset."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def reset_peak():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


def timed(step, wait, steps):
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - began) / steps * 1e3


def main():
    framework, name, variant, device, precision, threads = sys.argv[1:]
    place = Place(device, precision, int(threads))
    if place.threads < len(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: place.threads])
    from benchmarks.workloads import find

    began = time.perf_counter()
    module = importlib.import_module(f"benchmarks.step_{framework}")
    imported, base = time.perf_counter() - began, resident("VmRSS")
    try:
        began = time.perf_counter()
        step, wait, *held = module.build(find(name), variant, place)
        first = timed(step, wait, 1) / 1e3
        ready = time.perf_counter() - began
        for _ in range(2):
            timed(step, wait, 1)
    except Exception as error:  # a variant that cannot do the workload says why
        say(error=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
        return
    say(version=module.version(), import_s=imported, first_step_s=first, ready_s=ready)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "memory" and held:
            say(peak_mib=held[0]())
        elif command == "memory":
            reset_peak()
            timed(step, wait, 3)
            say(peak_mib=resident("VmHWM"), above_import_mib=resident("VmHWM") - base)
        elif command == "profile":
            from benchmarks.profile import profile

            say(**profile(step, int(numbers[0])))
        else:
            say(ms=timed(step, wait, int(command)))


if __name__ == "__main__":
    main()
