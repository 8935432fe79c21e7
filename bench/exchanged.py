"""What compiled programs of a divided pool need: bytes that travel between devices, and memory of a device."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from jaxdesign import _arrays
from jaxdesign.pricing.sharded import ShardedSource

COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")
ARRAY = re.compile(r"([a-z]+)(\d*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Program:
    """A program that ran on all devices.

    Args:
        name: of the function that was compiled.
        collectives: kind, and bytes of the result on one device, of everything that devices exchange in it.
        once: whether none of it stands in a loop.
        exchanged: bytes a device receives: of an all-reduce twice, otherwise once the share that is not its own.
        results: bytes of its results on one device, copies that all have included.
        memory: bytes of a device: arguments, results and scratch.
    """

    name: str
    collectives: tuple[tuple[str, int], ...]
    once: bool
    exchanged: float
    results: int
    memory: int


@contextmanager
def programs_recorded() -> Iterator[list[Program]]:
    """Every program that sources of divided pools run inside of the block, in order; each is compiled once more.

    What is brought to one device stands among them as `moved`: bytes that this device receives, the others nothing.
    """
    run, bring, known, found = ShardedSource._run, _arrays._in_one_place, {}, []

    def recorded(self: ShardedSource, function: Callable, *args: Any, **static: Any) -> Any:
        with jax.set_mesh(self.layout.mesh):
            lowered = function.lower(self.layout, *args, **static)
            text = lowered.as_text()
            if text not in known:
                known[text] = _program(function.__name__.strip("_"), lowered.compile(), self.layout.parts)
        found.append(known[text])
        return run(self, function, *args, **static)

    def brought(leaf: Any) -> Any:
        result = bring(leaf)
        if _arrays.divided(leaf):
            bytes_here = leaf.nbytes * (1 - 1 / leaf.sharding.num_devices)
            found.append(Program("moved", (("copy", leaf.nbytes),), True, bytes_here, leaf.nbytes, leaf.nbytes))
        return result

    ShardedSource._run, _arrays._in_one_place = recorded, brought
    try:
        yield found
    finally:
        ShardedSource._run, _arrays._in_one_place = run, bring


def _program(name: str, compiled: Any, devices: int) -> Program:
    found = collectives(compiled.as_text())
    share = (devices - 1) / devices
    exchanged = sum((2 if kind == "all-reduce" else 1) * share * size for kind, size, _ in found)
    stats = compiled.memory_analysis()
    results = stats.output_size_in_bytes
    memory = stats.argument_size_in_bytes + results + stats.temp_size_in_bytes
    kinds = tuple((kind, size) for kind, size, _ in found)
    return Program(name, kinds, all(once for *_, once in found), exchanged, results, memory - stats.alias_size_in_bytes)


def collectives(text: str) -> list[tuple[str, int, bool]]:
    """Kind, bytes of the result on one device, and whether it stands outside of loops, of all collectives in HLO."""
    found, entry = [], False
    for line in text.splitlines():
        entry = line.startswith("ENTRY") or (entry and not line.startswith("}"))
        if match := COLLECTIVE.search(line):
            found.append((match.group(2), _bytes(match.group(1)), entry))
    return found


def _bytes(types: str) -> int:
    """Of arrays as XLA writes them, f32[8,4]{1,0}."""
    sizes = (
        math.prod(map(int, filter(None, shape.split(",")))) * max(int(bits or 8) // 8, 1)
        for _, bits, shape in ARRAY.findall(types)
    )
    return sum(sizes)
