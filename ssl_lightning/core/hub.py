"""Where the ranks of one run meet: passes rank 0's decision on, and brings all to an end with one word on why."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ssl_lightning.core.member import Member
from ssl_lightning.core.signals import status_of_process

# Reports in the order of what is likely to be the cause, and how many seconds a worse one is waited for.
GRACE = {"user": 0.0, "dead": 0.5, "error": 1.0, "missing": 0.0, "stopped": 10.0, "lost": 3.0}
KILLED = int(getattr(signal, "SIGKILL", 9))  # Windows has no such signal
SILENCE = 15.0  # seconds of waiting after which a line says for whom
TO_LEAVE = 3.0  # seconds in which a process must have left before it is killed


class Hub:
    """Serves until all ranks have left. `run` returns the exit status.

    Args:
        listener: a listening socket; closed as soon as all have come.
        world: how many processes there are.
        token: what a process must say to be one of them.
        join_seconds: in which all must have come.
        children: {rank: process} of those that this very process has started; then it is no rank itself.
    """

    def __init__(
        self,
        listener: socket.socket,
        world: int,
        token: str,
        join_seconds: float,
        children: Mapping[int, subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self.listener: socket.socket | None = listener
        self.world, self.token, self.children = world, token, dict(children or {})
        self.join_by, self.join_seconds = time.monotonic() + join_seconds, join_seconds
        self.speak_at = time.monotonic() + SILENCE
        self.strangers: list[Member] = []
        self.members: dict[int, Member] = {}
        self.met: set[int] = set()  # ranks that wait for the others
        self.patience = self.answer_by = float("inf")  # seconds that they may wait, and until when they do
        self.reports: list[tuple[int, dict[str, Any]]] = []
        self.first_report = 0.0
        self.screen = os.dup(2)
        if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
            os.register_at_fork(after_in_child=self._close)

    def run(self) -> int:
        """Serve until the end."""
        try:
            return self._run()
        finally:
            self._close()
            os.close(self.screen)

    def _run(self) -> int:
        while True:
            self._serve(0.1 if self.children or self.reports else 1.0)
            self._look_after_children()
            if self.listener is not None and time.monotonic() > self.speak_at:
                self._waiting()
            if self.listener is not None and time.monotonic() > self.join_by:
                self._missing()
            if time.monotonic() > self.answer_by:
                self._overdue()
            if len(self.members) == self.world and all(member.bye for member in self.members.values()):
                self._tell(ended=True)
                return self._wait_for_children(0)
            cause = self._cause()
            if cause is not None:
                return self._end(cause)

    # ---- what comes in

    def _serve(self, seconds: float) -> None:
        members = [m for m in (*self.members.values(), *self.strangers) if not m.gone]
        with selectors.DefaultSelector() as ready:  # select.select takes no descriptor above 1023
            for member in members:
                ready.register(member.socket, selectors.EVENT_READ, member)
            if self.listener is not None:
                ready.register(self.listener, selectors.EVENT_READ)
            found = [key.data for key, _ in ready.select(seconds)]
        for member in found:
            if member is None:
                assert self.listener is not None
                self.strangers.append(Member(self.listener.accept()[0]))
                continue
            for message in member.read():
                self._take(member, message)
            if member.gone and member.rank >= 0 and not member.bye:
                self._report(member.rank, kind="dead", code=1, text="")
        self.strangers = [m for m in self.strangers if not m.gone and m.rank < 0]

    def _take(self, member: Member, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._welcome(member, message)
        elif member.rank < 0:
            member.gone = True
        elif "report" in message:
            self._report(member.rank, **message["report"])
        elif "decision" in message and member.rank == 0:
            self._tell(decision=message["decision"])
        elif "meet" in message:
            if not self.met:
                self.patience = float(message["meet"])
                self.answer_by = time.monotonic() + self.patience
            self.met.add(member.rank)
            if len(self.met) == self.world:
                self.met.clear()
                self.answer_by = float("inf")
                self._tell(met=True)
        elif "quiet" in message:
            member.quiet = True
        elif "bye" in message:
            member.bye = True
        zero_done = 0 in self.members and self.members[0].bye and not self.met
        # Rank 0 has the results to write: once it is done, the others have nothing left to do.
        if ("bye" in message or "meet" in message) and zero_done and self.answer_by == float("inf"):
            self.answer_by = time.monotonic() + self.patience

    def _welcome(self, member: Member, message: dict[str, Any]) -> None:
        rank = message["hello"]
        if message.get("token") != self.token or not isinstance(rank, int) or not 0 <= rank < self.world:
            member.gone = True
            return
        if rank in self.members or message.get("world") != self.world:
            both = f"two processes say that they are rank {rank}"
            differ = f"rank {rank} counts {message.get('world')} processes, rank 0 {self.world}"
            text = f"error: {both if rank in self.members else differ}; look at what started them"
            self._report(rank, kind="user", code=2, text=text)
            self.members[-len(self.members) - 1] = member  # it, too, is to end
        else:
            self.members[rank] = member
        member.rank, member.pid, member.host = rank, message.get("pid", 0), message.get("host", "")
        if len(self.members) == self.world and self.listener is not None:
            self.listener.close()  # the port is torch's from now on
            self.listener = None
            self._tell(all=True)

    def _report(self, rank: int, kind: str, code: int, text: str) -> None:
        if not self.reports:
            self.first_report = time.monotonic()
        self.reports.append((rank, {"kind": kind, "code": code, "text": text}))

    def _look_after_children(self) -> None:
        for rank, child in self.children.items():
            code, member = child.poll(), self.members.get(rank)
            if code is None or any(rank == r for r, _ in self.reports) or (member and (member.bye or not member.gone)):
                continue
            # One that ended before it came has said why by itself, unless it was killed.
            kind, told = "dead" if code < 0 or member else "user", status_of_process(code)
            if told is not None and not member:  # it heard a signal before it could handle one
                kind, code = "stopped", told
            self._report(rank, kind=kind, code=code if code > 0 else 1, text="")

    def _lacking(self) -> list[int]:
        return [rank for rank in range(self.world) if rank not in self.members]

    def _waiting(self) -> None:
        """Say once for whom all wait: a rank that nobody has started would be waited for in silence."""
        self.speak_at = float("inf")
        text = f"waiting for rank {listed(self._lacking())} of {self.world}, for {self.join_seconds:.0f} s at most\n"
        os.write(self.screen, text.encode())

    def _missing(self) -> None:
        lacking = self._lacking()
        self._report(
            lacking[0],
            kind="missing",
            code=1,
            text=f"error: waited {self.join_seconds:.0f} s for rank {listed(lacking)} of {self.world}; were all "
            "processes started, and with the same MASTER_ADDR and MASTER_PORT? Under SLURM start them with srun",
        )

    def _overdue(self) -> None:
        """Some rank waits for others that compute nothing together with it, where no collective would end the wait."""
        self.answer_by = float("inf")
        here = self.met or {rank for rank, member in self.members.items() if member.bye}
        silent = [rank for rank in range(self.world) if rank not in here]
        if silent:
            self._report(silent[0], kind="missing", code=1, text=self._hanging(silent))

    # ---- the end

    def _cause(self) -> tuple[int, dict[str, Any]] | None:
        """The report that is to be told, once no better one need be waited for."""
        if not self.reports:
            return None
        order = list(GRACE)
        best = min(self.reports, key=lambda report: order.index(report[1]["kind"]))
        heard = {rank for rank, _ in self.reports} | {rank for rank, m in self.members.items() if m.bye}
        waited = time.monotonic() - self.first_report
        return best if waited >= GRACE[best[1]["kind"]] or len(heard) >= self.world else None

    def _end(self, cause: tuple[int, dict[str, Any]]) -> int:
        rank, report = cause
        text, code = report["text"], report["code"]
        if report["kind"] == "dead":
            text = self._obituary(rank)
        elif report["kind"] == "lost":
            text = self._who_hangs() or text
        self._tell(quiet=True)
        self._until(lambda member: member.quiet)
        for child_rank, child in self.children.items():
            if child_rank not in self.members or not self.members[child_rank].quiet:
                child.kill()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        if text:
            os.write(self.screen, (text.rstrip() + "\n").encode())
        self._tell(exit=code, text=text)
        # Until they have gone: what is still unread here would break their connections before they have read this.
        self._until(lambda member: member.rank == 0 and not self.children)
        return self._wait_for_children(code)

    def _until(self, done: Any) -> None:
        end = time.monotonic() + TO_LEAVE
        while time.monotonic() < end and not all(done(m) or m.gone for m in self.members.values()):
            self._serve(0.05)

    def _obituary(self, rank: int) -> str:
        child = self.children.get(rank)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
        code = child.returncode if child is not None else None
        who = self._name(rank)
        if code is None:
            return f"error: {who} died without a word; was it killed, or out of memory?"
        if code >= 0:
            return f"error: {who} ended with exit status {code} without a word"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        why = "; a machine out of memory does that" if code == -KILLED else ""
        return f"error: {who} was killed by {name}{why}"

    def _who_hangs(self) -> str:
        heard = {rank for rank, _ in self.reports} | {rank for rank, m in self.members.items() if m.bye}
        silent = [rank for rank in range(self.world) if rank not in heard]
        if not silent:
            return ""
        return self._hanging(silent)

    def _hanging(self, silent: list[int]) -> str:
        names = ", ".join(self._name(rank) for rank in silent)
        return f"error: {names} did not answer the others within rank_timeout and seems to hang; all ranks were ended"

    def _name(self, rank: int) -> str:
        member = self.members.get(rank)
        return f"rank {rank} (process {member.pid} on {member.host})" if member else f"rank {rank}"

    def _wait_for_children(self, code: int) -> int:
        end = time.monotonic() + TO_LEAVE if code else float("inf")
        for child in self.children.values():
            try:
                child.wait(max(0.0, end - time.monotonic()) if code else None)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            code = code or (child.returncode if child.returncode >= 0 else 1)
        return code

    def _tell(self, **message: Any) -> None:
        for member in self.members.values():
            member.send(**message)

    def _close(self) -> None:
        sockets: Iterable[socket.socket | None] = (self.listener, *(m.socket for m in self.members.values()))
        for found in sockets:
            if found is not None:
                found.close()


def listed(ranks: list[int]) -> str:
    """Ranks in a line: the first ten, and how many more."""
    more = f" and {len(ranks) - 10} more" if len(ranks) > 10 else ""
    return ", ".join(map(str, ranks[:10])) + more


def mute() -> None:
    """Nothing of this process is seen from here on."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
