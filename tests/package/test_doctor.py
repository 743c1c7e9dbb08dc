"""`srbook doctor`: true about this machine, and never stopped by what it looks at."""

import builtins
import importlib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from srbook import doctor
from srbook.cli import app
from srbook.doctor import Finding, diagnose


def find(sections: dict[str, list[Finding]], name: str) -> Finding:
    return next(finding for findings in sections.values() for finding in findings if finding.name == name)


def break_import(monkeypatch: pytest.MonkeyPatch, broken: str, error: Exception) -> None:
    """Importing `broken` raises `error`, however it is imported."""
    real, real_by_name = builtins.__import__, importlib.import_module

    def fake(name: str, *arguments: object, **options: object) -> object:
        if name == broken:
            raise error
        return real(name, *arguments, **options)

    def fake_by_name(name: str, *arguments: object) -> object:
        if name == broken:
            raise error
        return real_by_name(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", fake)
    monkeypatch.setattr(doctor, "import_module", fake_by_name)


def test_the_report_is_true_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SRBOOK_BUDGET", "full")
    monkeypatch.setenv("SRBOOK_DTAA", "typo")
    monkeypatch.setenv("SRBOOK_DATA", str(tmp_path))
    sections = diagnose()
    assert torch.__version__ in find(sections, "torch").text
    assert f"{torch.get_num_threads()} threads" in find(sections, "CPU").text
    assert find(sections, "numpy").state == "ok" and find(sections, "bicubic").state == "ok"
    assert "'full'" in find(sections, "SRBOOK_BUDGET").text
    assert find(sections, "SRBOOK_DTAA").state == "note"
    assert find(sections, "data folder").text == f"{tmp_path}, 0 of 12 sets"
    assert not any(finding.fatal for findings in sections.values() for finding in findings)


def test_backbones_are_found_where_they_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "alexnet_features.npz").touch()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth").touch()
    monkeypatch.setenv("SRBOOK_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    sections = diagnose()
    assert find(sections, "alexnet").text.endswith("own/alexnet_features.npz")
    assert find(sections, "vgg16").text.endswith("vgg16-397923af.pth")
    assert find(sections, "squeezenet1_1").state == "missing"
    monkeypatch.setenv("SRBOOK_WEIGHTS", str(tmp_path / "absent"))
    assert "not a folder" in find(diagnose(), "alexnet").text


def test_a_broken_optional_part_is_explained_and_not_fatal(monkeypatch: pytest.MonkeyPatch):
    break_import(monkeypatch, "lpips", RuntimeError("operator torchvision::nms does not exist"))
    finding = find(diagnose(), "lpips")
    assert finding.state == "broken" and not finding.fatal
    assert "RuntimeError: operator torchvision::nms" in finding.text
    assert 'pip install "srbook[lpips]"' in finding.text
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_a_missing_optional_part_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "accelerate" else real(name))
    finding = find(diagnose(), "accelerate")
    assert finding.state == "missing" and not finding.fatal
    assert finding.text == 'for training: pip install "srbook[train]"'


def test_a_broken_essential_part_is_fatal(monkeypatch: pytest.MonkeyPatch):
    break_import(monkeypatch, "torch", OSError("libtorch.so: cannot open shared object file"))
    finding = find(diagnose(), "torch")
    assert finding.fatal and "libtorch.so" in finding.text
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1 and "cannot work before this is mended: torch" in result.stderr


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch):
    def fail(name: str) -> None:
        raise PermissionError("no access")

    monkeypatch.setattr("srbook.data.catalog.locate", fail)
    monkeypatch.setenv("SRBOOK_DATA", "/")
    sections = diagnose()
    assert find(sections, "Image sets").text == "could not be looked at: PermissionError: no access"
    assert find(sections, "torch").state == "ok" and sections["Variables"]
