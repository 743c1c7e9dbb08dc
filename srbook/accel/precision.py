"""Which number format a training step computes in."""

import os

import torch

# What the levels of ONEDNN_MAX_CPU_ISA leave of the processor. oneDNN emulates bfloat16 below them.
_VECTORS = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
_ALL = ("AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16", "AVX10_1_512_AMX", "AVX10_1_512_AMX_FP16", "ALL", "DEFAULT")


def bf16_units(device: torch.device) -> str:
    """What makes bfloat16 fast on a device; empty where bfloat16 is slower than float32.

    On CPUs "AMX" (matrix units) or "AVX512-BF16" (vector instructions), unless `ONEDNN_MAX_CPU_ISA` forbids oneDNN to
    use them; "tensor cores" on NVIDIA GPUs from Ampere on. torch older than 2.10 does not report what a CPU has.
    """
    if device.type == "cuda":
        return "tensor cores" if torch.cuda.get_device_capability(device) >= (8, 0) else ""
    level = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return ""
    has = torch.cpu.get_capabilities()
    if level in _ALL and has.get("amx_bf16"):
        return "AMX"
    return "AVX512-BF16" if level in (*_ALL, *_VECTORS) and has.get("avx512_bf16") else ""


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device computes faster in bfloat16 than in float32; see `bf16_units`."""
    return bool(bf16_units(device))


def choose_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into "bf16" or "fp32" for a device; keep any other choice."""
    if precision != "auto":
        return precision
    return "bf16" if has_fast_bf16(device) else "fp32"
