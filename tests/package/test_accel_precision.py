"""Where bfloat16 pays: on processors and GPUs that have instructions for it."""

import pytest
import torch

from srbook import doctor
from srbook.accel import bf16_units, choose_precision, has_fast_bf16

CPU = torch.device("cpu")
INTEL, AMD, OLD = {"amx_bf16": True, "avx512_bf16": True}, {"amx_bf16": False, "avx512_bf16": True}, {"avx2": True}


@pytest.mark.parametrize(
    ("processor", "level", "units"),
    [
        (INTEL, None, "AMX"),
        (INTEL, "AVX512_CORE_BF16", "AVX512-BF16"),
        (INTEL, "AVX512_CORE", ""),
        (INTEL, "avx2", ""),
        (AMD, None, "AVX512-BF16"),
        (AMD, "all", "AVX512-BF16"),
        (AMD, "SSE41", ""),
        (OLD, None, ""),
    ],
)
def test_bfloat16_is_used_where_the_processor_gains(
    processor: dict[str, bool], level: str | None, units: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if level is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", level)
    assert bf16_units(CPU) == units and has_fast_bf16(CPU) == bool(units)
    assert choose_precision("auto", CPU) == ("bf16" if units else "fp32")
    assert choose_precision("fp32", CPU) == "fp32" and choose_precision("bf16", CPU) == "bf16"
    (said,) = (finding for finding in doctor._devices() if finding.name == "bfloat16")
    assert said.text.startswith(f"{units}: " if units else "the CPU has no instructions") and not said.fatal


@pytest.mark.parametrize(("capability", "units"), [((8, 0), "tensor cores"), ((9, 0), "tensor cores"), ((7, 5), "")])
def test_gpus_have_it_from_ampere_on(capability: tuple[int, int], units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert bf16_units(torch.device("cuda")) == units
    assert bf16_units(torch.device("meta")) == ""
