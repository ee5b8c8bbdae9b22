"""A message is one line that every terminal takes."""

import pytest

from effdet_plugin.errors import UserError


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        ('猫 é: 1', '猫 é: 1'),
        ('a\x1b[2J\nb', r'a\x1b[2J\nb'),
        ('data\ufeff2.jpg', r'data\ufeff2.jpg'),  # a byte order mark in the middle of a file
        ('\u202egpj.\u200b', r'\u202egpj.\u200b'),
        ('\ud800', r'\ud800'),
    ],
)
def test_user_error__shows_what_nobody_sees(text: str, line: str) -> None:
    assert str(UserError(text)) == line
    assert line.isprintable()
