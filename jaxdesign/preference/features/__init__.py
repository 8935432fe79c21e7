"""Features of completions from a model: gradients, hidden states, projections."""
