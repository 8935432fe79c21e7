"""The command line, thin: reads a pool, calls the public functions, writes the pairs and a report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jaxdesign
from jaxdesign.io.design_files import check_writable, selection_rows, write_selection
from jaxdesign.io.featurise import featurise
from jaxdesign.io.pool_files import PoolFile, demo_pool_path, read_completions, read_features

TEXT_DIM = 32  # surface n-grams carry little: more dimensions would only ask for more labels
LISTED_PAIRS = 2e7  # pools with more pairs are not compared with random pairs, which are drawn from a list of all pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it did its work, 2 with one line on stderr when the input does not allow it."""
    chosen = _parser().parse_args(arguments)
    try:
        return select(chosen)
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError) as error:
        if chosen.traceback:
            raise
        print("jaxdesign: error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxdesign: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Errors on one line, like all others."""

    def error(self, message):
        self.exit(2, f"jaxdesign: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxdesign", description="Which pairs of completions should be compared?")
    parser.add_argument("--version", action="version", version=f"jaxdesign {jaxdesign.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("select", help="choose the pairs to have labelled")
    command.add_argument(
        "pool",
        nargs="?",
        help=".npy or .npz with features (prompts, completions, dimension), or .jsonl with a prompt and its "
        "completions a line; default: the small pool inside the package",
    )
    command.add_argument("--labels", type=float, required=True, help="number of labels to spend")
    command.add_argument("--per-pair", default="1", help="labels a pair may get, or 'none' for no limit (default 1)")
    command.add_argument("--per-prompt", default="none", help="labels a prompt may get (default no limit)")
    command.add_argument(
        "--criterion",
        choices=("logdet", "trace"),
        default="logdet",
        help="logdet: learn about all directions; trace: about those that matter to the policy that the completions "
        "were sampled from (default logdet)",
    )
    command.add_argument(
        "--ridge",
        type=float,
        default=1e-3,
        help="prior information: this share of labels / 4 x the second moment of the centred features, about half of "
        "what the same labels spread evenly would bring (default 1e-3)",
    )
    command.add_argument("--tol", type=float, default=1e-3, help="relative gap of the bound (default 1e-3)")
    command.add_argument("--seed", type=int, default=0, help="for the random pairs of the comparison (default 0)")
    command.add_argument("--output", required=True, help="pairs file, .jsonl or .csv; a .json report goes beside it")
    command.add_argument("--traceback", action="store_true", help="show where in the program an error arose")
    return parser


def select(chosen: argparse.Namespace) -> int:
    """`jaxdesign select`."""
    began = time.perf_counter()
    check_writable(chosen.output)
    caps = _limit(chosen.per_pair, "per-pair"), _limit(chosen.per_prompt, "per-prompt")
    budget = jaxdesign.Budget(chosen.labels, *caps)
    if not 0 <= chosen.ridge < np.inf:
        raise ValueError(f"ridge={chosen.ridge:g}: must be finite and at least 0")
    file = read_pool(chosen.pool)
    whole = jaxdesign.CompletionPool(file.features, file.scores, file.mask, file.ids)
    pool, _ = jaxdesign.restrict_to_range(whole)
    if pool.dim < whole.dim:
        print(f"features: rank {pool.dim} of {whole.dim}; working in the {pool.dim} dimensions they span")
    moment = jaxdesign.second_moment(pool)
    criterion = jaxdesign.LogDet() if chosen.criterion == "logdet" else jaxdesign.Trace(jaxdesign.policy_target(pool))
    prior = chosen.ridge * budget.total / 4 * moment
    meter = _Meter()
    try:
        design = jaxdesign.select_pairs(
            pool, criterion, budget, prior=prior, seed=chosen.seed, tol=chosen.tol, callback=meter.show
        )
    finally:
        meter.close()
    chance = by_chance(pool, criterion, budget, prior, chosen.seed, design)
    rows = selection_rows(design.pairs, design.labels, file)
    seconds = time.perf_counter() - began
    pairs_file, report_file = write_selection(chosen.output, rows, _report(chosen, pool, design, chance, seconds))
    _summary(design, chance, pool.dim)
    print(f"written: {pairs_file} and {report_file}")
    return 0


def read_pool(path: str | None) -> PoolFile:
    """Features from arrays, or of texts by the built-in featuriser; None for the demonstration pool."""
    path = str(demo_pool_path()) if path is None else path
    if Path(path).suffix.lower() in (".npy", ".npz"):
        return read_features(path)
    texts = read_completions(path)
    features, mask = featurise(texts.completions, dim=TEXT_DIM)
    return texts._replace(features=features, mask=mask)


def _limit(text: str, name: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name}={text!r}: expected a number or 'none'") from error


class _Meter:
    """One progress line on stderr: rewritten on a terminal, one line a pass elsewhere."""

    def __init__(self) -> None:
        self.end, self.unfinished = ("\r" if sys.stderr.isatty() else "\n"), False

    def show(self, row) -> None:
        """Callback of the solver."""
        line = f"pass {row.passes:3d}  criterion {row.value:.6g}  gap {row.gap:.2e}  {row.seconds:.1f} s"
        print(line.ljust(70) if self.end == "\r" else line, end=self.end, file=sys.stderr, flush=True)
        self.unfinished = self.end == "\r"

    def close(self) -> None:
        """Leave the last line standing."""
        if self.unfinished:
            print(file=sys.stderr)


def _report(chosen: argparse.Namespace, pool, design, chance: float | None, seconds: float) -> dict[str, Any]:
    import jax

    return {
        "certificate": design.certificate._asdict(),
        "status": str(design.status),
        "settings": vars(chosen) | {"pool": chosen.pool or "the pool inside the package"},
        "pool": {"prompts": pool.num_prompts, "completions": pool.completions, "rank": pool.dim},
        "skipped_prompts": design.skipped_prompts,
        "passes": design.passes,
        "selection": design.report,
        "random_pairs": {"efficiency": chance},
        "seed": chosen.seed,
        "seconds": seconds,
        "versions": {"jaxdesign": jaxdesign.__version__, "jax": jax.__version__, "numpy": np.__version__},
        "backend": jax.default_backend(),
    }


def by_chance(pool, criterion, budget, prior, seed: int, design) -> float | None:
    """Efficiency of as many pairs drawn at random, against the same bound; None for pools too large to list."""
    from jaxdesign.exact.random_pairs import random_pairs

    if pool.num_prompts * pool.completions**2 / 2 > LISTED_PAIRS:
        return None
    pairs, labels = random_pairs(pool, budget, seed)
    found = jaxdesign.evaluate(pool, criterion, budget, pairs, labels, prior).certificate
    if not np.isfinite(found.value):
        return 0.0
    # the bound that the poor allocation gives of itself is loose and would understate it
    bound = min(max(found.lower_bound, design.certificate.lower_bound), found.value)
    return float(criterion.efficiency(found.value, bound, pool.dim))


def _summary(design, chance: float | None, dim: int) -> None:
    prompts, total = len(np.unique(design.pairs[:, 0])), design.labels.sum()
    print(f"{total:.0f} labels on {len(design.pairs)} pairs of {prompts} prompts")
    # cut, not rounded: never more than is certified
    share = np.floor(1000 * design.certificate.efficiency) / 1000
    print(f"certified efficiency {share:.3f}: at least this share of the best possible")
    if chance is not None:
        print(f"as many pairs drawn at random: {chance:.3f}")
    if total < 2 * dim:
        print(design.report["bound"])
    if design.report["relaxed"]["status"] != "CERTIFIED":
        print(f"bound: {jaxdesign.Status[design.report['relaxed']['status']]}")
    if design.skipped_prompts:
        print(f"{design.skipped_prompts} prompts have fewer than two completions and were skipped")
