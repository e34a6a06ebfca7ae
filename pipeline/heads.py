"""What sits on an encoder's last feature map: an image head that pools, and a pixel head that does not."""

from torch import Tensor, nn


class ImageHead(nn.Module):
    """Global average pooling and one linear layer: features (B, C, h, w) -> image logits (B, K)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)
        _start_small(self.linear)

    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        return self.linear(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class PixelHead(nn.Module):
    """One 1x1 convolution: features (B, C, h, w) -> background and foreground logits (B, 2, h, w).

    Source: the pixel classifier of Sec. 3 of arXiv 2503.24135.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 2, kernel_size=1)
        _start_small(self.convolution)

    def forward(self, features: Tensor) -> Tensor:
        """Return pixel logits, float (B, 2, h, w), channel 1 is foreground."""
        return self.convolution(features)  # type: ignore[no-any-return]


def _start_small(layer: nn.Linear | nn.Conv2d) -> None:
    """Let all classes begin nearly alike, so that a pretrained encoder is not shaken by its new head."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
