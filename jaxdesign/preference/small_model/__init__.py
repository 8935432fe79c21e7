"""A small language model: to fine-tune, train by DPO, sample from, store."""
