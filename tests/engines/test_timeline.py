"""Timelines: exact shares, files that come back as they were, and no more memory than was asked for."""

import json
import threading
import time

import pytest

from infopro.engines.timeline import (
    KINDS,
    Span,
    StageTimeline,
    Timeline,
    filled_at,
    idle_shares,
    innermost,
    merge,
    read_timelines,
)
from infopro.errors import BadConfiguration, BadInput, BadRun, UnknownName

SECOND = 10**9
EPOCH = 1_760_000_000 * SECOND + 123_456_789  # odd nanoseconds: a double of microseconds would lose them


def made(stage, *spans, replica=0, **more):
    """A timeline of (kind, begin in s, end in s)."""
    made_spans = tuple(Span(kind, int(begin * SECOND), int(end * SECOND)) for kind, begin, end in spans)
    return StageTimeline(stage, replica, made_spans, **more)


def recorder(stage=0, *, replica=0, steps=3, most_events=50_000):
    timeline = Timeline(stage, replica=replica, most_events=most_events)
    for step in range(steps):
        begin = EPOCH + step * 1_000_003
        timeline.add("forward", begin, begin + 400_001, step)
        timeline.add("backward", begin + 400_001, begin + 999_999, step)
    return timeline


def three_stages():
    """The last one's first features come at 3 s; by hand, in seconds."""
    return (
        made(
            0,
            ("data", 0, 0.5),
            ("forward", 0.5, 4),  # 1 s of it counts
            ("back-pressure", 4, 5.5),
            ("backward", 5.5, 8),
            ("checkpoint", 8, 9),
            ("optimizer", 9.5, 11),  # 0.5 s before it: nothing recorded
            ("back-pressure", 11, 99),  # after its last work: does not count
        ),
        made(1, ("receive", 0, 1.5), ("forward", 1.5, 9), ("receive", 9, 10), ("evaluate", 10, 13)),
        made(
            2,
            ("receive", 0, 3),
            ("forward", 3, 8),
            ("receive", 8, 8.5),
            ("reduce", 8.5, 9),
            ("backward", 9, 13),
        ),
    )


def test_shares_to_the_nanosecond():
    shares = idle_shares(three_stages())
    first, second, third = shares.stages
    assert (first.seconds, first.compute, first.back_pressure) == pytest.approx((8, 5, 1.5))
    assert (first.checkpoint, first.other, first.receive) == pytest.approx((1, 0.5, 0))
    assert first.share == pytest.approx(2 / 8)
    assert (second.seconds, second.compute, second.receive) == pytest.approx((10, 9, 1))
    assert second.share == pytest.approx(1 / 10)
    assert (third.seconds, third.receive, third.reduce) == pytest.approx((10, 0.5, 0.5))
    assert third.share == pytest.approx(1 / 10)
    assert shares.share == pytest.approx(4 / 28)
    assert shares.filling_seconds == pytest.approx(3)
    assert [stage.name for stage in shares.stages] == ["stage 1", "stage 2", "stage 3"]


def test_the_parts_add_up_to_the_stages_own_time():
    for stage in idle_shares(three_stages()).stages:
        work = stage.compute + stage.data + stage.send + stage.checkpoint
        idle = stage.receive + stage.back_pressure + stage.reduce + stage.other
        assert work + idle == pytest.approx(stage.seconds)
        assert stage.share == pytest.approx(idle / stage.seconds)


def test_order_of_the_timelines_does_not_matter():
    timelines = three_stages()
    assert idle_shares(timelines[::-1]) == idle_shares(timelines)


def test_a_wait_inside_of_work_is_waiting():
    inside = made(0, ("forward", 0, 10), ("back-pressure", 4, 7), ("send", 7, 8))
    (stage, _) = idle_shares([inside, made(1, ("forward", 0, 10))]).stages
    assert (stage.compute, stage.back_pressure, stage.send) == pytest.approx((6, 3, 1))
    assert stage.share == pytest.approx(0.3)


def test_evaluation_and_checkpoints_are_no_bubble():
    busy = made(
        0, ("forward", 0, 1), ("evaluate", 1, 5), ("checkpoint", 5, 9), ("send", 9, 10), ("optimizer", 10, 11)
    )
    assert idle_shares([busy, busy]).share == 0


def test_one_process_has_no_bubble():
    shares = idle_shares([made(0, ("forward", 0, 1), ("forward", 2, 3))])
    assert (shares.share, shares.stages[0].share, shares.stages[0].other) == (0, 0, pytest.approx(1))


def test_the_latest_replica_of_the_last_stage_fills_the_pipeline():
    last = [made(1, ("receive", 0, end), ("forward", end, 9), replica=r) for r, end in enumerate((2, 4))]
    timelines = [made(0, ("forward", 0, 9)), *last]
    assert filled_at(timelines) == 4 * SECOND
    assert [stage.seconds for stage in idle_shares(timelines).stages] == [pytest.approx(5)] * 3
    assert idle_shares(timelines).stages[2].name == "stage 2, replica 2"


def test_only_the_first_receive_counts_for_the_filling():
    assert filled_at([made(1, ("receive", 0, 2), ("forward", 2, 3), ("receive", 3, 7))]) == 2 * SECOND


def test_without_a_receive_the_first_work_counts():
    assert filled_at([made(1, ("data", 0, 2), ("forward", 5, 7))]) == 5 * SECOND


def test_a_stage_that_was_through_before_has_no_time_of_its_own():
    early, late = made(0, ("forward", 0, 2)), made(1, ("receive", 0, 3), ("forward", 3, 5))
    shares = idle_shares([early, late])
    assert (shares.stages[0].seconds, shares.stages[0].share) == (0, 0)


def test_what_was_dropped_is_left_out():
    hole = (4 * SECOND, 6 * SECOND)
    first = made(0, ("forward", 0, 4), ("forward", 6, 8), ("forward", 9, 10), dropped=7, hole=hole)
    stage = idle_shares([first, made(1, ("forward", 0, 10))]).stages[0]
    assert (stage.seconds, stage.compute, stage.other) == pytest.approx((8, 7, 1))
    assert stage.dropped == 7 and stage.share == pytest.approx(1 / 8)


@pytest.mark.parametrize("timelines", [(), (made(0),), (made(0, ("forward", 0, 1)), made(1))])
def test_no_work_is_said(timelines):
    with pytest.raises(BadRun, match="no work of the last stage"):
        idle_shares(timelines)


def test_innermost_never_overlaps():
    spans = [Span("evaluate", 0, 10), Span("receive", 2, 6), Span("send", 5, 8), Span("forward", 12, 12)]
    pieces = [(piece.kind, piece.begin_ns, piece.end_ns) for piece in innermost(spans[::-1])]
    assert pieces == [("evaluate", 0, 2), ("receive", 2, 5), ("send", 5, 8), ("evaluate", 8, 10)]


def test_a_file_comes_back_to_the_nanosecond(tmp_path):
    timelines = [recorder(1), recorder(0, replica=1), recorder(0)]
    for number, timeline in enumerate(timelines):
        timeline.write(tmp_path / "deep" / f"{number}.json")
    found = read_timelines(tmp_path / "deep")
    assert found == tuple(timelines[i].recorded() for i in (2, 1, 0))
    assert len(list((tmp_path / "deep").iterdir())) == 3  # no temporary file is left


def test_bound_and_hole_come_back(tmp_path):
    timeline = recorder(steps=50, most_events=10)
    timeline.write(tmp_path / "a.json")
    (found,) = read_timelines(tmp_path)
    assert found == timeline.recorded() and found.dropped == 90 and found.hole is not None


def test_an_empty_timeline_comes_back(tmp_path):
    Timeline(4).write(tmp_path / "a.json")
    assert read_timelines(tmp_path) == (StageTimeline(4, 0, ()),)


def test_the_bound_keeps_the_first_and_the_latest():
    timeline = Timeline(0, most_events=5)
    for step in range(20):
        timeline.add("forward", step * 10, step * 10 + 5, step)
    recorded = timeline.recorded()
    assert [span.step for span in recorded.spans] == [0, 1, 17, 18, 19]
    assert recorded.dropped == 15 and recorded.hole == (20, 165)


@pytest.mark.parametrize("most", [2, 3, 10])
def test_up_to_the_bound_nothing_is_dropped(most):
    recorded = recorder(steps=most // 2, most_events=most).recorded()
    assert len(recorded.spans) == most // 2 * 2 and recorded.dropped == 0 and recorded.hole is None


def test_spans_are_measured_by_the_wall_clock():
    before = time.time_ns()
    timeline = Timeline(0)
    with timeline.span("forward", 7), timeline.span("send"):
        time.sleep(0.01)
    after = time.time_ns()
    outer, inner = timeline.recorded().spans
    assert (outer.kind, outer.step, inner.kind, inner.step) == ("forward", 7, "send", None)
    slack = SECOND // 100  # the wall clock may be set meanwhile
    assert before - slack <= outer.begin_ns <= inner.begin_ns < inner.end_ns <= outer.end_ns <= after + slack
    assert inner.end_ns - inner.begin_ns >= 0.01 * SECOND


def test_a_span_that_fails_is_recorded():
    timeline = Timeline(0)
    with pytest.raises(RuntimeError), timeline.span("backward"):
        raise RuntimeError
    assert [span.kind for span in timeline.recorded().spans] == ["backward"]


def test_threads_lose_nothing():
    timeline = Timeline(0, most_events=100)

    def work():
        for _ in range(500):
            with timeline.span("send"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorded = timeline.recorded()
    assert len(recorded.spans) == 100 and recorded.dropped == 1900


def test_a_span_costs_little():
    timeline = Timeline(0)
    best = 1.0
    for _ in range(5):  # the best of several: the machine is shared
        begin = time.perf_counter()
        for step in range(1000):
            with timeline.span("forward", step):
                pass
        best = min(best, (time.perf_counter() - begin) / 1000)
    assert best < 50e-6


def test_wrong_spans_are_refused():
    timeline = Timeline(0)
    with pytest.raises(UnknownName, match=r"unknown kind of span.*forward"):
        timeline.span("foward")
    with pytest.raises(UnknownName, match="kind of span"):
        timeline.add("wait", 0, 1)
    with pytest.raises(BadInput, match="ends before it begins"):
        timeline.add("forward", 5, 4)
    assert timeline.recorded().spans == ()


@pytest.mark.parametrize(
    "wrong", [{"stage": -1}, {"stage": 0, "replica": -1}, {"stage": 0, "most_events": 1}]
)
def test_wrong_timelines_are_refused(wrong):
    with pytest.raises(BadConfiguration, match="most_events from 2"):
        Timeline(**wrong)


def chrome_events(path):
    """What the format demands of every event; the X events, the names of the processes by pid."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content["traceEvents"], list) and content["displayTimeUnit"] == "ms"
    assert isinstance(content["otherData"], dict)
    complete, names = [], {}
    for event in content["traceEvents"]:
        assert {"name", "ph", "pid", "tid", "args"} <= set(event)
        assert type(event["pid"]) is int and event["pid"] > 0 and type(event["tid"]) is int
        assert event["ph"] in "XM"
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["name"] in KINDS and event["cat"]
            complete.append(event)
        elif event["name"] == "process_name":
            names[event["pid"]] = event["args"]["name"]
        else:
            assert event["name"] == "process_sort_index" and type(event["args"]["sort_index"]) is int
    return complete, names


def test_the_file_is_a_chrome_trace(tmp_path):
    complete, names = chrome_events(recorder(2, replica=1).write(tmp_path / "a.json"))
    assert list(names.values()) == ["stage 3, replica 2"]
    assert [event["args"]["step"] for event in complete] == [0, 0, 1, 1, 2, 2]
    assert (complete[2]["ts"], complete[2]["dur"]) == (1000.003, 400.001)  # µs


def test_merged_processes_share_one_clock(tmp_path):
    late = Timeline(1)
    late.add("forward", EPOCH + 5_000, EPOCH + 6_500)
    first = recorder(0, steps=1)
    complete, names = chrome_events(merge([first.recorded(), late.recorded()], tmp_path / "all.json"))
    assert sorted(names.values()) == ["stage 1", "stage 2"]
    begins = {names[event["pid"]]: event["ts"] for event in complete if event["name"] == "forward"}
    assert begins == {"stage 1": 0.0, "stage 2": 5.0}


def test_other_files_are_passed_over(tmp_path):
    timeline = recorder()
    timeline.write(tmp_path / "a.json")
    merge([timeline.recorded()], tmp_path / "all.json")
    (tmp_path / "config.json").write_text("[1, 2]")
    (tmp_path / "notes.txt").write_text("{")
    assert read_timelines(tmp_path) == (timeline.recorded(),)


def broken(**changes):
    other = {"format": "infopro timeline 1", "stage": 0, "replica": 0, "start_ns": 0, "dropped": 0}
    event = {"name": "forward", "ph": "X", "ts": 0, "dur": 1, "pid": 1, "tid": 1, "args": {}}
    content = {"otherData": other | {"hole_ns": None}, "traceEvents": [event]}
    content["otherData"].update({k: v for k, v in changes.items() if k in content["otherData"]})
    event.update({k: v for k, v in changes.items() if k in event})
    return json.dumps(content | {k: v for k, v in changes.items() if k in content})


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"traceEvents": [',
        b"\xff\xfe",
        broken(name="sleep"),
        broken(dur=-1),
        broken(dur=float("inf")),
        broken(ts="soon"),
        broken(args=None),
        broken(stage=None),
        broken(hole_ns=[1]),
        broken(traceEvents=[3]),
        broken(traceEvents=None),
    ],
)
def test_a_broken_file_is_named_in_one_line(content, tmp_path):
    (tmp_path / "good.json").write_text(broken())
    assert len(read_timelines(tmp_path)) == 1
    file = tmp_path / "bad.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadRun, match=r"bad\.json cannot be read") as caught:
        read_timelines(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_timeline_and_two_of_one_process(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadRun, match="no timeline"):
            read_timelines(folder)
    recorder().write(tmp_path / "a.json")
    recorder().write(tmp_path / "b.json")
    with pytest.raises(BadRun, match=r"a\.json, b\.json"):
        read_timelines(tmp_path)


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full_disk(self, target):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(BadRun, match="no space left"):
        recorder().write(path)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="cannot be written"):
        recorder().write(tmp_path / "file" / "a.json")
