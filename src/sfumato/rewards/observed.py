"""From the 5 % to the 95 % quantile; `python -m tools.observed_ranges` writes this."""

OBSERVED: dict[str, str] = {}
