"""The ablations: what is stored says where it is from, and a stopped command measures nothing twice."""

import json
import re
import sys

import pytest
import torch
from rounding import identical

import srbook
from benchmarks.studies.lab import Lab
from srbook.data import write_image
from srbook.registry import read_preset
from srbook.results import stored_result
from srbook.training import TrainingConfig

KEYS = {
    "ecdp": ("blend", "quality_loss", {(b, q) for b in ("eps", "x0", "hybrid") for q in ("none", "squeezenet")}),
    "esrdf": (
        "predictor",
        "diffuses",
        {(p, d) for p in ("bicubic", "cnn", "cnn-entropy") for d in ("image", "residual")},
    ),
}


@pytest.mark.parametrize("study", KEYS)
def test_a_stored_ablation_has_all_rows_and_its_provenance(study):
    record = stored_result(f"{study}_ablation")
    one, two, expected = KEYS[study]
    assert {(row[one], row[two]) for row in record["rows"]} == expected
    for row in record["rows"]:
        for of in record["sets"]:
            assert 10 < row[of]["psnr"] < 40 and 0 < row[of]["ssim"] < 1 and 0 < row[of]["lpips"] < 1
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"])
    assert all(record[key] for key in ("command", "date", "machine", "torch", "photos", "protocol", "preset"))
    assert all(training["hours"] > 0 and training["steps"] > 0 for training in record["trainings"])
    assert not re.search(r"/(work|tmp|root|home)/", json.dumps(record))


def test_rows_of_one_study_had_the_same_budget():
    for study, stage in (("ecdp", "quality"), ("esrdf", "predictor")):
        record = stored_result(f"{study}_ablation")
        steps = {training["steps"] for training in record["trainings"] if training["stage"] == stage}
        assert steps == {read_preset(record["preset"]).training[stage].steps}
    branches = [t["steps"] for t in stored_result("esrdf_ablation")["trainings"] if t["stage"] != "predictor"]
    assert branches == [read_preset("esrdf-small").training["diffusion"].steps] * 6


@pytest.fixture
def lab(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("photos/a", "Set5/b", "Set14/c"):
        write_image(tmp_path / f"{name}.png", torch.rand(3, 136, 140, generator=generator))
    return Lab("trial", data=[tmp_path / "photos"], tests=tmp_path, runs=tmp_path / "runs", most_steps=2)


def test_the_center_of_each_image_is_measured_once(lab):
    seen = []

    def figures(truth, lr, seed):
        seen.append((truth.shape[-2:], lr.shape[-2:], seed))
        return {"value": float(len(seen))}

    first = lab.measure("row", figures)
    assert seen == [((128, 128), (32, 32), 0)] * 2
    assert first == {"Set5-128": {"value": 1.0}, "Set14-128": {"value": 2.0}} == lab.measure("row", figures)
    assert len(seen) == 2


def test_a_training_is_taken_from_its_folder(lab):
    config = TrainingConfig(steps=50, batch_size=1, patch_size=16, precision="fp32")
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        method = lab.train("run", srbook.build("predictor"), config, "main")
        weights.append(torch.cat([weight.flatten() for weight in method.parameters()]))
    assert identical(*weights)
    assert [(training["name"], training["steps"]) for training in lab.trainings] == [("run", 2)] * 2


def test_the_record_names_no_folder(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["__main__.py", "ecdp", "--data", "/a", "/b", "--tests", "/c", "--runs", "/d"])
    record = json.loads(lab.store({"rows": []}, tmp_path / "table.json").read_text())
    assert record["command"] == "python -m benchmarks.studies ecdp --data PHOTOS --tests SETS"
    assert record["rows"] == [] and record["sets"].keys() == {"Set5-128", "Set14-128"}
