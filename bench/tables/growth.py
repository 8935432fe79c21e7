"""Tables of `python -m bench.growth`: the cost model beside what was measured, and ten billion pairs from both."""

from __future__ import annotations

from typing import Any

from bench.growth import HOST
from bench.tables.gpu import FIRST
from bench.tables.markdown import digits, hardware, milliseconds, percent, seconds, share, table

FILE = "cpu-2-cores-growth"
CHANGED = {"P": "prompts P", "K": "completions K, as many in all", "d": "dimensions d", "m": "labels m"}
DEVICES = 8
PASS = "131072 x 32, d = 64, chunks of 16777216 entries"  # of the GPU's passes, the shape of the plan


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    found = results[FILE]
    return [
        "## Growth, and ten billion pairs on paper",
        "`python -m bench.streamed --prompts 2100000 --file POOL.npy`, which writes 8.6 GB, then "
        "`python -m bench.growth --file POOL.npy --json FILE`, on an idle machine. Log det with repeats (one label a "
        "pair where m changes), heavy-tailed pools, every problem in its own process and every call on a pool that "
        "was not seen before.",
        *_model(),
        *_measured(found),
        *_streamed(found),
        *_plan(found, results[FIRST]),
    ]


def _model() -> list[str]:
    return [
        "### The cost model",
        "A call visits all prompts three times: once to see what is there and to find means and copies (bytes alone), "
        "once for the even information, 2 P K d^2 operations, and once to bound every prompt, 2 P K d^2 + 2 P K^2 d. "
        "Afterwards only the share q of the prompts that bounds leave is looked at, at the price of the bounds. So",
        "operations = 2 P K d^2 (2 + q) + 2 P K^2 d (1 + q),  bytes read = (3 + q) P K d itemsize,",
        "and besides these, whatever the pool: some tens of Newton steps of the working set, d^3 and S d^2 each with S "
        "its pairs; on the host some numbers a prompt, O(P). Between devices a sum of d x d matrices travels once a "
        "fold, 12 d^2 bytes on four devices, and features of the pairs that enter; the features of the pool never "
        "(`python -m bench sharded`). Memory besides the features is two chunks of scratch, O(P) and some d x d "
        "matrices (`bench.growth.memory`).",
    ]


def _measured(found: dict[str, Any]) -> list[str]:
    rows = []
    for key, name in CHANGED.items():
        for row in found[key]:
            rate = row["operations"] / row["seconds_of_folds"]
            rows.append(
                [
                    name,
                    f"{row['prompts']:,} x {row['completions']}, d = {row['dim']}, m = {row['labels']:,}",
                    f"{row['pairs']:.1e}",
                    seconds(row["seconds"]),
                    digits(row["seconds_of_folds"]),
                    digits(row["operations"] / 1e9),
                    percent(rate / found["rate"]["flops"]),
                    percent(row["looked_at"]),
                    digits(row["bytes_above_the_pool"] / 1e6),
                    digits(row["bytes_modelled"] / 1e6),
                ]
            )
    head = ["changed", "problem", "pairs", "seconds", "of which folds", "GFLOP of folds", "of a product's rate"]
    linear = _slope(found["P"])
    return [
        "### Measured beside it",
        table([*head, "q", "MB above the pool", "MB of the model"], rows),
        hardware(found["machine"], FILE),
        "![Seconds and memory against P, K, d and m, with the model's lines](results/growth.png)",
        f"A plain float32 product of {found['rate']['cubed']} cubed runs at {digits(found['rate']['flops'] / 1e9)} "
        "GFLOP/s here. Even information is of float64, at half of it, and folds also take off means, compare "
        "completions, bound rounding, and read what they multiply, which keeps small d far below. From 10^7 to 10^8 "
        f"pairs seconds grow by {digits(linear)}, for ten times the prompts. All are certified to at least "
        f"{share(_least(found))}.",
    ]


def _slope(rows: list[dict[str, Any]]) -> float:
    return rows[-1]["seconds"]["median"] / rows[-2]["seconds"]["median"]


def _least(found: dict[str, Any]) -> float:
    return min(row["efficiency"] for key in CHANGED for row in found[key])


def _streamed(found: dict[str, Any]) -> list[str]:
    row = found["file"]
    cells = [
        f"{row['pairs']:,}",
        digits(row["file_bytes"] / 1e9),
        digits(row["seconds"]),
        digits(row["sweeps"]),
        percent(row["looked_up"], 2),
        share(row["efficiency"]),
        digits(row["anonymous_peak_bytes"] / 1e9),
        digits((row["anonymous_peak_bytes"] - row["anonymous_bytes_before"]) / 1e9),
    ]
    head = ["pairs", "GB of the file", "seconds", "sweeps of the file", "looked up", "efficiency"]
    return [
        "### 10^9 pairs from a file",
        table([*head, "GB of anonymous memory", "of these, more than before"], [cells]),
        hardware(found["machine"], FILE),
        f"{row['prompts']:,} prompts of 32 completions, d = 64, float16; one call in a fresh process, compilation "
        "included.",
    ]


def _plan(found: dict[str, Any], gpu: dict[str, Any]) -> list[str]:
    one = next(row for row in gpu["rows"] if row["section"] == "pass" and row["name"] == PASS)
    prompts, completions, dim = 131_072, 32, 64
    shard = HOST.prompts / DEVICES / prompts
    host, file = found["host"], found["file"]
    bound, even, prepared = (one["seconds"][k]["median"] * shard for k in ("price", "even information", "source"))
    looked = bound * file["looked_up"]
    device = prepared + even + bound + looked
    outside = host["seconds"]["median"] - host["seconds_of_folds"]
    features = HOST.prompts * completions * dim * 4
    rows = [
        ["means and copies of a shard", milliseconds(prepared)],
        ["even information of a shard", milliseconds(even)],
        ["bounds of a shard", milliseconds(bound)],
        ["prompts that bounds leave", milliseconds(looked)],
        ["numbers of prompts on the host", milliseconds(outside)],
    ]
    cpu = file["seconds"] * HOST.prompts / file["prompts"]
    return [
        f"### 10^10 pairs on {DEVICES} GPUs: a plan, not a measurement",
        table(["step", "milliseconds"], rows),
        f"{hardware(gpu['machine'], FIRST)} {hardware(found['machine'], FILE)}",
        f"{HOST.prompts:,} prompts of {completions}, d = {dim}: {digits(features / 1e9)} GB of float32 features, "
        f"{digits(features / DEVICES / 1e9)} a GPU. The work of one shard is that of a measured pass on one H200 "
        f"({PASS}), times {digits(shard)}; the share of prompts that bounds leave is that of the 10^9 pairs. What the "
        "host does with numbers of prompts was measured at this P, with two completions in two dimensions, less its "
        f"folds. So devices would need {digits(device)} s, and one host's numbers of prompts {digits(outside)} s: "
        "whoever has 10^10 pairs should have those on the devices first. The Newton steps of the working set, whatever "
        "the pool, come on top: less than a second at this d (the table of whole problems below). Sums of "
        f"{dim} x {dim} matrices are {digits(12 * dim * dim / 1e3)} kB a fold, next to nothing. On two cores and from "
        f"a disk the same would take {digits(cpu / 60)} minutes, going by the 10^9 pairs measured.",
    ]
