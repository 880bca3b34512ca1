"""Which of how many processes is this? Read from what launchers set, long before torch is imported.

torchrun, srun, mpirun (Open MPI, MPICH, Intel MPI, MVAPICH), LSF's jsrun, Kubeflow and ranks started by hand are known;
a command that none of them started is alone, and starts further processes itself where trainer.devices asks for them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ssl_lightning.core.errors import UserError

LOOPBACK = "127.0.0.1"
PORT = 29500  # torch's own default
OWN = "SSL_LIGHTNING_LAUNCHED"  # set for the processes that the command itself has started


class Misplaced(UserError):
    """A process that is none of its run's: no other rank can say so in its place."""


@dataclass(frozen=True)
class Launch:
    """This process among those of its run. `world` is 0 where the launcher does not tell it."""

    kind: str = ""  # "torchrun", "srun", ...; "" when no launcher started this process
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 0  # processes on this machine, 0: unknown
    address: str | None = None  # of rank 0
    port: int | None = None
    agent_store: bool = False  # torchrun itself listens at the port

    @property
    def is_main(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    @property
    def even(self) -> bool:
        """Has each machine the same number of processes, as far as this one can tell?"""
        return self.local_world > 0 and self.world % self.local_world == 0


def here(environ: Mapping[str, str] | None = None) -> Launch:
    """What the environment says of this process. Raises UserError where a variable is no number."""
    environ = os.environ if environ is None else environ
    # An inner launcher first: mpirun and torchrun also run inside a job of SLURM, which has set its own variables.
    for find in (_own, _torchrun, _jsrun, _mpirun, _srun, _by_hand):
        found = find(environ)
        if found is not None:
            return found
    return Launch()


def is_main_process() -> bool:
    """Is this the process that writes?"""
    return here().is_main


# ---- launchers -----------------------------------------------------------------------------------------------------


def number(environ: Mapping[str, str], *names: str) -> int | None:
    """The first of these variables that is set."""
    for name in names:
        if environ.get(name, "") != "":
            try:
                return int(environ[name])
            except ValueError as error:
                raise UserError(f"{name}={environ[name]} in the environment is no number; unset it") from error
    return None


def _named(environ: Mapping[str, str], kind: str) -> Launch:
    """RANK, WORLD_SIZE and the rest, as torchrun sets them."""
    rank, world = number(environ, "RANK") or 0, number(environ, "WORLD_SIZE") or 0
    local, local_world = number(environ, "LOCAL_RANK"), number(environ, "LOCAL_WORLD_SIZE") or 0
    if local is None and "KUBERNETES_SERVICE_HOST" in environ:  # one process in each pod
        local, local_world = 0, 1
    address, port = environ.get("MASTER_ADDR"), number(environ, "MASTER_PORT")
    return Launch(kind, rank, world, rank if local is None else local, local_world, address, port)


def _own(environ: Mapping[str, str]) -> Launch | None:
    return _named(environ, "trainer.devices") if environ.get(OWN) else None


def _torchrun(environ: Mapping[str, str]) -> Launch | None:
    if "TORCHELASTIC_RUN_ID" not in environ or "RANK" not in environ:
        return None
    return replace(_named(environ, "torchrun"), agent_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def _srun(environ: Mapping[str, str]) -> Launch | None:
    # In an interactive job the variables describe the allocation, not processes that were started. One task is what
    # any job has, and says nothing of who started this process; without a rank srun has not.
    world = number(environ, "SLURM_NTASKS")
    rank = number(environ, "SLURM_PROCID")
    if not world or world == 1 or rank is None or environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    job = environ.get("SLURM_JOB_ID", "")
    port = number(environ, "MASTER_PORT") or (15000 + int(job[-4:]) if job[-4:].isdigit() else 12910)
    return Launch(
        "srun",
        rank,
        world,
        number(environ, "SLURM_LOCALID") or 0,
        _tasks_here(environ, world),
        environ.get("MASTER_ADDR") or _first_host(nodes or LOOPBACK),
        port,
    )


def _tasks_here(environ: Mapping[str, str], world: int) -> int:
    """How many tasks this node has, from "2(x3),1": two on each of three nodes, then one."""
    counts: list[int] = []
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE") or ""
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    node = number(environ, "SLURM_NODEID") or 0
    if sum(counts) == world and node < len(counts):
        return counts[node] if len(set(counts)) == 1 else 0
    nodes = number(environ, "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    return number(environ, "SLURM_NTASKS_PER_NODE") or (world // nodes if nodes and world % nodes == 0 else 0)


def _first_host(nodes: str) -> str:
    """The first host of "node[05-08,11],gpu1": node05."""
    first = re.match(r"([^\[, ]+)(?:\[([^\],-]+)[^\]]*\])?([^\[, ]*)", nodes.strip())
    return f"{first[1]}{first[2] or ''}{first[3]}" if first else nodes


def _mpirun(environ: Mapping[str, str]) -> Launch | None:
    rank = number(environ, "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
    world = number(environ, "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")
    if rank is None or world == 1 or (world is None and _srun(environ)):  # srun gives PMIX_RANK, and no size
        return None
    local = number(environ, "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
    local = number(environ, "SLURM_LOCALID", "PALS_LOCAL_RANKID") if local is None else local
    sizes = "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PALS_LOCAL_SIZE"
    local_world, world = number(environ, *sizes) or 0, world or 0
    one_host = local_world == world if local_world else local in (None, rank)
    address, port = environ.get("MASTER_ADDR"), number(environ, "MASTER_PORT")
    local_world = local_world or (world if one_host else 0 if address else 1)
    return Launch("mpirun", rank, world, rank if local is None else local, local_world, address, port or _port(environ))


def _port(environ: Mapping[str, str]) -> int:
    """The same port for all processes of one job: from the job's name, else from the launcher that started them."""
    names = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
    text = next((environ[name] for name in names if environ.get(name)), str(os.getppid()))
    return 15000 + sum(byte * 31**i for i, byte in enumerate(text.encode())) % 10000


def _jsrun(environ: Mapping[str, str]) -> Launch | None:
    if not {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"} <= set(environ):
        return None
    try:
        with open(environ["LSB_DJOB_RANKFILE"]) as file:
            hosts = file.read().split()[1:]  # the first is the node that the job was submitted to
    except OSError:
        hosts = []
    address = environ.get("MASTER_ADDR") or (hosts[0] if hosts else None)
    if address is None:
        raise UserError(f"{environ['LSB_DJOB_RANKFILE']} names no host: set MASTER_ADDR to the host of rank 0 for all")
    rank, world = number(environ, "JSM_NAMESPACE_RANK") or 0, number(environ, "JSM_NAMESPACE_SIZE") or 0
    local, port = number(environ, "JSM_NAMESPACE_LOCAL_RANK") or 0, number(environ, "MASTER_PORT")
    return Launch("jsrun", rank, world, local, 0, address, port or _port({"LSB_JOBID": environ["LSB_JOBID"]}))


def _by_hand(environ: Mapping[str, str]) -> Launch | None:
    """RANK and WORLD_SIZE (Kubeflow sets these), or Lightning's way: LOCAL_RANK, and NODE_RANK with several nodes."""
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _named(environ, "RANK and WORLD_SIZE")
    if "LOCAL_RANK" not in environ:
        return None
    local, node = number(environ, "LOCAL_RANK") or 0, number(environ, "NODE_RANK", "GROUP_RANK") or 0
    found = _named({k: v for k, v in environ.items() if k not in ("RANK", "WORLD_SIZE")}, "LOCAL_RANK")
    return replace(found, rank=max(local, node), local_rank=local)  # what matters: 0 for the first alone


# ---- what the config says of it ------------------------------------------------------------------------------------


def settle(here: Launch, trainer: Mapping[str, Any]) -> tuple[Launch, dict[str, Any]]:
    """Bring the launcher and trainer.devices and num_nodes together: (this process, the trainer's arguments).

    What was left at its default of 1 is taken from the launcher. Raises UserError where the two contradict.
    """
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if not here.kind:
        return here, dict(trainer)
    asked = count(devices)
    if here.world == 0:  # only the config can tell how many there are
        node = number(os.environ, "NODE_RANK", "GROUP_RANK") or 0
        rank = node * (asked or 1) + here.local_rank if here.kind == "LOCAL_RANK" else here.rank
        here = replace(here, world=(asked or 1) * nodes, rank=rank, local_world=here.local_world or asked or 1)
    if not here.local_world and (asked or 1) > 1 and here.world % (asked or 1) == 0:
        here = replace(here, local_world=asked or 1)
    if here.address is None and here.local_world and here.local_world != here.world:
        raise UserError(f"{here.kind} started processes on several machines: set MASTER_ADDR to the host of rank 0")
    if not here.local_world and here.address in (None, LOOPBACK, "localhost"):
        here = replace(here, local_world=here.world)
    here = replace(here, address=here.address or LOOPBACK, port=here.port or PORT)
    if not 0 <= here.rank < here.world:
        raise Misplaced(f"{here.kind} says this is rank {here.rank} of {here.world}; ranks count from 0")
    local = here.local_world if here.even else 1
    layout = (local, here.world // local)
    fits = asked in (None, 1, here.local_world or asked) and nodes in (1, layout[1])
    if not fits and (asked or 1) * nodes != here.world:
        raise UserError(
            f"{here.kind} started {here.world} process{'es' * (here.world > 1)}, and trainer.devices={devices} with "
            f"trainer.num_nodes={nodes} means {(asked or 1) * nodes}; leave both out, or start as many"
        )
    chosen = devices if asked == local and devices != 1 else local  # a list names the GPUs to use
    return here, {**trainer, "devices": chosen, "num_nodes": layout[1]}


def count(devices: Any) -> int | None:
    """How many devices a value of trainer.devices asks for; None: all there are."""
    if isinstance(devices, list | tuple):
        return len(devices)
    text = str(devices).strip()
    if text in ("auto", "-1", "None"):
        return None
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdigit() else 1


def copies(trainer: Mapping[str, Any]) -> bool:
    """Is this a strategy by which Lightning copies the process in its own way?"""
    return any(word in str(trainer.get("strategy", "")) for word in ("spawn", "fork", "notebook"))


def wanted(trainer: Mapping[str, Any]) -> int:
    """How many processes this machine should run when no launcher has started any."""
    if copies(trainer):
        return 1
    found = count(trainer.get("devices", 1))
    if found is not None:
        return found
    if trainer.get("accelerator") == "cpu":
        return 1
    import torch

    return max(1, torch.accelerator.device_count()) if torch.accelerator.is_available() else 1
