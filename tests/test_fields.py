"""Fields and the channels that hold them."""

from __future__ import annotations

import pytest

from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.sky.fields import Field, count_columns

INTENSITY, B = Field("I", "uK_CMB"), Field("B", "uK_CMB", parity="odd")
FLOW, POLARIZATION = Field("flow", spin=1), Field("P", "uK_CMB", spin=2)


def test_a_field_with_a_spin_takes_two_named_columns() -> None:
    assert [field.columns for field in (INTENSITY, B, FLOW, POLARIZATION)] == [1, 1, 2, 2]
    assert FLOW.column_names == ("flow_S", "flow_E")
    assert POLARIZATION.column_names == ("Q", "U")
    assert Field("dust", spin=2).column_names == ("dust_Q", "dust_U")
    assert count_columns([INTENSITY, POLARIZATION]) == 3


@pytest.mark.parametrize("wrong", [{"spin": 3}, {"parity": "left"}])
def test_there_is_no_such_field(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the field 'x'"):
        Field("x", **wrong)  # type: ignore[arg-type]


def test_channels_count_the_types_of_fields() -> None:
    channels = Channels.of_fields([INTENSITY, INTENSITY, B, FLOW, POLARIZATION])
    assert channels == Channels(even=2, odd=1, spin1=1, spin2=1)
    assert channels.columns == 7
    assert Channels.of(3) == Channels(even=3)
    assert Channels.of(channels) is channels


def test_fields_out_of_order_are_refused() -> None:
    with pytest.raises(UserError, match="in the order"):
        Channels.of_fields([POLARIZATION, INTENSITY])
