"""Schedules as grids: what each side does in each tick when a task takes one tick and sending takes none."""

import pytest

from splitlib.pipeline.schedule import (
    BODY,
    BODY_GRADIENT,
    HEAD,
    HEAD_GRADIENT,
    TAIL,
    TAIL_GRADIENT,
    Agenda,
    Task,
    lanes,
    order_of,
)
from splitlib.timeline import CLIENT, SERVER

# What a finished task allows on either side; gpipe's loss needs all the tails.
NEXT = {HEAD: BODY, BODY: TAIL, TAIL_GRADIENT: BODY_GRADIENT, BODY_GRADIENT: HEAD_GRADIENT}
SHORT = {HEAD: "h", BODY: "b", TAIL: "t", HEAD_GRADIENT: "H", BODY_GRADIENT: "B", TAIL_GRADIENT: "T"}


def grid(schedule: str, chunks: int, *, training: bool = True) -> tuple[str, str]:
    """Play both sides, one task a tick; small letters are forward, capitals backward, dots idle."""
    client = Agenda(lanes(schedule, CLIENT, chunks, training=training), [Task(HEAD, i) for i in range(chunks)])
    server = Agenda(lanes(schedule, SERVER, chunks, training=training))
    tails, rows = 0, ([], [])
    while client or server:
        done = [client.next() if client else None, server.next() if server else None]
        assert any(done), "nobody can go on"
        for row, task in zip(rows, done, strict=True):
            row.append("." if task is None else f"{SHORT[task.work]}{task.micro_batch}")
        for task in filter(None, done):
            tails += task.work == TAIL
            if task.work in NEXT:
                for side in (client, server):
                    side.allow(Task(NEXT[task.work], task.micro_batch))
            if task.work == TAIL and schedule == "1f1b":
                client.allow(Task(TAIL_GRADIENT, task.micro_batch))
        if schedule == "gpipe" and tails == chunks:
            for i in range(chunks):
                client.allow(Task(TAIL_GRADIENT, i))
    client_row, server_row = (" ".join(cell.ljust(2) for cell in row) for row in rows)
    return client_row, server_row


def test_gpipe_goes_forward_with_all_and_then_back_in_reverse():
    assert grid("gpipe", 3) == (
        "h0 h1 h2 t0 t1 t2 T2 T1 T0 H2 H1 H0",
        ".  b0 b1 b2 .  .  .  B2 B1 B0 .  . ",
    )


def test_1f1b_turns_each_micro_batch_back_at_once():
    assert grid("1f1b", 3) == (
        "h0 h1 t0 T0 t1 T1 h2 H0 t2 T2 H1 H2",
        ".  b0 b1 .  B0 .  B1 b2 .  .  B2 . ",
    )


def test_evaluation_only_goes_forward():
    assert grid("1f1b", 2, training=False) == ("h0 h1 t0 t1", ".  b0 b1 . ")


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_every_task_is_in_one_lane_in_the_order_of_what_it_sends(schedule, chunks):
    for side in (CLIENT, SERVER):
        tasks = [task for lane in lanes(schedule, side, chunks) for task in lane]
        assert len(tasks) == len(set(tasks)) == chunks * (4 if side == CLIENT else 2)
        for work in {task.work for task in tasks}:
            assert [t.micro_batch for t in tasks if t.work == work] == list(order_of(schedule, work, chunks))


def test_a_task_waits_until_it_is_allowed():
    agenda = Agenda([[Task(BODY_GRADIENT, 0)], [Task(BODY, 0), Task(BODY, 1)]])
    assert agenda.next() is None and agenda.waiting_for() == Task(BODY_GRADIENT, 0)
    agenda.allow(Task(BODY, 1))
    assert agenda.next() is None, "lanes keep their order"
    agenda.allow(Task(BODY, 0))
    assert agenda.next() == Task(BODY, 0)
    agenda.allow(Task(BODY_GRADIENT, 0))
    assert [agenda.next(), agenda.next()] == [Task(BODY_GRADIENT, 0), Task(BODY, 1)]
    assert not agenda
