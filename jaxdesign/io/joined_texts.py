"""Features and texts of the same completions, from two files, joined by prompt and place among the completions."""

from __future__ import annotations

import numpy as np

from jaxdesign.io.pool_files import PoolFile


def with_texts(pool: PoolFile, texts: PoolFile) -> PoolFile:
    """The features of one file with the prompts and completions of another.

    Prompts are joined by id where the features have ids (as texts: 7 is "7"), else by order. Completion k of a prompt
    is its k-th text and its k-th row of features. Rows without a text are left out, because nobody could label them;
    a prompt has the texts of all its rows or of the first few.

    Args:
        pool: as from `read_features`.
        texts: as from `read_completions`; with ids, prompts that the features do not have do no harm.

    Returns:
        PoolFile with everything `pool` has, its mask False also where there is no text, and for each of its prompts
        prompt and completions; ids are those of the features, else of the texts.

    Raises:
        ValueError: an id without texts, another number of prompts where there are no ids, more texts than rows.

    Source: derived; checked by tests/io/test_selections.py.
    """
    if pool.features is None or texts.prompts is None or texts.completions is None or texts.ids is None:
        raise ValueError("features, prompts and completions are needed: the first file has features, the second texts")
    number, rows = pool.features.shape[:2]
    order = _by_order(number, len(texts.prompts)) if pool.ids is None else _by_id(pool.ids, texts.ids)
    completions = [texts.completions[place] for place in order]
    ids = [texts.ids[place] for place in order] if pool.ids is None else pool.ids
    for name, listed in zip(ids, completions, strict=True):
        if len(listed) > rows:
            raise ValueError(
                f"texts: {name} has {len(listed)} completions, and features only {rows} rows a prompt; completion k "
                "is row k of its prompt, so leave out the texts that have no features"
            )
    mask = np.arange(rows) < np.array([len(listed) for listed in completions])[:, None]
    if pool.mask is not None:
        mask &= pool.mask
    prompts = [texts.prompts[place] for place in order]
    return pool._replace(mask=mask, ids=ids, prompts=prompts, completions=completions)


def _by_order(number: int, texts: int) -> range:
    if number != texts:
        raise ValueError(
            f"texts: {texts} prompts found, and {number} in the features, which have no ids to join by; save them as "
            ".npz with ids, or keep one line of text for every prompt, in order"
        )
    return range(number)


def _by_id(wanted: list[str] | list[int], held: list[str] | list[int]) -> list[int]:
    place = {str(name): index for index, name in enumerate(held)}
    missing = [name for name in wanted if str(name) not in place]
    if missing:
        raise ValueError(
            f"texts: no line has prompt_id {missing[0]!r}, which the features have ({len(missing)} of {len(wanted)} "
            "ids are missing); write the ids of the features as prompt_id"
        )
    return [place[str(name)] for name in wanted]
