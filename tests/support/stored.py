"""A pool with everything that makes pools irregular, to be stored and read again."""

import numpy as np

PROMPTS, COMPLETIONS, DIM = 1130, 16, 6


def ragged(dtype=np.float32, prompts=PROMPTS, *, seed=0, draws=None, noise=False):
    """Features with heavy tails, common offsets and some copies; a mask with NaN behind it; scores and flips."""
    rng = np.random.default_rng(seed)
    shape = prompts, COMPLETIONS, DIM
    features = rng.standard_normal(shape) * np.exp(rng.standard_normal((prompts, 1, 1)))
    features = (features + 3 * rng.standard_normal((prompts, 1, DIM))).astype(dtype)
    alike = rng.random(prompts) < 0.1
    features[alike, 5] = features[alike, 3]
    count = np.where(np.arange(prompts) % 3 == 0, 1 + np.arange(prompts) % COMPLETIONS, COMPLETIONS)
    count[0] = 0  # a page of listed pairs is filled up by the pair (0, 0, 0)
    mask = np.arange(COMPLETIONS)[None] < count[:, None]
    features[~mask] = np.nan
    scores = None if draws is None else rng.standard_normal((draws, *shape[:2]) if draws > 1 else shape[:2])
    flip = 0.3 * rng.random(prompts) if noise else None
    return {"features": features, "scores": scores, "mask": mask, "flip": flip}
