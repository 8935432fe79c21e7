"""Fits to labels: Bradley-Terry, posteriors, references, reliability of annotators."""
