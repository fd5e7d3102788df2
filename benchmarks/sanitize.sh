#!/usr/bin/env bash
# A tiny training run on the GPU under compute-sanitizer: memcheck, racecheck and initcheck must find nothing.
# CuPy's memory pool is off, so that every array is a separate allocation to the tool.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v compute-sanitizer > /dev/null || {
  echo "compute-sanitizer is not on the PATH: it comes with the CUDA toolkit" >&2
  exit 1
}
program='
import cupy
cupy.cuda.set_allocator(None)
from minigan.gan import Config, Trainer
for data, model in (("ring", "mlp"), ("digits", "dcgan")):
    trainer = Trainer(Config(device="cuda", data=data, model=model, width=4, latent=4, batch_size=4))
    trainer._captured.reason = "every kernel is looked at by itself"
    for _ in range(3):
        found = trainer.step()
    print(model, trainer.metrics(found))
'
for tool in memcheck racecheck initcheck; do
  echo "== $tool"
  compute-sanitizer --tool "$tool" --error-exitcode 9 python -c "$program"
done
