"""Stand-ins of `sbatch`, `srun` and `scontrol` that run a job on this machine, one node of it after the other's rank.

They know the options and set the variables that Slurm documents, and refuse any other option. `STAND_IN` names the
folder where they keep their state: `signal` there is what the first start of each task gets once `started` exists, or
the file that `when` names.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["STAND_IN"])
JOB = 4711
SBATCH = {"job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "time", "output"}
SBATCH |= {"open-mode", "signal", "requeue", "array"}


def options(words: list[str], known: set[str]) -> tuple[dict[str, str], list[str]]:
    """Split `--key=value` words from what follows them; an unknown one is refused, as Slurm does."""
    found: dict[str, str] = {}
    for index, word in enumerate(words):
        if not word.startswith("--"):
            return found, words[index:]
        key, _, value = word.removeprefix("--").partition("=")
        if key not in known:
            raise SystemExit(f"unrecognized option '{word}'")
        found[key] = value
    return found, []


def sbatch(words: list[str]) -> int:
    given, (script, *arguments) = options(words, SBATCH)
    header = re.findall(r"^#SBATCH (--\S+)", Path(script).read_text(), re.MULTILINE)
    settings = options(header, SBATCH)[0] | given
    print(f"Submitted batch job {JOB}", flush=True)
    first, last = map(int, re.fullmatch(r"(\d+)-(\d+)(?:%\d+)?", settings.get("array", "0-0")).groups())  # type: ignore[union-attr]
    codes = [task(settings, script, arguments, number) for number in range(first, last + 1)]
    return max(codes)


def task(settings: dict[str, str], script: str, arguments: list[str], number: int) -> int:
    """Run the script until it is not queued again; give the last exit code."""
    nodes, per_node = int(settings.get("nodes", 1)), settings.get("ntasks-per-node")
    tasks = int(settings.get("ntasks", nodes * int(per_node or 1)))
    variables = {"SLURM_JOB_ID": str(JOB + number), "SLURM_NNODES": str(nodes), "SLURM_NTASKS": str(tasks)}
    variables |= {"SLURM_JOB_NAME": settings["job-name"], "SLURM_CPUS_PER_TASK": settings["cpus-per-task"]}
    variables |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NPROCS": str(tasks)}
    variables |= {"SLURM_NTASKS_PER_NODE": per_node} if per_node else {}
    variables |= {"SLURM_GPUS_PER_NODE": settings["gpus-per-node"]} if "gpus-per-node" in settings else {}
    name = str(JOB)
    if "array" in settings:
        variables |= {"SLURM_ARRAY_JOB_ID": str(JOB), "SLURM_ARRAY_TASK_ID": str(number)}
        name = f"{JOB}_{number}"
    place = settings["output"].replace("%x", settings["job-name"]).replace("%j", variables["SLURM_JOB_ID"])
    place = place.replace("%A", str(JOB)).replace("%a", str(number))
    for restart in itertools.count():
        variables |= {"SLURM_RESTART_COUNT": str(restart)} if restart else {}
        (STATE / "started").unlink(missing_ok=True)
        with Path(place).open(settings["open-mode"][0]) as out:
            shell = subprocess.Popen(
                ["bash", script, *arguments], env=os.environ | variables, stdout=out, stderr=subprocess.STDOUT
            )
            if restart == 0 and (STATE / "signal").exists():
                disturb(shell, settings["signal"])
            code = shell.wait()
        queued = STATE / f"requeue-{name}"
        if not queued.exists():
            return code
        queued.unlink()
    raise AssertionError


def disturb(shell: subprocess.Popen[bytes], wanted: str) -> None:
    """Send the batch shell, and it alone, the signal that it asked for with `--signal=B:`, or the one of scancel."""
    when = STATE / "when"
    started = Path(when.read_text()) if when.exists() else STATE / "started"
    while not started.exists():
        if shell.poll() is not None:
            return
        time.sleep(0.02)
    name = (STATE / "signal").read_text()
    assert name == "TERM" or re.fullmatch(rf"B:{name}@\d+", wanted)
    shell.send_signal(getattr(signal, f"SIG{name}"))


def srun(words: list[str]) -> int:
    """Start one process a task, hand SIGTERM to all, end all when one fails and `--kill-on-bad-exit` says so."""
    given, command = options(words, {"ntasks", "kill-on-bad-exit"})
    tasks = int(given.get("ntasks", os.environ["SLURM_NTASKS"]))
    per_node = int(os.environ.get("SLURM_NTASKS_PER_NODE", tasks))
    running: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        for process in running:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    for rank in range(tasks):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node), "SLURM_NODEID": str(rank // per_node)}
        own |= {"SLURM_NTASKS": str(tasks), "SLURM_NPROCS": str(tasks), "SLURM_NODELIST": "127.0.0.1"}
        before = len(received)
        running.append(subprocess.Popen(command, env=os.environ | own))
        if len(received) > before:  # it came while this task was started
            running[-1].send_signal(received[-1])
    codes: dict[int, int] = {}
    while len(codes) < tasks:
        for rank, process in enumerate(running):
            code = process.poll()
            if code is not None and rank not in codes:
                codes[rank] = code if code >= 0 else 128 - code
                if code and "kill-on-bad-exit" in given:
                    stop(signal.SIGTERM, None)
        time.sleep(0.02)
    return max(codes.values())


def scontrol(words: list[str]) -> int:
    action, job = words
    assert action == "requeue", words
    (STATE / f"requeue-{job}").touch()
    return 0


if __name__ == "__main__":
    programs = {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}
    raise SystemExit(programs[sys.argv[1]](sys.argv[2:]))
