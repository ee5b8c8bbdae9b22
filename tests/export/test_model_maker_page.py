"""docs/model_maker.md: its commands are understood, its programs run on a file of ours."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from tflite_support import CLASSES, MEDIAPIPE, SIZE, Files, images, needs_mediapipe, needs_packages

from effdet_plugin.cli import main as cli
from effdet_plugin.files import write_image
from support import REPOSITORY

PAGE = (REPOSITORY / 'docs' / 'model_maker.md').read_text(encoding='utf-8')


def blocks(language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', PAGE, re.DOTALL)


def commands() -> Iterator[list[str]]:
    """Words of each command of ours, from its name on."""
    inline = re.findall(r'`(tools/\w+\.py (?:[^`…]*))`', PAGE)
    for text in (*blocks('bash'), *inline):
        for line in text.replace('\\\n', ' ').splitlines():
            found = re.search(r'tools/(\w+)\.py (.*)', line)
            if found:
                yield [found[1], *shlex.split(found[2], comments=True)]


def test_commands__are_understood() -> None:
    known = list(commands())
    assert {name for name, *_ in known} == {'train', 'test', 'export'}
    for name, *words in known:
        module = cli.load(name)
        cli.parse(cli.make(module), words)  # exits for an unknown option


def test_programs__are_for_four_places() -> None:
    assert [len(blocks(language)) for language in ('python', 'kotlin', 'js')] == [2, 1, 1]


class TestPrograms:
    pytestmark = needs_packages

    def test_raspberry_pi(
        self,
        files: Files,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        frames = images(2)

        class Camera:
            def __init__(self, number: int) -> None:
                assert number == 0

            def read(self) -> tuple[bool, Any]:
                return (True, frames.pop()) if frames else (False, None)

        (code,) = (block for block in blocks('python') if 'VideoCapture' in block)
        assert len([line for line in code.splitlines() if line.strip()]) <= 20
        for name in ('postprocess_fp32', 'postprocess_int8'):
            frames[:] = images(2)
            (tmp_path / 'model.tflite').write_bytes(files[name].read_bytes())
            (tmp_path / 'labels.txt').write_text('\n'.join(CLASSES), encoding='utf-8')
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(cv2, 'VideoCapture', Camera)
            exec(compile(code, 'page', 'exec'), {'__name__': 'page'})
            printed = capsys.readouterr().out.splitlines()
            assert not frames
            assert printed
            assert all(line.startswith(CLASSES) for line in printed)

    @needs_mediapipe
    def test_mediapipe_python(self, files: Files, tmp_path: Path) -> None:
        (code,) = (block for block in blocks('python') if 'mediapipe' in block)
        (tmp_path / 'model.tflite').write_bytes(files['postprocess_fp32'].read_bytes())
        write_image(tmp_path / 'street.jpg', images(1, SIZE)[0])
        done = subprocess.run(
            [str(MEDIAPIPE), '-c', code],
            capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        lines = done.stdout.splitlines()
        assert len(lines) > 0
        assert all(line.startswith(CLASSES) for line in lines)
