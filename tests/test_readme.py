"""The Python snippets of README.md and docs/usage.md run unchanged and in order, in a folder of synthetic films.

The snippets and `c2l` commands of docs/hub.md run in separate processes, against a local stand-in for the hub.
Relative links of every page lead to a file, and to a section if they name one.
docs/commands.md is the text of `c2l --help`.
"""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
from hub_clients import C2L, python
from hub_stand_in import HubStandIn

from c2l_models.cli import main
from c2l_models.commands import COMMANDS
from c2l_models.optional_training import TRAINING_COMMANDS
from c2l_models.overview import GROUPS

HUB = "Publish and load"

AGREE = """
import torch
films = torch.rand(2, 1, 64, 64)
models = c2l_models.resnet18(pretrained=True, in_chans=1), by_timm, by_name, by_folder
with torch.inference_mode():
    features, *others = (model.eval()(films) for model in models)
for other in others:
    torch.testing.assert_close(other, features, rtol=1e-5, atol=1e-5)
"""


def sections(page: Path) -> dict[str, str]:
    """Text under each second-level title of a page, by title."""
    _, *parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def pages(repository: Path) -> list[Path]:
    return [*repository.glob("*.md"), *(repository / "docs").glob("*.md")]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def run_snippets(page: Path) -> str:
    """Run a page's Python snippets in one namespace, and return what they print."""
    snippets = blocks("python", page.read_text(encoding="utf-8"))
    assert len(snippets) >= 2, "the pattern finds the page's snippets"
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, snippet in enumerate(snippets, 1):
            exec(compile(snippet, f"{page.name}, snippet {number}", "exec"), names)
    return printed.getvalue()


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_snippets_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    monkeypatch.chdir(tmp_path)
    run_snippets(repository / page)


@pytest.mark.usefixtures("timm_reads_folders")
def test_python_snippets_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(repository / "hubconf.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    printed = run_snippets(repository / "docs" / "usage.md")

    losses = [float(value) for value in re.findall(r"loss (\d+\.\d+)", printed)]
    assert len(losses) == 10
    assert losses[-1] < losses[0], "fine-tuning learns"


def test_the_hub_gives_back_what_was_published(repository: Path, tmp_path: Path) -> None:
    text = sections(repository / "docs" / "hub.md")[HUB]
    lines = [line for block in blocks("bash", text) for line in block.splitlines() if line.startswith("c2l ")]
    assert [line.split()[1] for line in lines] == ["publish", "download"]
    with HubStandIn() as hub:
        for line in lines:
            _, *arguments = shlex.split(line, comments=True)
            done = python(C2L, *arguments, cwd=tmp_path, endpoint=hub.endpoint)
            assert done.returncode == 0, done.stderr
        done = python("\n".join([*blocks("python", text), AGREE]), cwd=tmp_path, endpoint=hub.endpoint, token=None)
        assert done.returncode == 0, done.stderr
        assert list(hub.repositories) == ["NAME/resnet18.c2l_open26k"]


def test_files_that_the_readme_names_exist(repository: Path) -> None:
    for page in pages(repository):
        for link, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", page.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}#{anchor}"


def test_the_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_make_targets_that_pages_and_workflows_name_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for file in [*pages(repository), *(repository / ".github" / "workflows").glob("*.yml"), repository / ".ci" / "run"]:
        named |= set(re.findall(r"(?:^|`|run: )make ([a-z][\w-]*)", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert named >= {"demo", "test", "lint", "types", "docs-check", "test-wheel", "test-lowest"}
    assert named <= targets


def documented_commands(repository: Path) -> dict[tuple[str, ...], set[str]]:
    """The flags of every `c2l` command in the pages' shell blocks and inline code, by subcommand."""
    found: dict[tuple[str, ...], set[str]] = {}
    for page in pages(repository):
        if page.name in ("CHANGELOG.md", "commands.md"):
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        shell = "\n".join(blocks("bash", text))
        inline = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        lines = [line.partition(" #")[0] for line in shell.splitlines()] + re.findall(r"`([^`]+)`", inline)
        for line in lines:
            words = re.sub(r"\S+\.toml", "smoke", line).split()  # a recipe of the user's has the same flags
            if len(words) > 1 and words[0] == "c2l" and not words[1].startswith("-"):
                flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
                # These commands choose their flags by the next word.
                depth = 3 if words[1] in {"pretrain", "benchmark", "finetune", "detect"} else 2
                if "--list-recipes" not in flags:  # this flag replaces the recipe
                    found.setdefault(tuple(words[1:depth]), set()).update(flags)
    return found


@pytest.mark.training
def test_flags_of_documented_commands_exist(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = documented_commands(repository)
    assert len(commands) >= 20, "the pattern finds the commands"
    for words, flags in commands.items():
        with contextlib.suppress(SystemExit):
            main([*words, "--help-all" if words[0] == "pretrain" and len(words) > 1 else "--help"])
        printed = capsys.readouterr()
        assert f"c2l {words[0]}" in printed.out, f"c2l {' '.join(words)}: {printed.err}"
        unknown = {flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", printed.out)}
        assert not unknown, f"c2l {' '.join(words)}"


def test_the_page_of_commands_is_the_help(repository: Path) -> None:
    page = sections(repository / "docs" / "commands.md")
    lines = {name: function.__doc__.splitlines()[0] for name, function in COMMANDS.items()} | TRAINING_COMMANDS
    for title, names in GROUPS.items():
        section = page[title].replace("\\|", "|")
        rows = re.findall(r"^\| `c2l (\S+)` \| (.*) \| \[.+\]\(\S+\) \|$", section, re.MULTILINE)
        assert rows == [(name, lines[name]) for name in names.split()]
