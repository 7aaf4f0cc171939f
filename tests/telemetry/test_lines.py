"""Promises of telemetry.lines: never wait, drop whole lines and count them, write what is kept at close."""

import io
import select
import threading

from msrcache.telemetry.lines import LineWriter


class Slow(io.BytesIO):
    """A stream whose reader does nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def write(self, data: object, /) -> int:
        self.entered.set()
        assert self.go.wait(30)
        return super().write(data)  # type: ignore[arg-type]


class Broken(io.BytesIO):
    """A stream whose reader went away, and came back."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = threading.Event()

    def write(self, data: object, /) -> int:
        if not self.failed.is_set():
            self.failed.set()
            raise BrokenPipeError
        return super().write(data)  # type: ignore[arg-type]


def test_all_lines_are_there_in_order_after_close() -> None:
    """close() writes what is kept."""
    stream = io.BytesIO()
    lines = LineWriter(stream)
    for number in range(1000):
        lines.write(f"{number}\n")
    lines.close()
    assert stream.getvalue().decode().split() == [str(number) for number in range(1000)]
    assert lines.lost == 0


def test_a_reader_that_is_stuck_costs_lines_and_not_time() -> None:
    """Above the limit lines are dropped whole and counted; what was kept comes out in order."""
    stream = Slow()
    dropped: list[int] = []
    lines = LineWriter(stream, limit=40, dropped=dropped.append)
    lines.write("first\n")
    assert stream.entered.wait(30)
    for number in range(10):
        lines.write(f"line {number:04d}\n")  # 10 characters each: four fit
    assert (lines.lost, sum(dropped)) == (6, 6)
    stream.go.set()
    lines.close()
    assert stream.getvalue() == b"first\nline 0000\nline 0001\nline 0002\nline 0003\n"


def test_close_gives_up_on_a_stuck_reader() -> None:
    """A shutdown is not held up; what could not be written is counted."""
    stream = Slow()
    lines = LineWriter(stream)
    lines.write("first\n")
    assert stream.entered.wait(30)
    lines.write("second\n")
    lines.close(patience=0.01)
    assert lines.lost == 1
    stream.go.set()


def test_a_stream_that_fails_is_tried_again() -> None:
    """The batch is lost and counted, the next one goes out."""
    stream = Broken()
    told = threading.Event()
    lines = LineWriter(stream, dropped=lambda _: told.set())
    lines.write("lost\n")
    assert told.wait(30)
    lines.write("kept\n")
    lines.close()
    assert (stream.getvalue(), lines.lost) == (b"kept\n", 1)


def test_after_close_lines_are_counted_as_lost() -> None:
    """Nothing is kept that nobody will write; closing twice, or unused, is harmless."""
    lines = LineWriter(io.BytesIO())
    lines.close()
    lines.close()
    lines.write("late\n")
    assert lines.lost == 1


def test_text_that_is_no_utf8_is_written_all_the_same() -> None:
    """A lone surrogate, as a client's bytes become, breaks no batch."""
    stream = io.BytesIO()
    lines = LineWriter(stream)
    lines.write("a\udc80b\n")
    lines.close()
    assert stream.getvalue() == b"a\\udc80b\n"


class Counting(io.BytesIO):
    """A stream that remembers what it was given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []

    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes)
        self.given.append(data)
        return super().write(data)


def test_a_pipe_that_is_shared_gets_whole_lines() -> None:
    """What is written at once is whole lines, and no more than a pipe takes in one piece, unless one line is."""
    stream = Counting()
    lines = LineWriter(stream, shared=True)
    written = [f"{number:04d} {'é' * 100}\n" for number in range(200)]
    written[50] = f"{'x' * 10_000}\n"
    for line in written:
        lines.write(line)
    lines.close()
    assert stream.getvalue().decode() == "".join(written)
    assert all(piece.endswith(b"\n") for piece in stream.given)
    assert [len(piece) for piece in stream.given if len(piece) > select.PIPE_BUF] == [10_001]
