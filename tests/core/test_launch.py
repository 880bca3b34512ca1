"""Which process of how many: from every launcher's variables; real processes that train as Lightning's own do."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.distributed import run

from ssl_lightning.cli import run as build
from ssl_lightning.config import ranges
from ssl_lightning.core import launch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import Launch
from tests.gloo import free_port
from tests.launching import COPIES, LAUNCHERS, TINY, by_hand, end, open_mpi, slurm, start, start_all

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "98765"}
SLURM |= {"SLURM_NODELIST": "gpu[07-08]", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_NNODES": "2"}
OMPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"GROUP_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}

# What is set, and what is read from it: kind, rank, world, local rank, local world, address.
TOLD: dict[str, tuple[dict[str, str], tuple[Any, ...]]] = {
    "nothing": ({}, ("", 0, 1, 0, 0, None)),
    "torchrun": (TORCHRUN, ("torchrun", 3, 4, 1, 2, "a")),
    "torchrun inside SLURM": (TORCHRUN | SLURM | {"SLURM_PROCID": "0"}, ("torchrun", 3, 4, 1, 2, "a")),
    "srun": (SLURM, ("srun", 3, 4, 1, 2, "gpu07")),
    "srun, tasks told by node": (
        {**SLURM, "SLURM_TASKS_PER_NODE": "", "SLURM_NTASKS_PER_NODE": "2"},
        ("srun", 3, 4, 1, 2, "gpu07"),
    ),
    "srun, unequal nodes": ({**SLURM, "SLURM_TASKS_PER_NODE": "3,1"}, ("srun", 3, 4, 1, 0, "gpu07")),
    "srun, PMIx": ({**SLURM, "PMIX_RANK": "3"}, ("srun", 3, 4, 1, 2, "gpu07")),
    "srun, an address given": ({**SLURM, "MASTER_ADDR": "b"}, ("srun", 3, 4, 1, 2, "b")),
    "an interactive job": ({**SLURM, "SLURM_JOB_NAME": "interactive"}, ("", 0, 1, 0, 0, None)),
    "a shell of SLURM": ({**SLURM, "SLURM_JOB_NAME": "bash"}, ("", 0, 1, 0, 0, None)),
    "an interactive job with a name": ({k: v for k, v in SLURM.items() if k != "SLURM_PROCID"}, ("", 0, 1, 0, 0, None)),
    "one task of SLURM": ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ("", 0, 1, 0, 0, None)),
    "Open MPI": (OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, ("mpirun", 1, 2, 1, 2, None)),
    "Open MPI, few variables": (OMPI, ("mpirun", 1, 2, 1, 2, None)),
    "Open MPI inside SLURM": (OMPI | SLURM | {"SLURM_PROCID": "0"}, ("mpirun", 1, 2, 1, 2, None)),
    "MPICH": (MPICH | {"MASTER_ADDR": "c"}, ("mpirun", 3, 4, 1, 2, "c")),
    "PMI, few variables": ({"PMI_RANK": "1", "PMI_SIZE": "2"}, ("mpirun", 1, 2, 1, 2, None)),
    "MVAPICH": (
        {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_LOCAL_RANK": "1"},
        ("mpirun", 1, 2, 1, 2, None),
    ),
    "PMIx and a size": ({"PMIX_RANK": "1", "WORLD_SIZE": "2"}, ("mpirun", 1, 2, 1, 2, None)),
    "one process of MPI": ({"PMI_RANK": "0", "PMI_SIZE": "1"}, ("", 0, 1, 0, 0, None)),
    "by hand": ({"RANK": "1", "WORLD_SIZE": "2"}, ("RANK and WORLD_SIZE", 1, 2, 1, 0, None)),
    "a pod": (
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "d", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        ("RANK and WORLD_SIZE", 1, 2, 0, 1, "d"),
    ),
    "Lightning's way": ({"LOCAL_RANK": "1"}, ("LOCAL_RANK", 1, 0, 1, 0, None)),
    "Lightning's way, second node": ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, ("LOCAL_RANK", 1, 0, 0, 0, None)),
}


@pytest.mark.parametrize("name", TOLD)
def test_who_this_is(name: str) -> None:
    environ, (kind, rank, world, local, local_world, address) = TOLD[name]
    found = launch.here(environ)
    assert (found.kind, found.rank, found.world) == (kind, rank, world)
    assert (found.local_rank, found.local_world, found.address) == (local, local_world, address)
    assert found.is_main == (rank == 0)


def test_jsrun(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("batch\nnode5\nnode5\nnode6\nnode6\n")
    told = {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": str(tmp_path / "hosts"), "JSM_NAMESPACE_LOCAL_RANK": "1"}
    told |= {"JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "3"}
    found = launch.here(told)
    assert (found.kind, found.rank, found.world, found.local_rank, found.address) == ("jsrun", 3, 4, 1, "node5")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("a b", "a"), ("n[05-08,11],m", "n05"), ("n[3],m", "n3"), ("n[1,2].x.org", "n1.x.org")],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert launch.here({**SLURM, "SLURM_NODELIST": nodes}).address == first


def test_ranks_of_one_job_share_a_port_and_jobs_do_not() -> None:
    def port(**more: str) -> int | None:
        return launch.here({**OMPI, **more}).port

    assert port(PMIX_NAMESPACE="job-1") == port(PMIX_NAMESPACE="job-1", OMPI_COMM_WORLD_RANK="0")
    assert port(PMIX_NAMESPACE="job-1") != port(PMIX_NAMESPACE="job-2")
    assert port(MASTER_PORT="123") == 123
    assert launch.here(SLURM).port == 15000 + 8765
    assert launch.here({**SLURM, "MASTER_PORT": "123"}).port == 123


def test_what_the_launcher_says_is_stored_too() -> None:
    _, config = build.settle(launch.here(OMPI), build.compose(["trainer=cpu"]))
    assert config.values["trainer"]["devices"] == config.stored["trainer"]["devices"] == 2


def test_a_variable_that_is_no_number() -> None:
    with pytest.raises(UserError, match="RANK=x in the environment is no number"):
        launch.here({"RANK": "x", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("environ", "asked", "devices", "nodes"),
    [
        (SLURM, {}, 2, 2),
        (SLURM, {"devices": 2}, 2, 2),
        (SLURM, {"devices": "auto"}, 2, 2),
        (SLURM, {"devices": [4, 5]}, [4, 5], 2),
        (SLURM, {"devices": 2, "num_nodes": 2}, 2, 2),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "3,1"}, {}, 1, 4),
        (OMPI, {"devices": 1}, 2, 1),
        (MPICH | {"MASTER_ADDR": "c"}, {}, 2, 2),
        ({"RANK": "1", "WORLD_SIZE": "2"}, {"devices": 2}, 2, 1),
        ({"LOCAL_RANK": "1"}, {"devices": 2}, 2, 1),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a"}, {"devices": 4}, 1, 4),
        ({}, {"devices": 4}, 4, 1),
    ],
)
def test_the_launcher_and_the_trainer_s_arguments(environ: Any, asked: Any, devices: Any, nodes: int) -> None:
    trainer = {"devices": 1, "num_nodes": 1, **asked}
    found, settled = launch.settle(launch.here(environ), trainer)
    assert (settled["devices"], settled["num_nodes"]) == (devices, nodes)
    assert launch.settle(found, settled)[1] == settled  # a second look changes nothing


@pytest.mark.parametrize(
    ("environ", "asked", "said"),
    [
        (OMPI, {"devices": 4}, "mpirun started 2 processes, and trainer.devices=4"),
        (SLURM, {"devices": 2, "num_nodes": 3}, "srun started 4 processes"),
        (
            {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"},
            {"devices": 2},
            "torchrun started 1 pro",
        ),
        (MPICH, {}, "several machines: set MASTER_ADDR"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, {}, "rank 2 of 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, {}, "rank -1 of 2"),
    ],
)
def test_contradictions_are_told(environ: Any, asked: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        launch.settle(launch.here(environ), {"devices": 1, "num_nodes": 1, **asked})


def test_lightnings_way_on_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"LOCAL_RANK": "1", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "5"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    found, _ = launch.settle(launch.here(), {"devices": 2, "num_nodes": 2})
    assert found == Launch("LOCAL_RANK", 3, 4, 1, 2, "a", 5)


@pytest.mark.parametrize(
    ("trainer", "number"),
    [
        ({"devices": 3}, 3),
        ({"devices": "2"}, 2),
        ({"devices": "0,1"}, 2),
        ({"devices": [1]}, 1),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
        ({"devices": 2, "strategy": "ddp_spawn"}, 1),
    ],
)
def test_how_many_processes_a_command_starts_itself(trainer: Any, number: int) -> None:
    assert launch.wanted(trainer) == number


# ---- real processes ------------------------------------------------------------------------------------------------


def differences(one: Path, two: Path) -> list[str]:
    """The tensors that differ."""
    left, right = (load_file(folder / "backbone.safetensors") for folder in (one, two))
    assert left.keys() == right.keys()
    return [key for key, value in left.items() if not value.equal(right[key])]


def copies_are_allowed() -> None:
    """What is refused on the command line serves as a reference here."""
    ranges._check_strategy = lambda strategy: None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that Lightning has started by itself, knowing nothing of ours."""
    folder = tmp_path_factory.mktemp("lightning")
    more = ["trainer.devices=2", "trainer.strategy=ddp_fork"]
    words = ["name=a", f"runs_dir={folder}/runs", *TINY, *more]
    # With a variable of its own: without any, what is to be called first is called in further processes alone.
    codes = end(start(words, folder / "said.txt", copies_are_allowed, LC_ALL="C"))
    assert codes == [0], (folder / "said.txt").read_text()
    return folder / "runs" / "a"


def two_nodes(rank: int, world: int, port: int) -> dict[str, str]:
    """By hand, on what says to be two machines."""
    return {**by_hand(rank, world, port), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": str(rank)}


def few_variables(rank: int, world: int, port: int) -> dict[str, str]:
    """MPI without an address or a port: all on this machine, started by this process."""
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(world), "PMI_JOBID": f"job {port}"}


@pytest.mark.long
@pytest.mark.parametrize("launcher", [None, slurm, open_mpi, two_nodes, few_variables])
def test_every_launcher_gives_what_lightning_s_own_gives(launcher: Any, reference: Path, tmp_path: Path) -> None:
    words, log = ["name=a", f"runs_dir={tmp_path}/runs", *TINY], tmp_path / "said.txt"
    began = [start([*words, "trainer.devices=2"], log)] if launcher is None else start_all(launcher, words, log)
    assert set(end(*began)) == {0}, log.read_text()
    assert differences(tmp_path / "runs" / "a", reference) == []
    assert log.read_text().count("run: ") == 1
    results = json.loads((tmp_path / "runs" / "a" / "results.json").read_text())
    assert results["steps"] == 6  # 96 images, 16 for each of two processes, two epochs


def _agent(flags: list[str], words: list[str], log: Path) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        del os.environ[name]
    os.environ.update({"XDG_CACHE_HOME": str(log.parent / "cache"), "OMP_NUM_THREADS": "1"})
    screen = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(screen, 1)
    os.dup2(screen, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    run.main([*flags, "-m", "ssl_lightning", *words])


def torchrun(words: list[str], log: Path, *flags: str) -> Any:
    """Begin `torchrun flags -m ssl_lightning words`; its ranks are fresh processes, as ever."""
    process = COPIES.Process(target=_agent, args=(list(flags), words, log))
    process.start()
    return process


@pytest.mark.long
@pytest.mark.slow
def test_torchrun_on_two_nodes_and_a_judging_stage_under_it(reference: Path, tmp_path: Path) -> None:
    words, log = [f"runs_dir={tmp_path}/runs", *TINY], tmp_path / "said.txt"
    flags = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    nodes = [torchrun(["name=a", *words], log, *flags, f"--node-rank={rank}") for rank in range(2)]
    assert end(*nodes, seconds=250) == [0, 0], log.read_text()
    assert differences(tmp_path / "runs" / "a", reference) == []

    knn = ["data.size=96", "data.test_size=32", "stage=knn", f"ckpt={tmp_path}/runs/a", "trainer.accelerator=cpu"]
    two = torchrun([*knn, f"runs_dir={tmp_path}/two", "name=k"], log, "--standalone", "--nproc-per-node=2")
    one = start([*knn, f"runs_dir={tmp_path}/one", "name=k"], log)
    assert end(two, one, seconds=250) == [0, 0], log.read_text()
    found = [json.loads((tmp_path / name / "k" / "results.json").read_text()) for name in ("one", "two")]
    for key in ("knn_top1", "baselines", "protocol"):
        assert found[0][key] == found[1][key]


@pytest.mark.long
@pytest.mark.slow
def test_torchrun_shows_the_one_line(tmp_path: Path) -> None:
    words, log = [f"runs_dir={tmp_path}/runs", "data=folder", f"data.root={tmp_path}/nowhere"], tmp_path / "said.txt"
    code = end(torchrun([*words, "trainer.accelerator=cpu"], log, "--standalone", "--nproc-per-node=2"), seconds=250)
    said = log.read_text()
    ours, _, report = said.partition("Traceback")  # torchrun's own, and its report
    assert code == [1]
    assert f"{tmp_path}/nowhere" in next(line for line in ours.splitlines() if line.startswith("error: "))
    assert ours.count("error: ") == 1
    assert f"{tmp_path}/nowhere" in report
    assert "ssl_lightning/cli/run.py" not in said


@pytest.mark.parametrize("words", [["-m", "seed=1,2"]])
def test_a_sweep_is_not_started_several_times(words: list[str], tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    codes = end(*start_all(slurm, [*words, f"runs_dir={tmp_path}/runs"], log))
    assert codes == [2, 2]
    assert "a sweep starts its jobs by itself" in log.read_text()
    assert not (tmp_path / "runs").exists()
