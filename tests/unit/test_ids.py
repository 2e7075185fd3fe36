"""Public ids: addresses that sort by time and cannot be mistaken for another kind's."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ledger.ids import Kind, command_id, lot_id, parse_id, public_id, transfer_id, unix_ms

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SEQ_MAX = 2**62 - 1

seqs = some.integers(0, SEQ_MAX)
kinds = some.sampled_from(Kind)
times = some.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=some.just(UTC))


@given(kind=kinds, seq=seqs, at=times)
def test_an_id_comes_back_as_the_seq_and_the_millisecond_it_was_made_of(kind: Kind, seq: int, at: datetime) -> None:
    assert parse_id(kind, public_id(kind, seq, at)) == (seq, unix_ms(at))


@given(kind=kinds, seq=seqs, at=times)
def test_an_id_is_a_uuid_of_version_8(kind: Kind, seq: int, at: datetime) -> None:
    text = public_id(kind, seq, at)
    uuid = UUID(text)
    assert (uuid.version, uuid.variant) == (8, RFC_4122)
    assert str(uuid) == text


@given(seq=seqs, other=seqs, at=times, later=some.timedeltas(timedelta(milliseconds=1), timedelta(days=3650)))
def test_ids_sort_by_time(seq: int, other: int, at: datetime, later: timedelta) -> None:
    if at + later < datetime(9999, 12, 1, tzinfo=UTC):
        assert command_id(seq, at) < command_id(other, at + later)


@given(seq=some.integers(0, SEQ_MAX - 1), at=times)
def test_within_a_millisecond_ids_sort_by_seq(seq: int, at: datetime) -> None:
    assert command_id(seq, at) < command_id(seq + 1, at)


@given(seq=seqs, at=times)
def test_an_id_of_one_kind_is_none_of_another(seq: int, at: datetime) -> None:
    assert parse_id(Kind.TRANSFER, command_id(seq, at)) is None
    assert parse_id(Kind.COMMAND, transfer_id(seq, at)) is None


@given(text=some.text())
def test_no_text_whatever_breaks_the_reading(text: str) -> None:
    assert parse_id(Kind.COMMAND, text) is None


@given(uuid=some.uuids(version=4) | some.uuids(version=1) | some.uuids(version=5))
def test_another_uuid_is_no_id_of_ours(uuid: UUID) -> None:
    assert parse_id(Kind.COMMAND, str(uuid)) is None


@given(seq=seqs, at=times, bit=some.sampled_from([*range(62, 64), *range(64, 80)]))
def test_an_id_with_a_fixed_bit_flipped_is_none(seq: int, at: datetime, bit: int) -> None:
    flipped = UUID(int=UUID(command_id(seq, at)).int ^ (1 << bit))
    assert parse_id(Kind.COMMAND, str(flipped)) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "None", "01a1fb67-1800-8c0d-8000-00000000000", "01a1fb67-1800-8c0d-8000-0000000000011",
        "g1a1fb67-1800-8c0d-8000-000000000001", "01a1fb67-1800-8c0d-8000-000000000001\x00", "0" * 32, "f" * 32,
    ],
)  # fmt: skip
def test_garbage_is_none(text: str) -> None:
    assert parse_id(Kind.COMMAND, text) is None


def test_what_clients_have_stored_still_reads() -> None:
    """Pinned: an id once given out must mean the same for ever."""
    at = datetime(2026, 11, 21, tzinfo=UTC)
    assert command_id(1, at) == "01a1fb67-1800-8c0d-8000-000000000001"
    assert transfer_id(SEQ_MAX, at) == "01a1fb67-1800-87a4-bfff-ffffffffffff"
    assert lot_id(SEQ_MAX, 2, at) == "01a1fb67-1800-87a4-bfff-ffffffffffff.2"
    assert parse_id(Kind.COMMAND, "01A1FB67-1800-8C0D-8000-000000000001") == (1, 1_795_219_200_000)


@pytest.mark.parametrize("microseconds", [0, 1, 999, 1_000, 1_001, 999_999])
def test_milliseconds_are_rounded_down(microseconds: int) -> None:
    at = datetime(2026, 11, 21, 23, 59, 59, microseconds, tzinfo=UTC)
    assert unix_ms(at) == 1_795_305_599_000 + microseconds // 1_000


@given(at=times)
def test_milliseconds_are_exact_where_a_float_is_not(at: datetime) -> None:
    assert unix_ms(at) == (at - EPOCH) // timedelta(milliseconds=1)
