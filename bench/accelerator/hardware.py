"""What an accelerator's figures were measured on: device, memory, driver and versions."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import jax
import jaxlib

from bench.measure import machine

QUERY = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]


def hardware() -> dict[str, Any]:
    """`machine` and the device's side of it; None where the backend does not say."""
    device = jax.devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return machine() | {
        "devices": jax.device_count(),
        "memory_gib": limit / 2**30 if limit else None,  # that JAX may take
        "compute_capability": getattr(device, "compute_capability", None),
        "platform_version": device.client.platform_version,
        "driver": nvidia_driver(),
        "jaxlib": jaxlib.__version__,
    }


def nvidia_driver() -> list[str] | None:
    """A line per GPU: its name, driver version and memory; None without NVIDIA's tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    done = subprocess.run([tool, *QUERY], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip().splitlines() if done.returncode == 0 else None
