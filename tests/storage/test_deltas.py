"""A delta gives exactly the new state, or is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.errors import CheckpointDamaged
from celeriac.storage import deltas
from celeriac.storage.serial import encode


def noise(size: int, seed: int = 0) -> str:
    """Text that zstd can hardly make smaller."""
    return random.Random(seed).randbytes(size // 2).hex()


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A state of some size, and the same with a few pieces replaced."""
    old = random.Random(draw(st.integers(0, 99))).randbytes(draw(st.sampled_from([10, 500, 65_536, 65_537, 140_000])))
    new = old
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(new)))
        new = new[:at] + draw(st.binary(max_size=200)) + new[at + draw(st.integers(0, 300)) :]
    return old, new


def outcome(old: bytes, delta: bytes) -> bytes | None:
    try:
        return deltas.apply(old, delta)
    except CheckpointDamaged:
        return None


@given(st.binary(), st.binary())
def test_a_delta_gives_the_new_state_whatever_the_bytes(old: bytes, new: bytes) -> None:
    assert deltas.apply(old, deltas.diff(old, new)) == new


@settings(deadline=None, max_examples=60)
@given(edited())
def test_a_delta_gives_the_new_state_after_edits(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    delta = deltas.diff(old, new)
    assert deltas.apply(old, delta) == new
    assert len(delta) <= 58 + len(new)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 65_535, 65_536, 65_537, 131_072, 262_144, 1_000_000])
def test_states_at_the_edges_of_blocks_survive(size: int) -> None:
    state, packed = random.Random(size).randbytes(size), b"ab" * (size // 2)
    for old, new in ((b"", state), (state, b""), (state, state), (state, state + b"x"), (state, b"x" + state)):
        assert deltas.apply(old, deltas.diff(old, new)) == new
    assert deltas.apply(state, deltas.diff(state, packed)) == packed
    for whole in (state, packed):
        assert deltas.restore(deltas.snapshot(whole)) == whole


@given(st.binary())
def test_a_snapshot_gives_its_state(state: bytes) -> None:
    assert deltas.restore(deltas.snapshot(state)) == state


@pytest.mark.parametrize("new", [b"short", encode([noise(50, seed) + "a" * 50 for seed in range(3)])])
def test_a_flip_of_any_byte_of_a_delta_is_refused_or_harmless(new: bytes) -> None:
    old = encode({"start": noise(300), "end": noise(200)})
    state = old[:250] + new + old[260:]
    delta = deltas.diff(old, state)
    for at in range(len(delta)):
        for flip in (1, 0x80, 0xFF):
            hurt = delta[:at] + bytes([delta[at] ^ flip]) + delta[at + 1 :]
            assert outcome(old, hurt) in (None, state)
    for length in range(len(delta)):
        assert outcome(old, delta[:length]) is None
    assert outcome(old, delta + b"\0") is None


@pytest.mark.parametrize("state", [b"tiny", b"packs well " * 50])
def test_a_flip_of_any_byte_of_a_snapshot_is_refused_or_harmless(state: bytes) -> None:
    form = deltas.snapshot(state)
    for at in range(len(form)):
        hurt = form[:at] + bytes([form[at] ^ 0x41]) + form[at + 1 :]
        try:
            assert deltas.restore(hurt) == state
        except CheckpointDamaged:
            continue
    for wrong in (form[:-1], form + b"\0", b""):
        with pytest.raises(CheckpointDamaged):
            deltas.restore(wrong)


def test_a_delta_on_another_state_than_its_own_is_refused() -> None:
    delta = deltas.diff(b"one two", b"one two three")
    with pytest.raises(CheckpointDamaged, match="starts from another state"):
        deltas.apply(b"one too", delta)


def test_a_delta_is_no_snapshot_and_a_snapshot_no_delta() -> None:
    with pytest.raises(CheckpointDamaged, match="not a snapshot of version 1"):
        deltas.restore(deltas.diff(b"a", b"b"))
    with pytest.raises(CheckpointDamaged, match="not a delta of version 1"):
        deltas.apply(b"a", deltas.snapshot(random.Random(1).randbytes(100)))
    with pytest.raises(CheckpointDamaged, match="not a delta or snapshot"):
        deltas.digest_after(b"\x02" + bytes(80))


def test_the_digest_of_the_last_form_saves_hashing_the_old_state() -> None:
    states = [encode({"done": list(range(n))}) for n in range(5)]
    forms = [deltas.snapshot(states[0])]
    for old, new in zip(states, states[1:], strict=False):
        forms.append(deltas.diff(old, new, old_digest=deltas.digest_after(forms[-1])))
        assert forms[-1] == deltas.diff(old, new)
    state = deltas.restore(forms[0])
    for delta in forms[1:]:
        state = deltas.apply(state, delta)
    assert state == states[-1]


def test_a_delta_is_as_large_as_the_change_not_the_state() -> None:
    messages = [noise(100, n) for n in range(1000)]
    before = encode({"count": 1, "messages": messages, "updated": "2026-01-01"})
    messages.append(noise(100, 5000))
    grown = encode({"count": 1, "messages": messages, "updated": "2026-01-01"})
    assert len(deltas.diff(before, grown)) < 200
    messages[500] = noise(100, 6000)
    in_several_places = encode({"count": 2, "messages": messages, "updated": "2026-01-02"})
    delta = deltas.diff(before, in_several_places)
    assert len(delta) < 500
    assert deltas.apply(before, delta) == in_several_places


def test_a_change_at_both_ends_of_a_large_state_stays_small() -> None:
    middle = noise(6_000_000)
    old, new = encode([1, middle, 1]), encode([2, middle, 2])
    delta = deltas.diff(old, new)
    assert len(delta) < 5_000
    assert deltas.apply(old, delta) == new
