"""What `python -m lungseg.bench` measures: one module a benchmark, each with `run(quick)` that gives lines."""
