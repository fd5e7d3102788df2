"""The CPU's side of the kernels: compiled loop nests, the threads that share them, and the tiles of products.

The path of one call, ``kernels.matmul(x, w)`` of two float32 matrices:

    dispatch.Kernel.__call__         x is NumPy's: take the implementation of the backend in use
        │
    matmul._matmul, product          check, make y, choose how many units of work there are
        │
    units.Units.__call__             find (start, address) by the dtype; compile both on the first call
        │
    ────┼─ Python ends ────────────────────────────────────────────────────────────────────────────────
        │
    units.launch                     give each thread a share of the units
        │
        ├─ little work ──────────┐
    pool._lead opens a job       │
        ├───────────┐            │
        │      pool._help        │   threads that are awake come in; this one waits for none that is not
        │           │            │
      share 0    share 1, …    all shares
        └───────────┴────────────┤
                                 │
    matmul._product_units(unit)      pack a block of A and B: packing.gather, packing.pack
        │
    tile.multiply                    walk the block of C, tile by tile
        │
    tile.tile                        TILE_ROWS × 2 vectors of C stay in registers while k is walked
"""
