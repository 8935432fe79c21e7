"""Certificates: lower bounds that no allowed allocation goes below, and what an allocation is worth."""
