"""Tables of `python -m bench`: designs, peers, passes, whole labels, greedy choices, features."""

from __future__ import annotations

from typing import Any

from bench.tables.markdown import digits, hardware, milliseconds, seconds, share, table

DESIGNS, SELECTION, FEATURES = "cpu-2-cores", "cpu-2-cores-selection", "cpu-2-cores-features"


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    return [
        "## Speed on two CPU cores",
        "`python -m bench --json FILE` on an idle machine. Seconds are medians of warm, synchronised calls, with the "
        "smallest and largest in parentheses; the first call compiles as well. A pass is a pass over all pairs of the "
        "pool. Efficiencies are proven, and rounded down.",
        *_designs(results[DESIGNS]),
        *_peers(results[DESIGNS]),
        *_kernels(results[DESIGNS]),
        *_whole(results[SELECTION]),
        *_greedy(results[SELECTION]),
        *_features(results[FEATURES]),
    ]


def _designs(found: dict[str, Any]) -> list[str]:
    pools = {"synthetic": "2048 x 32, d = 64: 1.0 M pairs", "real": "`alpacaeval`, 519 x 56, rank 381: 0.8 M pairs"}
    rows = []
    for key, pool in pools.items():
        for name, row in found[key]["rows"].items():
            if "passes" in row:
                problem = f"LogDet, repeats, {name.removeprefix('jaxdesign ')}" if key == "synthetic" else name
                rows.append([pool, problem, *_solved(row)])
    large = found["ten_million"]
    rows.insert(2, ["84,000 x 16, d = 64: 10.1 M pairs", "LogDet, repeats, to 0.999", *_solved(large)])
    exact = found["reference"]["rows"]
    return [
        "### Real-valued designs",
        table(["pool", "problem", "efficiency", "passes", "seconds", "first call"], rows),
        hardware(found["machine"], DESIGNS),
        "Features are Gaussian with a heavy-tailed scale per prompt; `alpacaeval` has 5,000 labels and, where one a "
        "pair, a prior of 1e-3 (m/4) C. A first call that follows one of the same shapes compiles nothing: programs "
        "do not depend on values, the prior or the budget's numbers. "
        f"The 10.1 M pairs take {digits(large['memory_over_features'])} times the memory of their features, the "
        f"pool's own copy included. On {found['reference']['problem']} cvxpy takes "
        f"{digits(exact['LogDet']['cvxpy']['seconds'])} s (LogDet) and {digits(exact['Trace']['cvxpy']['seconds'])} s "
        f"(Trace), a warm call here {milliseconds(exact['LogDet']['jaxdesign']['seconds']['median'])} and "
        f"{milliseconds(exact['Trace']['jaxdesign']['seconds']['median'])} ms, and the values differ by "
        f"{max(abs(row['value_difference']) for row in exact.values()):.0e}. `import jaxdesign` adds "
        f"{milliseconds(found['import']['import jaxdesign'])} ms to `import jax`, every public name "
        f"{milliseconds(found['import']['every public name'])} ms.",
    ]


def _solved(row: dict[str, Any]) -> list[str]:
    first = row["seconds"]["first"]
    return [share(row["efficiency"]), row["passes"], seconds(row["seconds"]), digits(first)]


def _peers(found: dict[str, Any]) -> list[str]:
    pools = {"synthetic": "1.0 M pairs", "real": "`alpacaeval`"}
    ours = {
        "synthetic": found["synthetic"]["rows"]["jaxdesign to 1 - 0.001"],
        "real": found["real"]["rows"]["LogDet, repeats, 0.999"],
    }
    rows = []
    for key, pool in pools.items():
        rows.append(
            [pool, "jaxdesign", ours[key]["passes"], share(ours[key]["efficiency"]), seconds(ours[key]["seconds"]), 1]
        )
        for name, row in found[key]["rows"].items():
            if "steps" in row:
                reached = row["efficiency"] >= 0.999
                times = digits(row["seconds"]["median"] / ours[key]["seconds"]["median"]) if reached else "not reached"
                rows.append(
                    [
                        pool,
                        name.removesuffix(" (LogDet, repeats)"),
                        row["steps"],
                        share(row["efficiency"]),
                        seconds(row["seconds"]),
                        times,
                    ]
                )
    return [
        "### The same designs by the methods in use",
        table(["pool", "method", "passes or steps", "efficiency", "seconds", "times jaxdesign"], rows),
        hardware(found["machine"], DESIGNS),
        "LogDet with repeats, to 0.999; the peers are NumPy on materialised pairs (`bench/peers.py`), and are stopped "
        "after a minute or two. Discarding is by the bound of Harman and Pronzato, which holds without caps and prior "
        "only.",
    ]


def _kernels(found: dict[str, Any]) -> list[str]:
    kernels = found["kernels"]
    rows = [[name, seconds(row), digits(row["gflops"], 3)] for name, row in kernels["seconds"].items()]
    shape = kernels["problem"]
    return [
        "### One pass",
        table(["operation", "seconds", "GFLOP/s"], rows),
        hardware(found["machine"], DESIGNS),
        f"{shape['P']} x {shape['K']}, d = {shape['d']}, float32. Counted on the operations of the Gram form, a "
        f"pricing pass runs at {digits(kernels['pricing_share_of_same_size_matmul'], 3)} times the rate of a plain "
        f"product of the same size and {digits(kernels['pricing_share_of_square_matmul'])} of that of a square one, "
        f"and is {digits(kernels['pricing_times_faster_than_pair_by_pair'], 3)} times as fast as pair by pair.",
    ]


def _whole(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, row in found["batches"]["rows"].items():
        crit, labels = name.removesuffix(" labels").split(", ")
        exchange, spent = row["report"]["candidates"]["exchange"], [digits(row[key]) for key in ("seconds", "first")]
        how = exchange["start"], exchange["swaps"]
        rows.append([f"{int(labels):,}", crit, share(row["efficiency"]), *spent, *how])
    return [
        "### Whole labels: `select_pairs`",
        table(["labels", "criterion", "proven efficiency", "seconds", "first call", "best start", "swaps"], rows),
        hardware(found["machine"], SELECTION),
        f"{found['batches']['problem']}. Exchange ended where no swap of one label helps, in all four.",
    ]


def _greedy(found: dict[str, Any]) -> list[str]:
    rows = []
    for row in found["greedy"]["rows"].values():
        if "picks" in row:
            prompts, completions, dim = row["shape"]
            spent = seconds(row["seconds"]), digits(row["eager_seconds"]), digits(row["speedup"])
            pool = f"{prompts:,} x {completions}, d = {dim}"
            rows.append([pool, f"{row['picks']:,}", *spent, f"{row['pairs_in_common']:,}"])
    many = [
        [name, kind, milliseconds(row["median"]), digits(row["times_vmap"])]
        for name, kinds in found["greedy"]["rows"].items()
        if "vmap" in kinds
        for kind, row in kinds.items()
    ]
    return [
        "### Greedy choices",
        table(["pool", "labels", "seconds", "full update, seconds", "times", "pairs in common"], rows),
        hardware(found["machine"], SELECTION),
        f"{found['greedy']['problem']}. `greedy` looks only at prompts that may hold the best pair; the full update is "
        "a compiled rank-one greedy that updates all pairs at every pick. In a training step, 8 labels for each pool "
        "(prompts of 16 completions, d = 64):",
        table(["pools", "how", "milliseconds", "times vmap"], many),
        hardware(found["machine"], SELECTION),
    ]


def _features(found: dict[str, Any]) -> list[str]:
    features = found["features"]
    rows = [
        [batch.removeprefix("batch "), name, milliseconds(row["median"]), digits(row["times_batched_gradient"])]
        for batch, kinds in features.items()
        if batch.startswith("batch")
        for name, row in kinds.items()
    ]
    return [
        "### Features of a policy: projected per-example gradients",
        table(["completions", "what", "milliseconds", "times one gradient of the batch"], rows),
        hardware(found["machine"], FEATURES),
        f"A transformer of {features['parameters']:,} parameters, {features['tokens']} tokens a completion.",
    ]
