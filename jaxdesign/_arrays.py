"""The only place that knows precision flags, the float64 scope, chunking and where arrays lie.

Every matrix product of the package states its precision: at JAX's default, float32 products run in bfloat16 on TPU
and in TF32 on recent NVIDIA GPUs, which is too coarse for a certificate.
"""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxdesign._gathering import brought_together

HIGHEST = lax.Precision.HIGHEST

AnyArray = jax.Array | np.ndarray  # what public functions take: in annotations, `Float[AnyArray, "p k d"]`

# Entries of a chunk of prompts by backend. On a CPU a chunk should fit the last-level cache of one core complex
# (features in, products out) and still be tall enough for the matrix product to run at full rate: 2,048 rows x 256
# float32 was best of 512 ... 16,384 measured. A GPU has to be kept busy: on an H200, 2^24 entries price a pool 2.6 to
# 3.9 times as fast as the CPU's 2^19 and within 10% of 2^26 (bench/results/gpu-h200.json). Not measured on a TPU.
CHUNK_ENTRIES = {"cpu": 2_048 * 256, "gpu": 2**24, "tpu": 2**24}


NO_FLOAT64 = ("tpu",)  # backends on which it is emulated at best; there it is computed by the host


def algebra_device() -> Any:
    """The device that computes in float64 in place of the default backend's; None where that can itself.

    What runs there is the d x d algebra and the restricted problems of listed pairs, whose rows are sent to it as they
    are stored; factors come back in the working dtype. Passes over all pairs stay on the default backend.
    """
    return jax.local_devices(backend="cpu")[0] if jax.default_backend() in NO_FLOAT64 else None


def for_algebra(tree: Any) -> Any:
    """The tree with its arrays on the device of the algebra; as it is where that has none of its own, or in a trace."""
    device = algebra_device()
    if device is None or is_traced(tree):
        return tree
    place = SingleDeviceSharding(device)  # put on a device, arrays would keep the Explicit axes of their mesh
    return jax.tree.map(lambda leaf: jax.device_put(leaf, place) if isinstance(leaf, jax.Array) else leaf, tree)


def from_algebra(array: jax.Array, like: jax.Array) -> jax.Array:
    """An array that was computed from such `for_algebra`, where the other one is."""
    return array if algebra_device() is None or is_traced(array, like) else jax.device_put(array, like.sharding)


def float64():
    """Scope in which JAX computes in float64, whatever the caller's global flag; the flag itself is never touched.

    Where the default backend has no float64, computations begun in it are placed on `algebra_device`.
    """
    return _scope(True, algebra_device())


def in_float64() -> bool:
    """Whether JAX computes in float64 here: inside of a scope, or by the caller's global flag."""
    return jnp.result_type(float) == jnp.float64


def scope(wide: bool):
    """The scope in which JAX computes in float64, or in float32, on the default backend: what a caller has outside."""
    return _scope(wide, None)


@contextmanager
def _scope(wide, device):
    elsewhere = nullcontext() if algebra_device() is None else jax.default_device(device)
    with jax.enable_x64(wide), elsewhere:
        yield


def compute_dtype(dtype: Any) -> np.dtype:
    """Working dtype for stored features: float32 for float16, bfloat16 and float32; float64 for float64."""
    return np.dtype(np.float64) if np.dtype(dtype) == np.float64 else np.dtype(np.float32)


def common_dtype(*arrays: Any) -> np.dtype:
    """The dtype of the arrays where they share one, or else the working dtype that holds them all."""
    dtypes = {np.dtype(array.dtype) for array in arrays}
    return dtypes.pop() if len(dtypes) == 1 else np.result_type(*map(compute_dtype, dtypes))


def contract(subscripts: str, *operands, dtype: Any = None) -> jax.Array:
    """`jnp.einsum` at full precision of its inputs, accumulating in `dtype` (default: that of the inputs)."""
    return jnp.einsum(subscripts, *operands, precision=HIGHEST, preferred_element_type=dtype)


def power_of_two(number: int) -> int:
    """The smallest that is at least `number`: what arrays are filled up to, so that few shapes are ever compiled."""
    return 1 << max(number - 1, 0).bit_length()


def aligned(*arrays: Any) -> list[Any]:
    """The arrays with axes of length 1 put in front, so that all have as many: broadcasting said aloud."""
    ndim = max(array.ndim for array in arrays)
    return [array.reshape(*[1] * (ndim - array.ndim), *array.shape) for array in arrays]


def power_of_two_below(number: jax.Array) -> jax.Array:
    """The largest power of two that is at most a positive number, by its exponent bits; 1 for 0. Traceable."""
    kind, mask = {4: (jnp.uint32, 0x7F800000), 8: (jnp.uint64, 0x7FF0000000000000)}[number.dtype.itemsize]
    bits = lax.bitcast_convert_type(number, kind) & jnp.asarray(mask, kind)
    power = lax.bitcast_convert_type(bits, number.dtype)
    return jnp.where(power > 0, power, jnp.ones_like(power))


def exp2(exponent: jax.Array, dtype: Any) -> jax.Array:
    """2^e of whole numbers, exactly, within the normal range of float32 or float64; traceable and batched in any scope.

    `jnp.ldexp` is not: since JAX 0.12 it is expanded where it is batched, which may be outside of a float64 scope.
    """
    kind, bias, digits = {4: (jnp.int32, 127, 23), 8: (jnp.int64, 1023, 52)}[np.dtype(dtype).itemsize]
    shifted = jnp.clip(exponent, 1 - bias, bias).astype(kind) + jnp.asarray(bias, kind)
    return lax.bitcast_convert_type(shifted << jnp.asarray(digits, kind), dtype)


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a tracer, so that values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def told(result: jax.Array, default: Any) -> Any:
    """A float64 result on the host; traced, where it cannot be, in the caller's default precision."""
    return result.astype(default) if is_traced(result) else np.asarray(result)


def replicated(tree: Any) -> Any:
    """The tree with every array that is sharded over Explicit mesh axes copied to all devices of its mesh.

    The passes cut pools into chunks and contract over prompts, which JAX refuses on Explicit axes (the default of
    `jax.make_mesh`) unless every operation says how its result is sharded. Traceable functions bring their arrays here
    at the door; a copy of the pool must fit on each device. Auto axes and other leaves stay as they are: there the
    compiler places the work. `greedy` and passes (`pricing.sharded`) work where prompts lie, and copy nothing.
    """
    return _mapped(_replicated, tree)


def _mapped(function, tree):
    """`jax.tree.map`, or the tree itself, with all that is kept with it, where no leaf changes."""
    leaves, structure = jax.tree.flatten(tree)
    mapped = [function(leaf) for leaf in leaves]
    unchanged = all(new is leaf for new, leaf in zip(mapped, leaves, strict=True))
    return tree if unchanged else jax.tree.unflatten(structure, mapped)


def _replicated(leaf):
    sharding = getattr(jax.typeof(leaf), "sharding", None) if isinstance(leaf, jax.Array) else None
    if sharding is None or all(axis is None for axis in sharding.spec):  # names Explicit axes only
        return leaf
    return jax.sharding.reshard(leaf, NamedSharding(sharding.mesh, PartitionSpec()))


def over_prompts(array: Any) -> tuple[Mesh, tuple[str, ...]] | None:
    """The mesh, and those of its axes, along which the leading axis of an array is divided; None where it is whole."""
    sharding = None if is_traced(array) else getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not sharding.spec or sharding.spec[0] is None:
        return None
    mesh, axes = sharding.mesh, _names(sharding.spec[0])
    if not isinstance(mesh, Mesh) or all(mesh.shape[axis] == 1 for axis in axes):
        return None
    return mesh, axes


def prompt_axes(array: Any) -> tuple[AbstractMesh, tuple[str, ...]] | None:
    """`over_prompts` of an array that may be traced: then only Explicit axes are known."""
    if not is_traced(array):
        lying = over_prompts(array)
        return None if lying is None else (lying[0].abstract_mesh, lying[1])
    sharding = jax.typeof(array).sharding
    if not sharding.spec or sharding.spec[0] is None:
        return None
    return sharding.mesh, _names(sharding.spec[0])


def laid_out(tree: Any, specs: Any, mesh: AbstractMesh) -> Any:
    """Arrays as the specs of a `jax.shard_map` over a mesh say, which wants them so where axes are Explicit; traced."""
    explicit = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]
    if not explicit:
        return tree

    def place(spec, part):
        names = [None if axes is None else tuple(a for a in _names(axes) if a in explicit) or None for axes in spec]
        return jax.tree.map(lambda a: jax.sharding.reshard(a, NamedSharding(mesh, PartitionSpec(*names))), part)

    return jax.tree.map(place, specs, tree, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def _names(axes: str | tuple[str, ...]) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else tuple(axes)


def divided(array: Any) -> bool:
    """Whether devices hold different parts of a concrete array."""
    return isinstance(array, jax.Array) and not is_traced(array) and not array.is_fully_replicated


def on_host(array: AnyArray) -> np.ndarray:
    """An array in host memory; one of several processes, which cannot read each other's devices, in each of them."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = in_one_place(array)
    return np.asarray(array)


def in_one_place(tree: Any) -> Any:
    """The tree with every array that lies on several devices as a whole on one of them, the first of this process.

    Where the caller has set a mesh, JAX computes on all of its devices: there a copy lies on each.
    """
    return _mapped(_in_one_place, tree)


def _in_one_place(leaf):
    if not isinstance(leaf, jax.Array) or len(leaf.devices()) == 1:
        return leaf
    mesh = jax.sharding.get_mesh()
    if not mesh.empty:
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))
    sharding = leaf.sharding
    if not leaf.is_fully_addressable and not leaf.is_fully_replicated and isinstance(sharding, NamedSharding):
        leaf = jax.device_put(leaf, NamedSharding(sharding.mesh, PartitionSpec()))
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return brought_together(leaf, SingleDeviceSharding(min(leaf.devices(), key=lambda device: device.id)))


def chunk_entries() -> int:
    """Entries of a chunk on the default backend; as on a CPU where that is unknown."""
    return CHUNK_ENTRIES.get(jax.default_backend(), CHUNK_ENTRIES["cpu"])


def chunk_length(num_prompts: int, completions: int, dim: int) -> int:
    """Prompts per chunk: a static function of shapes and backend, so that chunking never causes a recompilation."""
    rows = max(1, chunk_entries() // max(dim, completions, 1))
    return int(max(1, min(num_prompts, rows // max(completions, 1))))


def chunk_at(arrays: Any, index: jax.Array, length: int) -> Any:
    """Chunk `index` of `length` prompts of every leaf, zeros past the end; no copy of the whole is ever made."""

    def slice_leaf(array):
        start = jnp.minimum(index * length, array.shape[0] - length)
        overlap = index * length - start  # rows of the last chunk that the one before it has had
        rows = jnp.roll(lax.dynamic_slice_in_dim(array, start, length), -overlap, axis=0)
        fresh = (jnp.arange(length) < length - overlap).reshape(-1, *[1] * (array.ndim - 1))
        return jnp.where(fresh, rows, jnp.zeros((), array.dtype))

    return jax.tree.map(slice_leaf, arrays)


def filled_up(array: AnyArray, missing: int) -> jax.Array:
    """The array with so many zeros more along its leading axis."""
    return jnp.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1)))


def map_padded(function: Callable, arrays: Any, length: int) -> Any:
    """Apply `function` to chunks of `length` prompts; the results keep the axes (chunks, length), padding included."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    chunks = -(-size // length)
    return lax.map(lambda k: function(chunk_at(arrays, k, length)), jnp.arange(chunks))


def map_chunks(function: Callable, arrays: Any, length: int) -> Any:
    """Apply `function` to chunks of `length` prompts of every leaf and join the results along the leading axis."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    if length >= size:
        return function(arrays)
    out = map_padded(function, arrays, length)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:size], out)


def sum_chunks(function: Callable, arrays: Any, length: int) -> Any:
    """Sum of `function` over chunks of prompts; `function` must return zero for the zero padding of the last chunk."""
    return _folded(function, arrays, length, jnp.add)


def max_chunks(function: Callable, arrays: Any, length: int) -> Any:
    """Largest of `function` over chunks of prompts, at least 0 each; zero for the zero padding of the last chunk."""
    return _folded(function, arrays, length, jnp.maximum)


def _folded(function, arrays, length, combine):
    size = jax.tree.leaves(arrays)[0].shape[0]
    if length >= size:
        return function(arrays)

    def step(total, k):
        return jax.tree.map(combine, total, function(chunk_at(arrays, k, length))), None

    first = function(chunk_at(arrays, jnp.zeros((), int), length))
    return lax.scan(step, first, jnp.arange(1, -(-size // length)))[0]


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value`."""
    return -(-int(value) // multiple) * multiple
