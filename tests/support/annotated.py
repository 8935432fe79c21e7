"""The joint problem of pairs and annotators written out: the truth for sources that share features."""

import numpy as np

from jaxdesign.pool import CompletionPool


def repeated_pool(pool, flip):
    """The pool once for each annotator, features and all, with probabilities of reversal (A,) or (A, P)."""
    count, prompts = len(flip), pool.num_prompts
    flip = np.broadcast_to(np.reshape(flip, (count, -1)), (count, prompts)).reshape(-1)
    features, mask = np.tile(pool.features, (count, 1, 1)), np.tile(pool.mask, (count, 1))
    scores = None if pool.scores is None else np.concatenate([pool.scores] * count, axis=-2)
    return CompletionPool(features, scores, mask, flip=flip)
