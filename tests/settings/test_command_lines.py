"""Contract of all tools: a user's mistake is one line that names it, and exit code 2."""

import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "fixed_head_jax"
DIGITS = "digits"
AUGMENT = ["augment", "--out=x.png"]
# Module -> command lines that cannot be carried out, each with what the line must name.
MISTAKES = {
    "accounting": [
        ([], "required: --table"),
        (["--table", "--classes=1"], "--classes must be at least 2 .* got 1 and 224"),
        (["--table", "--image_size=x"], "--image_size: invalid int value: 'x'"),
    ],
    "data": [
        ([], "required: prepare | info"),
        (["prepair"], "invalid choice: 'prepair'"),
        (["prepare", "image_folder", "--name=mine"], "image_folder needs --path"),
        (["prepare", "image_folder", "--name=My", "--path=."], "name must be .* got 'My'"),
        (["prepare", "image_folder", "--name=my", "--path=none"], "path 'none' is not a folder"),
        (["prepare", "digits", "--channels=3"], "--channels is not for 'digits'; leave it out"),
        (["prepare", "digits", "--threads=-1", "--data_dir=."], "num_threads must be .* got -1"),
        (["info", "digits", "--data_dir=none"], "data_dir 'none' is not a directory; create it"),
        (["info", "digits", "--out=x.jpg"], "must end in .png, got 'x.jpg'"),
    ],
    "ensemble": [
        ([], "required: RUN"),
        (["none"], "'none' is neither the workdir of a run nor an .npz file"),
        (["."], "'.' holds no predictions; .*--config.save_predictions=True"),
        (["broken.npz"], "broken.npz is damaged .*; remove it"),
    ],
    "export": [
        ([], "required: RUN"),
        (["run", "--format=onx", "--out=x"], "invalid choice: 'onx'"),
        (["none", "--format=torch", "--out=x.safetensors"], "'none' holds no run"),
    ],
    "pretrained": [
        ([], "required: command"),
        (["convert", "a.pth", "b.safetensors", "--backbone=resnet"], "invalid choice: 'resnet'"),
        (["convert", "a.pth", "b.txt", "--backbone=resnet18"], "OUT 'b.txt' must end in"),
        (["convert", "a.pth", "none/b.pkl", "--backbone=resnet18"], "folder of OUT 'none/b.pkl'"),
        (["convert", "a.pth", "b.pkl", "--backbone=resnet18"], "'a.pth' does not exist"),
    ],
    "demo": [
        ([], "demo: name one RUN: the workdir of a run"),
        (["a", "--workdir=b"], "demo: name one RUN"),
        (["a", "--top_k=0"], "demo: --top_k=0 must be at least 1"),
        (["a", "--port=x"], "argument --port: invalid int value: 'x'"),
    ],
    "visualize": [
        ([], "required: command"),
        (AUGMENT, "required: --config"),
        ([*AUGMENT, "--config=none.py"], "--config='none.py' is no experiment and no Python file"),
        ([*AUGMENT, f"--config={DIGITS}", "--config.lr=1"], "no key lr .did you mean optim.lr"),
        ([*AUGMENT, f"--config={DIGITS}", "--config.optim.lr=x"], "--config.optim.lr=x: "),
        ([*AUGMENT, f"--config={DIGITS}", "--examples=few"], "--examples: invalid int .*'few'"),
    ],
}  # fmt: skip
CASES = [(name, *case) for name, cases in MISTAKES.items() for case in cases]


def test_every_tool_is_held_to_the_contract():
    tools = {
        (file.parent if file.name == "__main__.py" else file.with_suffix("")).name
        for file in ROOT.rglob("*.py")
        if 'if __name__ == "__main__"' in file.read_text()
    }
    assert tools == set(MISTAKES)


@pytest.mark.parametrize("name, arguments, message", CASES, ids=lambda value: str(value)[-40:])
def test_a_mistake_is_one_line_and_code_2(tmp_path, monkeypatch, capsys, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module is imported already
        runpy.run_module(f"fixed_head_jax.{name}", run_name="__main__")
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert re.search(message, line)
