"""Every option of every command is explained, with its default."""

import re

import pytest

from c2l_models import cli
from c2l_models.commands import COMMANDS
from c2l_models.optional_training import TRAINING_COMMANDS

BENCHMARKS = ("step", "input", "prepare", "embed", "probe", "peer", "scaling", "coverage")
PARSERS = [
    *([name] for name in COMMANDS),
    *([name] for name in TRAINING_COMMANDS if name not in ("pretrain", "detect", "benchmark")),
    ["pretrain", "smoke", "--help-all"],
    ["detect", "rsna"],
    *(["benchmark", name] for name in BENCHMARKS),
]
ENTRY = re.compile(r"[│| ] ?(-{1,2}[a-z]|\[?[A-Z]{3,})")
"""An option or an argument; the lines below it are indented by more than two."""


def options_of(text):
    """The options and arguments in tyro's help, each with its explanation. Their boxes may be drawn with spaces."""
    found = {}
    for line in text.splitlines():
        words = line.strip("│| ")
        if ENTRY.match(line):
            option, _, explanation = re.sub(r"\s{2,}", "\0", words).partition("\0")
            found[option] = explanation.replace("\0", " ")
        elif found and re.match(r".\s{3,}\S", line):
            found[option] += f" {words}"
    return found


def printed_help(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, *([] if "--help-all" in arguments else ["--help"])])
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(words, marks=[pytest.mark.training] * (words[0] in TRAINING_COMMANDS), id=" ".join(words))
        for words in PARSERS
    ],
)
def test_every_option_has_a_sentence_and_a_default(arguments, capsys, monkeypatch):
    text = printed_help(arguments, capsys, monkeypatch)
    options = options_of(text)
    assert options.pop("-h, --help")
    for option, explanation in options.items():
        sentence, bracket, default = explanation.rpartition("(")
        assert len(sentence.split()) >= 2, f"{option}: {explanation!r}"
        assert bracket
        assert re.match(r"(required|default: .*|repeatable|optional)", default), f"{option}: {explanation!r}"
        if default == "default: None)":
            assert re.search(r"[Bb]y default", sentence), f"{option} does not say what None means: {sentence}"


@pytest.mark.training
def test_help_of_a_recipe_is_short(capsys, monkeypatch):
    from c2l_models.training.recipe_files import load_recipe

    short = options_of(printed_help(["pretrain", "smoke"], capsys, monkeypatch))
    full = options_of(printed_help(["pretrain", "smoke", "--help-all"], capsys, monkeypatch))
    shared = {option for option in full if not option.startswith("--recipe.")}
    assert shared <= short.keys() <= full.keys()
    assert len(short) - len(shared) == 12
    recipe = load_recipe("smoke").to_dict()
    sections = [value for value in recipe.values() if isinstance(value, dict)]
    assert len(full) - len(shared) == len(recipe) - len(sections) + sum(map(len, sections))
    for option, explanation in short.items():
        assert full[option].split() == explanation.split()  # the recipe's own default among them
