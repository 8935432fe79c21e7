"""Solvers: `optimize` drives them by name; `frank_wolfe` and `multiplicative` also run inside the caller's jit."""

from jaxdesign.solvers.dense.frank_wolfe import frank_wolfe as frank_wolfe
from jaxdesign.solvers.dense.multiplicative import multiplicative as multiplicative
from jaxdesign.solvers.optimize import optimize as optimize
