"""Where to compute: the device and its precision, chosen from what the machine has, never from params."""

import torch
from lightning_fabric import Fabric


def make_fabric() -> Fabric:
    """Choose device and precision: an accelerator where there is one, with bfloat16 autocast where it has that."""
    use_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    return Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if use_bfloat16 else "32-true")


def describe_device(fabric: Fabric) -> str:
    """Return device and precision in words."""
    device = fabric.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, {fabric.strategy.precision.precision}"
