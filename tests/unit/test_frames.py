"""Frames on a stream: cut anywhere, after chatter, compressed; and streams that are none."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.cli.agent import Agent
from core.cli.agent_line import Line
from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem
from core.runlog import frames
from core.runlog.frames import CHATTER_LIMIT_BYTES, FRAME_LIMIT_BYTES, MARK, FrameReader, frame
from core.settings.home import Home


@given(st.lists(st.binary(max_size=9000), max_size=6), st.binary(max_size=200), st.integers(1, 700))
def test_payloads_come_back_however_the_stream_is_cut(payloads: list[bytes], chatter: bytes, piece: int) -> None:
    stream = chatter.replace(MARK[:1], b"") + MARK + b"".join(frame(payload) for payload in payloads)
    reader = FrameReader()
    found: list[bytes] = []
    for start in range(0, len(stream), piece):
        found += reader.feed(stream[start : start + piece])
    assert found == payloads
    assert reader.chatter == ""


def test_text_is_compressed_and_noise_is_not() -> None:
    assert len(frame(b"step 1 loss 0.5\n" * 10_000)) < 10_000
    noise = os.urandom(50_000)
    assert len(frame(noise)) == len(noise) + 5


def test_what_is_no_agent_is_quoted() -> None:
    reader = FrameReader()
    reader.feed(b"bash: python: command not found\n")
    assert reader.chatter == "bash: python: command not found"
    with pytest.raises(EnvironmentProblem, match="Something else"):
        reader.feed(b"x" * CHATTER_LIMIT_BYTES)


@pytest.mark.parametrize(
    "damage",
    [
        (FRAME_LIMIT_BYTES + 1).to_bytes(4, "big") + b"\x00",
        b"\x00\x00\x00\x01\x07x",
        b"\x00\x00\x00\x04\x01oops",
        len(zlib.compress(bytes(FRAME_LIMIT_BYTES + 9))).to_bytes(4, "big")
        + b"\x01"
        + zlib.compress(bytes(FRAME_LIMIT_BYTES + 9)),
    ],
    ids=["too long", "unknown flag", "not compressed", "a bomb"],
)
def test_damage_is_one_sentence(damage: bytes) -> None:
    with pytest.raises(EnvironmentProblem, match="damaged"):
        FrameReader().feed(MARK + damage)


def test_a_payload_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        frame(bytes(FRAME_LIMIT_BYTES + 1))


def test_an_answer_that_fits_into_no_frame_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_LIMIT_BYTES", 400)
    (asks, asked), (answers, answered) = os.pipe(), os.pipe()
    serving = threading.Thread(target=Agent(Home(tmp_path), Line(answered)).serve, args=(asks,))
    serving.start()
    request = said.Asked(number=3, body=said.Probe())
    os.write(asked, MARK + frame(msgspec.msgpack.encode(request)))
    reader = FrameReader()
    payloads: list[bytes] = []
    while not payloads:
        payloads = reader.feed(os.read(answers, 1 << 16))
    os.close(asked)
    serving.join()
    for descriptor in (asks, answers, answered):
        os.close(descriptor)
    answer = msgspec.msgpack.decode(payloads[0], type=said.Answered)
    assert isinstance(answer.body, said.Refused)
    assert "does not fit" in answer.body.message
