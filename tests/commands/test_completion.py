"""Completion in bash, zsh and fish: the script that is installed, and what it completes."""

import pytest

from tests.commands.running import run

SHELLS = {"bash": "complete_bash", "zsh": "complete_zsh", "fish": "complete_fish"}


async def completed(shell: str, *words: str) -> str:
    """What the shell's script is told to offer after these words."""
    line = " ".join(words)
    code, out, err = await run(
        _VIEWGATE_COMPLETE=SHELLS[shell],
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize("shell", SHELLS)
async def test_commands_and_options_are_completed(shell: str) -> None:
    assert "query" in await completed(shell, "viewgate", "qu")
    assert "--mode" in await completed(shell, "viewgate", "query", "--mo")
    assert "serve" not in await completed(shell, "viewgate", "qu")


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_values_of_an_option_are_completed(shell: str) -> None:
    assert "cache-aside" in await completed(shell, "viewgate", "query", "--mode", "ca")


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    code, out, _ = await run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert code == 0
    assert "_VIEWGATE_COMPLETE" in out
