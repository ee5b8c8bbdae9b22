"""What indexes read of this project: models, citation, package metadata, container."""

import re
import runpy
from typing import Any
from unittest.mock import patch

import pytest
import yaml

import effdet_plugin
from effdet_plugin.convert.api import BASE_URL, RELEASES
from effdet_plugin.costs import REFERENCE
from effdet_plugin.export.extras import PACKAGES
from support import REPOSITORY

LINK = re.compile(r'\]\(([^)\s]+)\)')


def read(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text(encoding='utf-8'))


def test_model_index__has_the_networks_of_the_table() -> None:
    (file,) = read('model-index.yml')['Import']
    found = read(file)
    collections = {one['Name'] for one in found['Collections']}
    models = {one['Name'].removesuffix('_coco'): one for one in found['Models']}
    assert list(models) == list(REFERENCE)
    for name, model in models.items():
        published = REFERENCE[name]  # the parameters that the networks are counted to have
        assert model['Metadata']['Parameters'] == published.parameters
        assert model['Metadata']['FLOPs'] == published.multiply_adds
        (result,) = model['Results']
        assert result['Metrics'] == {'box AP': published.ap}
        assert model['In Collection'] in collections
        config = REPOSITORY / model['Config']
        assert config.is_file()
        assert config.name == f'{name}_coco.py'
        assert model['Converted From']['Weights'] == BASE_URL + RELEASES[name]


@pytest.mark.parametrize('page', ['README.md', 'docs/models.md'])
def test_tables__have_the_counted_figures(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding='utf-8')
    rows = re.findall(r'^\| (?:\[|`)(\w+)(?:\]\([^)]*\)|`) \| \d+x\d+ \| (.+) \|$', text, re.M)
    assert [name for name, _ in rows] == list(REFERENCE)
    for name, cells in rows:
        one = REFERENCE[name]  # which tests/parity compares with the built networks
        expected = f'{one.parameters:,} | {one.multiply_adds / 1e9:,.2f}G | {one.ap:.1f}'
        assert cells.split(' | ')[:3] == expected.split(' | '), name


def test_citation__is_of_this_version_and_names_the_paper() -> None:
    found = read('CITATION.cff')
    assert found['version'] == effdet_plugin.__version__
    assert found['license'] == 'Apache-2.0'
    paper = found['preferred-citation']
    assert [one['family-names'] for one in paper['authors']] == ['Tan', 'Pang', 'Le']
    assert paper['url'] in (REPOSITORY / 'README.md').read_text(encoding='utf-8')


def test_package__description_has_no_links_to_files_of_the_clone() -> None:
    with patch('setuptools.setup') as setup:
        runpy.run_path(str(REPOSITORY / 'setup.py'))
    text = setup.call_args.kwargs['long_description']
    readme = (REPOSITORY / 'README.md').read_text(encoding='utf-8')
    assert any(not link.startswith('http') for link in LINK.findall(readme))
    assert all(link.startswith('http') for link in LINK.findall(text))
    assert '# effdet_plugin' in text


def test_extras__are_what_messages_name() -> None:
    with patch('setuptools.setup') as setup:
        runpy.run_path(str(REPOSITORY / 'setup.py'))
    extras = setup.call_args.kwargs['extras_require']
    for name, packages in PACKAGES.items():
        assert set(extras[name]) == set(packages), name


def test_container__copies_what_exists_and_starts_the_command() -> None:
    text = (REPOSITORY / 'Dockerfile').read_text(encoding='utf-8')
    copied = [word for line in re.findall(r'^COPY (.+)', text, re.M) for word in line.split()[:-1]]
    assert {'effdet_plugin', 'requirements', 'tools', 'configs'} <= set(copied)
    assert all((REPOSITORY / name).exists() for name in copied)
    for name in re.findall(r'(?:requirements|tools)/[\w.-]+', text):
        assert (REPOSITORY / name).exists(), name
    assert 'ARG BASE=' in text
    assert '"-m", "effdet_plugin"]' in text
