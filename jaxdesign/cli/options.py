"""The options of the command, each checked where it is read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import jaxdesign

CRITERIA = ("trace", "logdet")


class _Parser(argparse.ArgumentParser):
    """Errors on one line, like all others."""

    def error(self, message):
        self.exit(2, f"jaxdesign: error: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    whole = _Parser(prog="jaxdesign", description="Which pairs of completions should be compared?")
    whole.add_argument("--version", action="version", version=f"jaxdesign {jaxdesign.__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")
    _select(
        commands.add_parser(
            "select",
            help="choose the pairs to have labelled",
            description="Choose the pairs of completions to have labelled, and prove how good the choice is.",
            epilog="Exit code: 0 done; 1 written, but not where asked (it says where); 2 refused; 130 interrupted.",
        )
    )
    _forecast(
        commands.add_parser(
            "forecast",
            help="say what choosing can be worth, before a label is paid for",
            description="What random pairs, the best possible choice and a design are expected to leave of the gap to "
            "the best policy, by number of labels. Prints; writes no file.",
            epilog="Exit code: 0 done; 2 refused; 130 interrupted.",
        )
    )
    return whole


def _select(command: argparse.ArgumentParser) -> None:
    """Options of `jaxdesign select`."""
    _pool(command)
    command.add_argument("--labels", metavar="N", type=_whole(1), required=True, help="number of labels to spend")
    command.add_argument(
        "--texts",
        metavar="FILE",
        help=".jsonl with the prompts and completions that the features are of, so that the tasks have texts: joined "
        "by prompt_id where the features have ids (.npz), else by order; the k-th completion is the k-th row",
    )
    _caps(command)
    command.add_argument(
        "--criterion",
        choices=CRITERIA,
        default="trace",
        help="trace: learn what matters to the policy that the completions were sampled from; errors count by what "
        "they cost it, its expected gap to the best policy being tr(H A^-1) / (2 beta). logdet: learn about all "
        "directions alike, whether that policy uses them or not. Default trace, because it is the gap itself that it "
        "makes small: in the experiments of bench/README.md logdet needed as many labels or more for the same policy, "
        "and was beaten by random pairs in more of them",
    )
    command.add_argument(
        "--ridge",
        metavar="SHARE",
        type=_number(0, math.inf, "finite and at least 0"),
        default=1e-3,
        help="prior information: this share of labels / 4 x the second moment of the centred features, about half of "
        "what the same labels spread evenly would bring (default 1e-3)",
    )
    _gap(command)
    command.add_argument(
        "--tol",
        metavar="GAP",
        type=_number(0, 1, "at least 0 and below 1"),
        default=1e-3,
        help="relative gap at which the real-valued design, and the choice, are good enough (default 1e-3)",
    )
    command.add_argument(
        "--max-passes", metavar="N", type=_whole(1), help="passes over the pool for that design, at most"
    )
    _seed(
        command,
        "for which completion is shown first (a), for roundings drawn at random and for the random pairs of the "
        "comparison",
    )
    command.add_argument(
        "--output",
        metavar="FILE",
        required=True,
        help="the tasks, .jsonl or .csv; a .json report goes beside it",
    )
    command.add_argument("--overwrite", action="store_true", help="replace these files if they exist")
    _run(command)


def _forecast(command: argparse.ArgumentParser) -> None:
    """Options of `jaxdesign forecast`."""
    _pool(command)
    command.add_argument(
        "--labels", metavar="N", type=_whole(1), nargs="+", required=True, help="numbers of labels to compare"
    )
    _caps(command)
    command.add_argument(
        "--spread",
        metavar="SD",
        type=_number(1e-3, 1e3, "at least 0.001 and below 1000"),
        default=1.0,
        help="how far apart the rewards of a prompt's completions are thought to be: their standard deviation, in the "
        "unit in which a label is sigma(difference). With 0.5 a label names the better of two 63%% of the time, with 1 "
        "73%%, with 2 83%%. Everything depends on it: `select` prints these figures for the prior of its "
        "--ridge, which by default holds rewards to be far larger, so that they differ (default 1)",
    )
    _gap(command)
    command.add_argument(
        "--by-completions",
        action="store_true",
        help="also with fewer completions of each prompt, drawn from those there are, and extrapolated to more",
    )
    command.add_argument(
        "--proxy",
        metavar="FILE",
        help=".npy of scores (prompts, completions), as of a reward model: also what they would be worth in the fit, "
        "by their correlation with the reward",
    )
    _seed(command, "of random pairs and of subsets of completions")
    _run(command)


def _pool(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "pool",
        nargs="?",
        help=".npy or .npz with features (prompts, completions, dimension), or .jsonl with a prompt and its "
        "completions a line; default: the small pool inside the package",
    )


def _caps(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--per-pair", metavar="N", type=_cap, default=1, help="labels a pair may get, or none (default 1)"
    )
    command.add_argument(
        "--per-prompt", metavar="N", type=_cap, help="labels a prompt may get (default none, no limit)"
    )


def _gap(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--beta",
        metavar="BETA",
        type=_positive,
        default=1.0,
        help="strength of the KL term of the policy that will be trained: what random pairs, the best possible choice "
        "and the chosen one are expected to leave of its gap, tr(H A^-1) / (2 beta), is printed in the unit of the "
        "reward, in which a label is sigma(difference) (default 1)",
    )
    command.add_argument(
        "--worth",
        metavar="J",
        type=_positive,
        default=0.01,
        help="gain over random pairs, in the same unit, below which the command says that choosing cannot matter "
        "(default 0.01)",
    )


def _seed(command: argparse.ArgumentParser, use: str) -> None:
    command.add_argument("--seed", metavar="N", type=_whole(0), default=0, help=f"{use} (default 0)")


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-cache",
        action="store_true",
        help="do not keep compiled programs in the user's cache folder; by default later runs on pools of the same "
        "shape start several times faster",
    )
    command.add_argument("--traceback", action="store_true", help="show where in the program an error arose")


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not number >= least or not number.is_integer():
            raise argparse.ArgumentTypeError(f"{text!r} found; expected a whole number of at least {least}")
        return int(number)

    return read


def _positive(text: str) -> float:
    number = _number(0, math.inf, "finite and above 0")(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text!r} found; must be a number, finite and above 0")
    return number


def _cap(text: str) -> int | None:
    if text.lower() == "none":
        return None
    try:
        return _whole(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or 'none' for no limit") from None


def _number(least: float, below: float, allowed: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number < below:
            raise argparse.ArgumentTypeError(f"{text!r} found; must be a number, {allowed}")
        return number

    return read
