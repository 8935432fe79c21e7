"""Criteria: convex, decreasing functions of the information matrix that a design minimises."""

from jaxdesign.criteria.log_det import LogDet as LogDet
from jaxdesign.criteria.of_function import Criterion as Criterion
from jaxdesign.criteria.protocol import ConvexCriterion as ConvexCriterion
from jaxdesign.criteria.protocol import CriterionLike as CriterionLike
from jaxdesign.criteria.protocol import Gains as Gains
from jaxdesign.criteria.trace import Trace as Trace
from jaxdesign.criteria.worst_case import WorstCase as WorstCase
