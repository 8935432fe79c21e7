"""What tests in several folders use: problems, pools, policies, programs."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
