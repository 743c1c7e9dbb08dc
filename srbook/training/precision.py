"""Which number format a training step computes in."""

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware: AMX on CPUs, Ampere or later on NVIDIA GPUs.

    Without such units bfloat16 is emulated, slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported()
    return False


def choose_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into "bf16" or "fp32" for a device; keep any other choice."""
    if precision != "auto":
        return precision
    return "bf16" if has_fast_bf16(device) else "fp32"
