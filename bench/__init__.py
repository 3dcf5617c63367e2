"""The benchmarks behind docs/benchmarks.md: `make bench` runs them all. Ratios against a baseline in the same run, never timed tests."""
