"""Sweeps: one YAML, checked here, run by W&B's agents or without a server, on one machine or a cluster.

`spec` reads and checks it, `agent_command` is the command line of a run, `launch` says what to start.
"""
