"""The former name of Glow's network."""

from __future__ import annotations

import pytest


def test_the_former_name_still_makes_the_network() -> None:
    from flowzoo.nets import conv

    with pytest.warns(DeprecationWarning, match="conv_net"):
        old = conv.ConvNet
    assert isinstance(old(2, 4, 3), conv.ConvStack)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = conv.nonsense
