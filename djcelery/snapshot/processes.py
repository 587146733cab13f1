"""When the processes of workers were heard of first: a task that began later is theirs, one that began before isn't.

Called by ``dirty``, ``camera`` and ``missed``. A batch tells of a worker what came last, and what is written of it must
not be younger than what it runs: ``upkeep`` takes such tasks for those of a process that is gone. Pure.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

#: Processes of one node name that are kept apart: more than one only while they take turns.
MOST_PROCESSES = 3
#: Seconds of silence after which a worker makes room for another, when there are too many, and between two looks.
_SILENT_S, _LOOK_EVERY_S = 3600.0, 10.0


class Room:
    """When to look for silent workers, of which there are too many: for each event of a stranger would be slow."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def silent_before(self, now_s: float) -> float | None:
        """Return the time before which a worker that makes room was heard of last; None if it is too early to look."""
        if self._next_s - _LOOK_EVERY_S <= now_s < self._next_s:
            return None
        self._next_s = now_s + _LOOK_EVERY_S
        return now_s - _SILENT_S


class _Process:
    __slots__ = ("beat_at", "first_at", "processed", "since_at")

    def __init__(self, first_at: float):
        self.first_at = self.beat_at = first_at
        self.processed = 0
        # The earliest event since the last heartbeat.
        self.since_at: float | None = None


class Processes:
    """The processes of up to *most_workers*; of others nothing is known. Times are by the clocks of the workers."""

    def __init__(self, most_workers: int):
        self._most = most_workers
        self._workers: dict[str, dict[int | None, _Process]] = {}
        # When each worker was heard of, by the camera's clock.
        self._heard: dict[str, float] = {}
        self._room = Room()

    def hear(self, hostname: str, pid: int | None, sent_at: float, came_at: float) -> None:
        """Take in any event of the process *pid*."""
        process = self._find(hostname, pid, sent_at, came_at)
        if process is None:
            return
        if sent_at < process.first_at:
            process.first_at = sent_at
        if sent_at > process.beat_at and (process.since_at is None or sent_at < process.since_at):
            process.since_at = sent_at

    def heartbeat(self, hostname: str, pid: int | None, sent_at: float, came_at: float, processed: int | None) -> None:
        """Take in a heartbeat, which says how many tasks the process has begun."""
        process = self._find(hostname, pid, sent_at, came_at)
        if process is None:
            return
        if sent_at < process.beat_at:
            process.first_at = min(process.first_at, sent_at)
            return
        if processed is not None:
            if processed < process.processed:
                # In containers another process has the same number. It may have been at work since the last heartbeat.
                process.first_at = min(sent_at, process.since_at or sent_at)
            process.processed = processed
        if sent_at > process.beat_at:
            process.beat_at, process.since_at = sent_at, None

    def first_at(self, hostname: str, pid: int | None) -> float | None:
        """Return when the process was heard of first, by its own clock; None if that isn't known."""
        process = self._workers.get(hostname, {}).get(pid)
        return None if process is None else process.first_at

    def _find(self, hostname: str, pid: int | None, sent_at: float, came_at: float) -> _Process | None:
        processes = self._workers.get(hostname)
        if processes is None:
            if len(self._workers) >= self._most and not self._make_room(came_at):
                return None
            processes = self._workers[hostname] = {}
        self._heard[hostname] = came_at
        process = processes.get(pid)
        if process is None:
            process = processes[pid] = _Process(sent_at)
            if len(processes) > MOST_PROCESSES:
                del processes[next(iter(processes))]
        return process

    def _make_room(self, now_s: float) -> bool:
        before_s = self._room.silent_before(now_s)
        if before_s is None:
            return False
        for hostname in [name for name, came_at in self._heard.items() if came_at < before_s]:
            del self._workers[hostname], self._heard[hostname]
        return len(self._workers) < self._most
