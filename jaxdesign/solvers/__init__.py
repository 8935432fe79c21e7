"""Solvers: `optimize` drives them by name; `frank_wolfe` and `multiplicative` also run inside the caller's jit."""

from jaxdesign.solvers.optimize import optimize as optimize
