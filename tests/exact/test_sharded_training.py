"""The guide's training step on four devices: no features are gathered in it, and it does what it does on one device."""

import jax
import jupytext
import numpy as np
import pytest

from bench.exchanged import collectives
from tests.support import CHECKOUT

PROMOTION = "standard"  # the step's own arithmetic and optax's
PAGE = CHECKOUT / "notebooks" / "sharded_training.py"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not PAGE.exists(), reason="notebooks/ is not beside tests/: not a checkout"),
]


@pytest.fixture(scope="module")
def page():
    """What the guide defines before it first runs anything, here on the four devices that there are."""
    found = {}
    cells = [cell.source for cell in jupytext.read(PAGE).cells if cell.cell_type == "code"]
    before = cells[: next(k for k, cell in enumerate(cells) if "print(" in cell)]
    source = "\n".join(before).replace('jax.config.update("jax_num_cpu_devices", 4)', "")
    exec(compile(source, PAGE.name, "exec"), found)
    start = next(cell for cell in cells if "def start(" in cell).split("\n\n\ndef run(")[0]
    exec(compile(start, PAGE.name, "exec"), found)
    return found


def mesh_of(count):
    return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


def test_no_features_are_gathered_and_nothing_that_is_exchanged_grows_with_the_pool(page):
    found = []
    for prompts in (page["PROMPTS"], 2 * page["PROMPTS"]):
        mesh = mesh_of(4)
        with jax.set_mesh(mesh):
            compiled = page["step"].lower(*page["start"](mesh, prompts), jax.random.key(1)).compile()
        found.append(sorted(collectives(compiled.as_text())))
    assert found[0] == found[1]
    parameters = sum(4 * array.size for array in page["initial"](jax.random.key(0)).values())
    matrices = 2 * 8 * page["WIDTH"] ** 2
    own = 4 * page["PROMPTS"] * page["COMPLETIONS"] * page["WIDTH"] // 4  # bytes of one device's features
    assert max(size for _, size, _ in found[0]) <= max(parameters + 16, matrices) < own / 5
    assert sum(size for _, size, once in found[0] if once) < own  # all that happens once a step, parameters included
    assert sum(size for _, size, once in found[0] if not once) <= matrices + 4096  # every pick, and afresh now and then


def test_a_step_on_four_devices_is_that_of_one(page):
    found = []
    for count in (1, 4):
        mesh = mesh_of(count)
        state, reference, prompts = page["start"](mesh)
        with jax.set_mesh(mesh):
            for key in jax.random.split(jax.random.key(2), 2):
                state, told = page["step"](state, reference, prompts, key)
        assert len(state[0]["hidden"].sharding.device_set) == count
        found.append(jax.tree.map(np.asarray, (told, state[0])))
    (one, params_one), (four, params_four) = found
    np.testing.assert_array_equal(one[0], four[0])  # pairs
    assert len(np.unique(one[0][:, 0])) == page["SIZE"]  # one a prompt, and so of all devices
    assert len(np.unique(one[0][:, 0] // (page["PROMPTS"] // 4))) == 4
    np.testing.assert_allclose(one[1], four[1], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params_one, params_four)
    start = page["initial"](jax.random.key(0))
    assert all(np.abs(params_four[name] - start[name]).max() > 0.03 for name in start)  # both steps moved them
