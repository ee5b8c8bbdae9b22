"""The page and the sheet: what they show, that names are only text, and how a browser draws it."""

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_truth import CLASSES, make_coco

from effdet_plugin.errors import WriteError
from effdet_plugin.evaluation.coco_twelve import Evaluated
from effdet_plugin.report import Detections, Facts, History, Subject, collect, write_report
from effdet_plugin.report.figures import charts, figure_of, short

HISTORY = History(
    {'loss': ([0.5, 1.0, 2.0], [2.0, 1.5, 1.0]), 'loss_cls': ([0.5, 1.0, 2.0], [1.0, 1.0, 0.5])},
    [1, 2],
    [0.25, 0.5],
    [0.5, 0.75],
)


class Tags(HTMLParser):
    """Collects tags, attributes that name something elsewhere, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ''
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or '' for key, value in attrs if key in ('src', 'href', 'srcset')]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope='module')
def written(facts: Facts, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject(
        'run <1>', images, HISTORY, [('epochs', '<2>', 'as "asked"')],
        {CLASSES[0]: 1234}, ['efficientdet predict best.pth IMAGE'],
    )  # fmt: skip
    return write_report(facts, subject, tmp_path_factory.mktemp('report') / 'new')


def test_page__names_are_text_and_nothing_is_fetched(written: Path) -> None:
    page = Tags(written.read_text(encoding='utf-8'))
    assert not page.tags & {'b<', 'i', 'script', 'link', 'iframe', 'object', 'base', 'form'}
    assert page.addresses
    assert all(re.match(r'data:image/(png|jpeg);base64,', one) for one in page.addresses)
    for name in (*CLASSES, 'a<i>.png', 'run <1>', '<2>', 'as "asked"', '1,234'):
        assert name in page.text, name
    assert 'http' not in written.read_text(encoding='utf-8').replace('http-equiv', '')


def test_page__shows_all_parts(written: Path) -> None:
    page = Tags(written.read_text(encoding='utf-8'))
    for title in ('Charts', 'Classes', 'most mistakes', 'Labels', 'Settings', 'Next'):
        assert title in page.text
    # Seven charts, two curves, one image with mistakes.
    assert len(page.addresses) == len(charts(HISTORY)) + 1 == 10
    assert '1 of a wrong class' in page.text


def test_sheet__is_an_image(written: Path) -> None:
    with Image.open(written.with_name('report.png')) as sheet:
        pixels = np.asarray(sheet.convert('RGB'))
    assert pixels.shape[0] > 1000
    assert len(np.unique(pixels.reshape(-1, 3)[::7], axis=0)) > 50


def test_report__of_an_image_that_is_gone(facts: Facts, tmp_path: Path) -> None:
    page = write_report(facts, Subject('t', tmp_path / 'absent'), tmp_path / 'out')
    assert 'a&lt;i&gt;.png: 1 of a wrong class; cannot be read' in page.read_text(encoding='utf-8')


def test_report__into_a_file(facts: Facts, images: Path, tmp_path: Path) -> None:
    (tmp_path / 'report').write_text('')
    with pytest.raises(WriteError, match='is a file'):
        write_report(facts, Subject('t', images), tmp_path / 'report')


@pytest.mark.parametrize('detections', [0, 1])
def test_charts__of_a_thousand_classes_and_of_no_detection(detections: int) -> None:
    names = tuple(f'class {n} 猫' for n in range(1000))
    coco = make_coco(['a.png'], [(0, n, [10, 10, 20, 20], 0) for n in range(1, 41)])
    coco.dataset['categories'] = [dict(id=n, name=name) for n, name in enumerate(names, 1)]
    coco.createIndex()
    found = [dict(image_id=10, category_id=3, bbox=[10, 10, 20, 20], score=0.5)] * detections
    kept = Evaluated(coco, found, [10], list(range(1, 1001)), names)
    facts = collect(coco, Detections.of(kept), names, kept.category_ids)
    for title, draw in charts(History()).items():
        with Image.open(io.BytesIO(figure_of(draw, facts, History()))) as image:
            assert image.width < 1000, title
            assert image.height < 1000, title


@pytest.mark.parametrize(
    ('name', 'shown'),
    [('$x$', r'\$x\$'), ('_a', ' _a'), ('a\nb', 'a?b'), ('n' * 40, 'n' * 21 + '…')],
)
def test_short(name: str, shown: str) -> None:
    assert short(name) == shown


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs chromium')
def test_page__in_a_browser(written: Path, tmp_path: Path) -> None:
    shot = tmp_path / 'shot.png'
    options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
    subprocess.run(
        ['chromium', *options, f'--user-data-dir={tmp_path}/profile', '--window-size=1200,2400',
         f'--screenshot={shot}', written.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    pixels = np.asarray(Image.open(shot).convert('RGB')).astype(int)
    assert pixels.shape == (2400, 1200, 3)
    # Charts in two columns: something is drawn in both halves, and nothing at the margins.
    is_drawn = (255 - pixels).sum(axis=2) > 60
    assert is_drawn[250:1500, 60:600].mean() > 0.01
    assert is_drawn[250:1500, 620:1140].mean() > 0.01
    assert not is_drawn[:, :20].any()
    assert not is_drawn[:, -20:].any()
