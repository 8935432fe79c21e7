"""Budgets: which allocations are allowed, and the linear oracle over them."""

from jaxdesign.budget.budget import Budget as Budget
from jaxdesign.budget.constraint import Constraint as Constraint
from jaxdesign.budget.limits import Limits as Limits
from jaxdesign.budget.quota import Quota as Quota
