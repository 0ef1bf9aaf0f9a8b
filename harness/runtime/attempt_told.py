"""What agents say of one attempt: how far its ranks are, how they ended, which nodes are ready, which are lost.

It keeps what was said and wakes whoever waits for it; what follows is decided elsewhere. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.runtime import page
from harness.runtime.channel import Message
from harness.runtime.rank_view import RankView

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

POLL_S = 0.05


class Told:
    """What was told of one attempt.

    Args:
        supervisor: whose links are heard.
        attempt: as it began.
        on_fault: is given what agents say of faults that ranks do or wait for.
    """

    def __init__(self, supervisor: Supervisor, attempt: Attempt, on_fault: Callable[[Message], None]) -> None:
        self._s, self._attempt, self._on_fault = supervisor, attempt, on_fault
        self.ranks = [RankView(node=node) for node in attempt.rank_nodes]
        self.prepared: dict[str, Message] = {}
        self.finished: dict[str, Message] = {}
        self.felt: set[int] = set()  # numbers of faults whose effect the rank has met
        self._changed = asyncio.Event()

    def listen(self) -> None:
        """Hear what agents say from now on, instead of whoever did."""
        self._s.links.on_message = self._hear
        self._s.links.on_change = self._changed

    def leave(self) -> None:
        """Hear no more."""
        self._s.links.on_message = lambda node, message: None

    async def tick(self, at_most_s: float = POLL_S) -> None:
        """Wait until something that matters was said, or for so long."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), at_most_s)
        self._changed.clear()

    def slowest(self) -> RankView:
        """The rank that is least far; those that say nothing of their progress do not count while others do."""
        return min(self.ranks, key=lambda r: (r.of == page.SILENT, r.finished, r.begun))

    def lost_node(self) -> str:
        """Which node of the attempt was lost, and why; "" for none."""
        for node in self._attempt.nodes:
            if self._s.links.lost(node):
                return f"node {node} was lost: {self._s.links.lost(node)}"
        return ""

    def _hear(self, node: str, message: Message) -> None:
        mine = (self._attempt.folder, self._attempt.index)
        if message.get("case_id") != self._attempt.case_id or message.get("attempt") not in mine:
            return  # of an attempt that is over
        kind = message["type"]
        if kind == "beat":
            for number, seen in message["ranks"].items():
                rank = self.ranks[int(number)]
                if not rank.ended:
                    rank.state, rank.begun, rank.finished, rank.of = seen[:4]
                    rank.sequence, rank.section, rank.section_s, rank.stopped_s, rank.strayed = seen[4:9]
                    rank.moments = tuple(seen[9:])
        elif kind == "rank_exited":
            self._exited(node, message)
            self._changed.set()
        elif kind == "rank_status":
            self.ranks[message["rank"]].status = message["status"]
        elif kind == "fault_fired":
            self._on_fault(message)
            self._changed.set()
        elif kind == "fault_felt":
            self.felt.add(message["fault"])
        elif kind == "fault_due":
            self._on_fault(message)
        elif kind == "prepared":
            self.prepared[node] = message
            self._changed.set()
        elif kind == "finished":
            self.finished[node] = message
            self._changed.set()

    def _exited(self, node: str, message: Message) -> None:
        rank = self.ranks[message["rank"]]
        rank.ended, rank.state, rank.status = True, message["state"], message["status"]
        rank.words, rank.finished, rank.of = message["words"], message["finished"], message["of"]
        rank.begun, rank.sequence = max(rank.begun, message["begun"]), message["sequence"]
        rank.ended_wall_ns, rank.stopped_s = message["wall_ns"], 0.0
        rank.strayed, rank.moments = message["strayed"], tuple(message["moments"]) or rank.moments
        rank.ended_order = sum(r.ended for r in self.ranks)
        if rank.state != page.DONE:
            self._s.event(
                ev.RANK_EXITED,
                self._attempt.case_id,
                self._attempt.index,
                message["rank"],
                node=node,
                status=message["status"],
                state=page.STATES[rank.state],
                words=rank.words,
                ended_wall_ns=rank.ended_wall_ns,
            )
