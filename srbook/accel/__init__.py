"""What makes networks fast on a device: layers swapped in place, number formats, and freed memory that is kept."""

from srbook.accel.allocator import keep_freed_memory
from srbook.accel.precision import bf16_units, choose_precision, has_fast_bf16
from srbook.accel.swaps import accelerate, restore

__all__ = ["accelerate", "bf16_units", "choose_precision", "has_fast_bf16", "keep_freed_memory", "restore"]
