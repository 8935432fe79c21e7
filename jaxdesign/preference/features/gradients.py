"""Features of completions from a policy: gradients of their log-probabilities, one row per completion.

For any differentiable policy the feature that the mathematics asks for is phi(x, y) = grad_theta log pi_theta(y|x)
(arXiv 2606.19607, read off its log-linear case, where this is the feature vector up to a constant of the prompt, which
differences lose). `gradient_rows` returns it whole, for small models; `projected_gradients` returns D numbers a row
whose inner products are those of the whole gradients in expectation, and never holds more whole gradients than one
microbatch has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from jaxdesign.preference.features.microbatches import checked_examples, gathered, map_examples, mesh_of, spread
from jaxdesign.preference.features.projection import checked_dimension, project_leaves

Selection = Callable[[str], bool] | Sequence[str] | None


def projected_gradients(
    log_probability: Callable[[Any, Any], Array],
    params: Any,
    examples: Any,
    *,
    dimension: int,
    key: Key[Array, ""],
    parameters: Selection = None,
    microbatch: int = 32,
    mesh: Mesh | None = None,
) -> Float[Array, "n d"]:
    """phi_n = R^T grad_theta log pi_theta(y_n | x_n), R the random projection of `projection.project`.

    Args:
        log_probability: (params, example) -> scalar, the log-probability of one completion given its prompt, for one
            example without a batch axis. Compiled once per function object: define it once, not inside a loop.
        params: pytree of the policy's parameters.
        examples: pytree of arrays, one example per row of the leading axis. Tokens past the end of a completion must
            have no influence on log_probability.
        dimension: D, columns of the result. Inner products are off by about |g| |h| / sqrt(D).
        key: of R. Use the same for every pool whose features are to be compared, the deployment pool included.
        parameters: which ones to differentiate by: None for all of floating dtype; patterns on their paths, such as
            `["*/lora_a", "layers/3/*"]`, `*` matching anything, `/` included; or a predicate on the path. Equals the
            projection of the whole gradient with all others set to 0.
        microbatch: whole gradients held at a time on each device.
        mesh: spread the examples over all of its devices, params copied to each; None: that of examples on one.

    Returns:
        (n, D) float32, spread like the examples where mesh.size divides n.

    Raises:
        TypeError: log_probability not scalar, dimension or microbatch no integers. ValueError: no example, examples of
            different lengths, parameters that match nothing, or dimension or microbatch below 1.

    Numerics: gradients in the dtype of the parameters, projection in float32. Independent of microbatch and of the
        number of devices up to the rounding of the model's own matrix products, which XLA may order differently.
    Complexity: one gradient and 2 N + 32 D^2 flops an example; signs are made once per microbatch.

    Source: arXiv 2606.19607 (features of a log-linear policy); the projection is derived; checked by
    tests/preference/features/test_gradient_features.py.
    """
    dimension = checked_dimension(dimension)
    return _rows(log_probability, params, examples, parameters, microbatch, mesh, dimension, key)


def gradient_rows(
    log_probability: Callable[[Any, Any], Array],
    params: Any,
    examples: Any,
    *,
    parameters: Selection = None,
    microbatch: int = 32,
    mesh: Mesh | None = None,
) -> Float[Array, "n p"]:
    """phi_n = grad_theta log pi_theta(y_n | x_n) whole, the leaves end to end in the order of `jax.tree.leaves`.

    Args:
        log_probability, params, examples, parameters, microbatch, mesh: as in `projected_gradients`.

    Returns:
        (n, N) float32, N numbers in the chosen parameters: for small models and for tests.

    Raises:
        TypeError, ValueError: as in `projected_gradients`.

    Source: arXiv 2606.19607 (features of a log-linear policy); checked by
    tests/preference/features/test_gradient_features.py.
    """
    return _rows(log_probability, params, examples, parameters, microbatch, mesh, None, None)


def _rows(log_probability, params, examples, parameters, microbatch, mesh, dimension, key):
    indices = _selected(params, parameters)
    count = checked_examples(examples, microbatch)
    mesh = mesh or mesh_of(examples)
    shared, examples = spread((params, key), examples, mesh)
    microbatch = min(int(microbatch), count)
    rows = _jitted_rows(shared, examples, log_probability, indices, dimension, microbatch, mesh)
    return gathered(rows, count, mesh)


@partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _jitted_rows(shared, examples, log_probability, indices, dimension, microbatch, mesh):
    def one(shared, example):
        params, key = shared
        leaves, structure = jax.tree.flatten(params)

        def value(chosen):
            filled = list(leaves)
            for index, leaf in chosen.items():
                filled[index] = leaf
            return log_probability(jax.tree.unflatten(structure, filled), example)

        gradients = jax.grad(value)({index: leaves[index] for index in indices})
        if dimension is None:
            return jnp.concatenate([jnp.ravel(gradients[index]).astype(jnp.float32) for index in indices])
        return project_leaves(gradients, dimension, key)

    return map_examples(one, shared, examples, microbatch, mesh)


def parameter_paths(params: Any) -> list[str]:
    """Path of every leaf, such as `layers/0/kernel`, in the order of `jax.tree.leaves`: what selections match.

    Args:
        params: pytree of arrays, or a state of Flax NNX (whose variables are no step of the path).

    Returns:
        One path for each leaf, steps joined by `/`.

    Raises: nothing.

    Source: derived; checked by tests/preference/features/test_gradient_features.py.
    """
    found = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    inner = jax.tree_util.GetAttrKey("value")
    if all(len(path) > 1 and path[-1] == inner for path in found):  # states of NNX: each leaf sits in a variable
        found = [path[:-1] for path in found]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in found]


def _selected(params: Any, parameters: Selection) -> tuple[int, ...]:
    """Indices of the chosen leaves among all leaves of params."""
    paths = parameter_paths(params)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(params)]
    if isinstance(parameters, str):
        raise TypeError(f"parameters={parameters!r}: must be a list of patterns or a function of paths, not a string")
    if parameters is None:
        wanted = [True] * len(paths)
    elif callable(parameters):
        wanted = [bool(parameters(path)) for path in paths]
    else:
        patterns = list(parameters)
        wanted = [any(fnmatchcase(path, pattern) for pattern in patterns) for path in paths]
        for pattern in patterns:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ValueError(f"parameters: {pattern!r} matches none of the paths {_listed(paths)}")
    indices = tuple(k for k, (want, real) in enumerate(zip(wanted, floating, strict=True)) if want and real)
    if not indices:
        raise ValueError(f"parameters: no parameter of floating dtype is chosen; the paths are {_listed(paths)}")
    return indices


def _listed(paths: list[str], most: int = 12) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")
