"""Train, test and use EfficientDet, and its parts in mmdet's detectors.

    efficientdet train --data DIR                      your own images
    efficientdet predict best.pth photo.jpg            their detections, drawn and as JSON
    efficientdet test best.pth --data DIR              COCO's 12 metrics
    efficientdet export best.pth --format onnx --out best.onnx

'efficientdet COMMAND --help' explains a command. After 'eval "$(efficientdet --completion bash)"'
(or zsh) a shell completes commands and options.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

import effdet_plugin
from effdet_plugin.cli.model_words import parse_model_args
from effdet_plugin.cli.options import Parser, make_parser
from effdet_plugin.cli.start import run
from effdet_plugin.errors import ConfigError

PROGRAM = 'efficientdet'
COMMANDS = {
    'train': 'train a detector, also of your own data',
    'test': 'evaluate a model',
    'predict': 'detect objects in images and videos',
    'export': 'write a model for another runtime',
    'convert': 'convert weights of other projects',
    'benchmark': 'time networks, files and detectors',
    'check': 'check a dataset',
    'models': 'list the networks with their costs',
    'env': 'print versions, for a bug report',
}


def main(words: Sequence[str] | None = None) -> None:
    """Run a command line and end the program with its exit code.

    Args:
        words: What follows ``efficientdet``; None: the program's.
    """
    words = list(sys.argv[1:] if words is None else words)
    name, *rest = words or ['--help']
    if name in COMMANDS:
        run(lambda: call(name, rest, f'{PROGRAM} {name}'))
    else:
        run(lambda: _without_command(words or ['--help']))


def command(name: str) -> Callable[[], object]:
    """Return a command as ``tools/NAME.py`` runs it, on the words of the program."""
    return lambda: call(name, sys.argv[1:])


def call(name: str, words: Sequence[str], prog: str | None = None) -> object:
    """Parse a command's words and run it.

    Args:
        name: One of `COMMANDS`.
        words: Of the command line, after the name.
        prog: The name in the help; None: that of the script.

    Returns:
        An exit code, or None for 0.
    """
    module = load(name)
    words = getattr(module, 'complete', list)(words)
    return module.run(parse(make(module, prog), words))


def load(name: str) -> ModuleType:
    """Import a command."""
    return import_module(f'effdet_plugin.cli.{name}')


def make(module: ModuleType, prog: str | None = None) -> ArgumentParser:
    """Return the parser of a command."""
    parser = make_parser(module.__doc__)
    parser.prog = prog or parser.prog
    module.add_arguments(parser)
    return parser


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Parse words; where there is a MODEL, a CONFIG may be before it."""
    positionals = [action.dest for action in parser._get_positional_actions()]
    if {'config', 'model'} <= {*positionals}:
        return parse_model_args(parser, list(words))
    return parser.parse_args(words)


def _without_command(words: Sequence[str]) -> None:
    """Print help, version or the completion, or what is wrong."""
    if not words[0].startswith('-'):
        near = get_close_matches(words[0], COMMANDS, 1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise ConfigError(f'{words[0]}: no such command{hint} ({", ".join(COMMANDS)})')
    epilog = '\n'.join(f'  {name:<11}{text}' for name, text in COMMANDS.items())
    parser = Parser(
        prog=PROGRAM,
        description=__doc__,
        epilog=f'commands:\n{epilog}',
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', nargs='?', metavar='COMMAND')
    parser.add_argument('--version', action='version', version=effdet_plugin.__version__)
    parser.add_argument('--completion', choices=('bash', 'zsh'), help='print a completion script')
    print(completion(parser.parse_args(words).completion))


def completion(shell: str) -> str:
    """Return a script that completes commands, their options and choices, else file names.

    Args:
        shell: ``'bash'`` or ``'zsh'``.
    """
    cases = []
    for name in COMMANDS:
        parser = make(load(name), name)
        words = (word for action in parser._actions for word in action.option_strings)
        options = sorted(word for word in words if word.startswith('--'))
        cases.append(f'    {name}) words="{" ".join(options)}" ;;')
    lines = [
        *(['autoload -U +X bashcompinit && bashcompinit'] if shell == 'zsh' else []),
        f'_{PROGRAM}() {{',
        '  local words word="${COMP_WORDS[COMP_CWORD]}"',
        f'  if [ "$COMP_CWORD" -eq 1 ]; then words="{" ".join(COMMANDS)}"; else',
        '  case "${COMP_WORDS[1]}" in',
        *cases,
        '  esac; fi',
        '  case "$word" in -*) ;; *) [ "$COMP_CWORD" -gt 1 ] && words="" ;; esac',
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        '}',
        f'complete -o default -F _{PROGRAM} {PROGRAM}',
    ]
    return '\n'.join(lines)
