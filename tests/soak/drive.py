"""Runs that are stopped again and again until they reach their end, and are then compared with one left in peace."""

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.core.signals import NUMBERS, status
from tests.equal_runs import differences
from tests.gloo import free_port
from tests.soak.blow import TRAINING, Blow, process

# Each run is a copy of a process that has imported everything: to import takes longer than to train.
COPIES = multiprocessing.get_context("forkserver")
COPIES.set_forkserver_preload(
    [
        "tests.soak.blow",
        "tests.soak.drive",
        "ssl_lightning.cli.run",
        "ssl_lightning.cli.trainers",
        "ssl_lightning.stages.pretrain",
        "ssl_lightning.stages.finetune",
        "ssl_lightning.stages.linear",
        "ssl_lightning.modalities.image.sources.shapes",
        "ssl_lightning.cli.table",
    ]
)
KINDS = (signal.SIGKILL, *(signal.Signals(number) for number in NUMBERS))
LIMIT = 240.0  # seconds for one process; on a busy machine a whole run takes a tenth of this
ALONE = 30.0  # seconds that one rank may go on when the other has ended

SMALL = ["data.size=96", "data.test_size=64", "data.batch_size=16", "trainer.accelerator=cpu", "data.num_workers=0"]
NETWORK = ["backbone.width=8", "method.projector.hidden_dim=16", "method.projector.out_dim=8"]
OFTEN = ["trainer.max_epochs=3", "callbacks.checkpoint.every_n_steps=2"]
VIT = ["backbone.dim=16", "backbone.heads=2", "backbone.depth=2", "method.decoder.dim=16", "method.decoder.heads=2"]
PRETRAIN = {
    "joint": ["method=simclr", *SMALL, *NETWORK, *OFTEN],
    "teacher": ["method=byol", *SMALL, *NETWORK, *OFTEN],
    "masked": ["method=mae", *SMALL, *VIT, *OFTEN],
}
TWO = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=8"]
JUDGE = {
    "finetune": ["stage=finetune", *SMALL, "stage.epochs=4", "stage.batch_size=16"],
    "linear": ["stage=linear", "stage.augmented=true", *SMALL, "stage.epochs=3", "stage.batch_size=16"],
}
# What is added to the command of a run that has ended, which makes it go on.
LONGER = {extend: ["trainer.max_epochs=5", f"scheduler.extend={extend}"] for extend in ("stretch", "hold", "rewarm")}
FAMILIES: dict[str, tuple[int, list[str], list[str]]] = {  # processes, words, words of the longer run
    **{f"{name}, one process": (1, words, []) for name, words in PRETRAIN.items()},
    **{f"{name}, two processes": (2, [*words, *TWO], []) for name, words in PRETRAIN.items()},
    "fine-tuning": (1, JUDGE["finetune"], []),
    "augmented linear": (1, JUDGE["linear"], []),
    "from weights": (1, PRETRAIN["joint"], []),
    **{
        f"made longer by {extend}": (1, [*PRETRAIN["joint"], "scheduler.min_lr=1e-4"], words)
        for extend, words in LONGER.items()
    },
}
ON_WEIGHTS = ("fine-tuning", "augmented linear", "from weights")  # of the first family's run


@dataclass
class Tally:
    """What was done to a family, and what came of it."""

    blows: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.blows.values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.blows.items()))
        places = ", ".join(f"{count} {name}" for name, count in sorted(self.moments.items()))
        end = "equal" if not self.wrong else "\n    ".join(["NOT EQUAL, OR ENDED WRONG:", *self.wrong])
        return f"{self.kills} kills ({kinds}; at {places}) in {self.runs} runs: {end}"


class Family:
    """One kind of run: how it is begun, and what it ends as when nothing happens to it."""

    def __init__(self, name: str, folder: Path, ckpt: Path | None = None, seed: int = 0) -> None:
        self.name, self.folder = name, folder
        self.world, words, self.longer = FAMILIES[name]
        self.words = [*words, "name=run", *([f"ckpt={ckpt}"] if ckpt else [])]
        self.random = random.Random(f"{name} {seed}")
        self.tally = Tally()
        self.whole = folder / "whole" / "run"
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        for longer in (False, True) if self.longer else (False,):
            codes = self.start("whole", None, longer)
            assert codes == [0] * self.world, f"the run by itself ended with {codes}: see {self.folder}/whole.*.txt"
        self.seconds = (time.monotonic() - start) / (2 if self.longer else 1)

    def start(self, name: str, blow: Blow | None, longer: bool = False) -> list[int]:
        """Run `name`, from its beginning or where it stopped; the exit status of each rank."""
        port, processes = free_port(), []
        for rank in range(self.world):
            values = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder / "cache")}
            if self.world > 1:  # as torchrun sets them
                values |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "soak"}
                values |= {"WORLD_SIZE": str(self.world), "LOCAL_WORLD_SIZE": str(self.world)}
                values |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            struck = blow if blow is not None and rank in blow.ranks else None
            argv = [*self.words, *(self.longer if longer else ()), f"runs_dir={self.folder / name}"]
            files = [self.folder / f"{name}.{rank}.{end}" for end in ("txt", "mark")]
            files[1].unlink(missing_ok=True)
            processes.append(COPIES.Process(target=process, args=(argv, values, struck, *files)))
        for one in processes:
            one.start()
        return self._await(processes)

    def _await(self, processes: list[Any]) -> list[int]:
        """The launcher's part: a rank that another one has left alone is ended."""
        end = time.monotonic() + LIMIT
        try:
            while any(one.is_alive() for one in processes) and time.monotonic() < end:
                ended = [one.exitcode for one in processes if one.exitcode is not None]
                if any(code for code in ended):
                    end = min(end, time.monotonic() + (0.5 if -signal.SIGKILL in ended else ALONE))
                time.sleep(0.01)
        finally:
            for one in processes:
                if one.is_alive():
                    one.kill()
                one.join()
        return [one.exitcode for one in processes]

    def blow(self) -> Blow:
        """A random one."""
        draw = self.random
        number = draw.choice(KINDS)
        moment = draw.choice(("start", "batch", "batch", "last", "last", "validation", "between", "time", "write"))
        if moment == "write":
            return Blow(number, draw.choice(("fsync", "replace", "renamed")), draw.randint(1, 8))
        ranks = (0,) if self.world == 1 else draw.choice(((0,), (1,), (0, 1)))
        fits = 1 if "stage=" not in " ".join(self.words) else 3
        count = {"batch": draw.randint(1, 9), "last": draw.randint(1, 2), "validation": draw.randint(1, 2)}
        count["between"] = draw.randint(1, fits)
        delay = {"time": draw.uniform(0, self.seconds), "between": draw.choice((0.0, draw.uniform(0, 1)))}
        return Blow(number, moment, count.get(moment, 1), delay.get(moment, 0.0), ranks)

    def soak(self, kills: int) -> Tally:
        """Stop runs until so many blows have fallen, each run to its end; then compare."""
        while self.tally.kills < kills:
            self.tally.runs += 1
            blows: list[Blow | None] = [self.blow() for _ in range(kills - self.tally.kills)]
            if self.longer:  # most blows fall on the longer run
                blows.insert(self.random.choice((0, 0, 1, 2)), None)
            self.one_run(f"cut{self.tally.runs}", blows)
        return self.tally

    def one_run(self, name: str, blows: Sequence[Blow | None]) -> None:
        """Stop a run by each of these in turn, as far as it has not ended before; lead it to its end and compare.

        None: no blow, the run ends; it is then made longer, in the families that are, and so it is at its end.
        """
        longer = False
        for blow in blows:
            codes = self.start(name, blow, longer)
            if blow is not None and any(codes):
                self.count(name, blow, codes)
            elif longer or not self.longer:
                break
            else:
                longer = True
        for last in (longer, True) if self.longer else (False,):
            codes = self.start(name, None, last)
            if codes != [0] * self.world:
                self.tally.wrong.append(f"{name}: its end: exit statuses {codes}")
                return
        self.tally.wrong += [f"{name}: {line}" for line in differences(self.whole, self.folder / name / "run")]

    def count(self, name: str, blow: Blow, codes: list[int]) -> None:
        """Note a blow, and what came of it."""
        fallen = any((self.folder / f"{name}.{rank}.mark").exists() for rank in range(self.world))
        if fallen:
            self.tally.blows[signal.Signals(blow.number).name] += 1
            self.tally.moments[blow.moment] += 1
        if not self.expected(blow, codes, fallen):
            self.tally.wrong.append(f"{name}: {blow}: exit statuses {codes}")

    def expected(self, blow: Blow, codes: list[int], fallen: bool) -> bool:
        """Are these the exit statuses that this blow may lead to?"""
        if not fallen:
            return False
        if blow.number == signal.SIGKILL:
            return all(codes[rank] == -signal.SIGKILL for rank in blow.ranks)
        told = status(blow.number)
        if self.world == 1 or blow.moment in TRAINING:
            return codes == [told] * self.world
        return any(codes[rank] == told for rank in blow.ranks)  # outside of training the other may be left alone
