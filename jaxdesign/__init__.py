"""E"""
from jaxdesign.budget import Budget
from jaxdesign.criteria import Criterion, LogDet, Trace
from jaxdesign.pool import *
from jaxdesign.evaluate import evaluate
