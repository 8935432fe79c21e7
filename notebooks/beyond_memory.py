# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3

# %% [markdown]
# # Pools beyond memory, and beyond one device
#
# A pool of 200,000 prompts with 8 completions of 64 numbers each is 205 MB in float16; of 2,000 numbers, 6.4 GB. It need
# not be in memory, nor on one device. Where the features lie is the business of a *source*, and the design is the same:
#
# | the features are | pass | memory a call takes besides |
# |---|---|---|
# | in memory, on one device | `CompletionPool(features)` | a few numbers a prompt, scratch for one chunk |
# | divided over the prompts on the devices of a mesh | `CompletionPool(features)` as they lie, or `sharded_source(pool, mesh, axis)` | the same, divided |
# | in a `.npy`, `.safetensors`, `.parquet`, `.arrow` or `.feather` file | `streamed_source(path)` | two chunks, a few numbers a prompt |
# | made anew where they are needed | `streamed_source(function, prompts=P)` | the same |
# | anywhere else | a [source of your own](extending.ipynb) | as you write it |
#
# Which functions take which:
#
# | | in memory | divided | read or made |
# |---|---|---|---|
# | `optimize`, `evaluate`, `policy_target`, `second_moment` | yes | yes | yes |
# | `select_pairs`, `label_curve`, `restrict_to_range` | yes | yes | yes |
# | `greedy`, inside of `jit` | yes | [yes](sharded_training.ipynb) | no |
# | `low_rank_design` | yes | yes, gathered | no |

# %%
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import jaxdesign as jd
from jaxdesign.pricing import sharded_source, streamed_source
from jaxdesign.solvers import low_rank_design

sys.path.insert(0, "..")  # bench, which measures memory, is in the checkout and not in the package
from bench.measure import anonymous_bytes, anonymous_peak

jax.config.update("jax_num_cpu_devices", 4)  # virtual devices, for the pool that is divided; not for real ones
files = tempfile.TemporaryDirectory()  # removed when the page is closed
folder = Path(files.name)

# %% [markdown]
# ## A pool in a file
#
# The file is written a piece at a time, as a forward pass over many prompts would: the whole is never in memory. Real
# embeddings have a few large directions and completions of very different lengths; so have these.

# %%
PROMPTS, COMPLETIONS, DIM = 200_000, 8, 64
AT_A_TIME = 10_000
SCALES = np.geomspace(3.0, 0.3, DIM)


def made(start, stop):
    """Features of some prompts, in pieces of AT_A_TIME."""
    rng = np.random.default_rng(start // AT_A_TIME)
    rows = rng.standard_normal((AT_A_TIME, COMPLETIONS, DIM), np.float32) * SCALES
    rows *= np.exp(rng.standard_normal((AT_A_TIME, COMPLETIONS, 1)) / 2)
    return rows[: stop - start].astype(np.float16)


path = folder / "features.npy"
file = np.lib.format.open_memmap(path, "w+", np.float16, (PROMPTS, COMPLETIONS, DIM))
for start in range(0, PROMPTS, AT_A_TIME):
    file[start : start + AT_A_TIME] = made(start, start + AT_A_TIME)
file.flush()
print(f"{path.stat().st_size / 1e6:.0f} MB, {PROMPTS * COMPLETIONS * (COMPLETIONS - 1) // 2:,} pairs")

# %% [markdown]
# ## The best design for it
#
# `streamed_source` opens the file and checks shapes; the first sweep checks values, and says at which prompt a NaN is.
# While a chunk is worked on the next one is read, so that reading costs time only where a disk is slower than the work.
# Memory below is anonymous memory, what a process must have: pages of a mapped file are there only as long as nothing
# else needs the room.

# %%
budget = jd.Budget(5000, per_pair=1, per_prompt=2)
source = streamed_source(path)


def solve(pool, **options):
    return jd.optimize(pool, jd.LogDet(), budget, tol=1e-6, **options)


solve(source)  # compiles: some 20 s, and memory that the compiler keeps
began, before = time.perf_counter(), anonymous_bytes()
design, peak = anonymous_peak(lambda: solve(source))
print(f"{time.perf_counter() - began:.1f} s, {design.passes} passes. {design.status}")
print(f"{design.certificate.efficiency:.7f} of the best possible, over all pairs")
print(f"memory: {(peak - before) / 1e6:.0f} MB more than before; in float32 the features are {4 * file.size / 1e6:.0f}")

# %% [markdown]
# `tests/pricing/test_streamed_memory.py` holds memory to two chunks, a hundred bytes or so a prompt and what a problem of
# that size takes anywhere. The same pool in memory gives the same pairs, and labels to the last bit or nearly:


# %%
def compared(found, expected):
    same = found.pairs.shape == expected.pairs.shape and bool((found.pairs == expected.pairs).all())
    if not same:
        return "other pairs"
    return f"the same {len(found.pairs)} pairs, labels within {np.abs(found.labels - expected.labels).max():.0e}"


print("from the file and in memory:", compared(design, solve(jd.CompletionPool(np.load(path)))))
print("in chunks of 1,000 prompts: ", compared(design, solve(streamed_source(path, chunk=1000))))

# %% [markdown]
# ## Other files, and no file
#
# - `.safetensors`: one tensor of the file, mapped to memory, bfloat16 too. Most are written by
#   `safetensors.numpy.save_file`; the cell below does without: the length of a header, the header in JSON, the numbers.
# - `.parquet`, `.arrow`, `.feather`: a column of one row a prompt, a list of K lists of d numbers, or one flat list and
#   `completions=K`. Reading needs `pip install 'jaxdesign[data]'`. Of Parquet whole row groups are decoded, for a few
#   pairs too: write small ones, and float16 without a dictionary, which is decoded several times as fast.
# - A function of two numbers that gives the features of those prompts: from a data loader, or computed anew. It must
#   give the same numbers every time; the certificate is about those.
#
# `scores`, `mask` and `flip` are NumPy arrays, mapped to memory or not, as of a `CompletionPool`.

# %%
FEW = 20_000
few = np.load(path, mmap_mode="r")[:FEW]
about = {"dtype": "F16", "shape": few.shape, "data_offsets": [0, few.nbytes]}
header = json.dumps({"hidden": about}).encode()
with open(folder / "features.safetensors", "wb") as new:
    new.write(len(header).to_bytes(8, "little") + header)
    new.write(few.tobytes())
rows = pa.FixedSizeListArray.from_arrays(pa.array(few.reshape(-1)), COMPLETIONS * DIM)
pq.write_table(pa.table({"hidden": rows}), folder / "features.parquet", row_group_size=2_000, use_dictionary=False)
sources = {
    "an array": jd.CompletionPool(np.array(few)),
    "safetensors": streamed_source(folder / "features.safetensors", name="hidden"),
    "Parquet": streamed_source(folder / "features.parquet", completions=COMPLETIONS),
    "a function": streamed_source(made, prompts=FEW, chunk=AT_A_TIME),
}
smaller = jd.Budget(1000, per_pair=1)
found = {name: jd.optimize(pool, jd.LogDet(), smaller) for name, pool in sources.items()}
for name, one in found.items():
    print(f"{name:11} {compared(one, found['an array'])}")

# %% [markdown]
# ## A run that is killed
#
# With `checkpoint=` the run is written down after every pass. Started again with the same arguments, it goes on from
# there and ends in the same design to the last bit; tests kill it at random moments. Here a callback plays the power
# cut:

# %%
state = folder / "run.npz"


def power_cut(row):
    print(f"after {row.passes} passes: gap {row.gap:.1e}")
    if row.passes > 9:
        raise RuntimeError("the power is gone")


try:
    solve(source, checkpoint=state, callback=power_cut)
except RuntimeError as error:
    print(f"{error}; {state.stat().st_size / 1e6:.1f} MB are written down")
seen = []
resumed = solve(source, checkpoint=state, callback=lambda row: seen.append(row.passes))
print("went on with pass", *seen)
print("the same to the last bit:", resumed.labels.tobytes() == design.labels.tobytes())

# %% [markdown]
# A checkpoint of other features, another budget or another criterion is refused; delete the file to begin anew.
#
# ## On the devices of a mesh
#
# Features that are divided over prompts stay where they are: every device prices its own. In a pass devices send each
# other d x d matrices and the rows of listed pairs, and once the leading prompts that a solver starts from, whatever
# the size of the pool. Nothing has to be said; `sharded_source` puts a pool there that is not divided yet, whether or
# not the devices divide P.

# %%
mesh = jax.make_mesh((4,), ("data",))
where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
divided = jd.CompletionPool(jax.device_put(np.array(few), where))
print("on each device:", {piece.data.shape for piece in divided.features.addressable_shards})
print("as it lies:    ", compared(jd.optimize(divided, jd.LogDet(), smaller), found["an array"]))
odd = jd.CompletionPool(np.array(few[:19_999]))
print(
    "19,999 prompts:",
    compared(
        jd.optimize(sharded_source(odd, mesh, "data"), jd.LogDet(), smaller), jd.optimize(odd, jd.LogDet(), smaller)
    ),
)

# %% [markdown]
# Several processes work too (`jax.distributed`): each calls the same function with the same global arrays. The choice
# of pairs inside of a training step has [a page of its own](sharded_training.ipynb).
#
# ## Many dimensions
#
# Work grows with $d^2$ for pricing and with $d^3$ for what surrounds it. Where a few directions hold most of the
# information, a design for these is nearly one for all: `low_rank_design` finds it in the `rank` leading directions and
# certifies it in all of them, so that nothing is lost unseen. The prior must be positive definite, as it is what the
# other directions are left with. Before anything is solved, `loss` bounds what these could add to the log determinant:
# crudely, until the rank covers what labels can tell of.

# %%
rng = np.random.default_rng(1)
lengths = np.exp(rng.standard_normal((2_000, 8, 1)) / 2)
wide = rng.standard_normal((2_000, 8, 256)) * lengths * np.geomspace(1, 1e-5, 256)
wide, labels = jd.CompletionPool(wide.astype(np.float32)), jd.Budget(2000, per_pair=1)
led = {rank: low_rank_design(wide, jd.LogDet(), labels, rank, prior=1.0) for rank in (32, 64, 128)}
for rank, found in led.items():
    loss = found.report["subspace"]["loss"]
    print(f"{rank:3} directions: certified in all 256 {found.certificate.efficiency:.4f}, loss at most {loss:.2f}")
found = jd.optimize(wide, jd.LogDet(), labels, prior=1.0, start=led[64])
print(f"64, carried on in all 256: {found.certificate.efficiency:.4f} after {found.passes} passes. {found.status}")
