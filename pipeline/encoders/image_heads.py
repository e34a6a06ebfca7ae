"""What sits on an encoder's last feature map: an image head that pools, and a pixel head that does not.

An image head is a choice. All of them begin small, draw their first weights from torch's global generator, take feature
maps of any size, one cell included, and compute exponentials in float32, whatever the precision around them.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pipeline.params.vocabulary import ImageHeadName
from pipeline.runtime.collectives import joint_mean

LSE_SHARPNESS: Final = 10.0  # r: 0 is the mean, infinity the maximum
WILDCAT_MAPS: Final = 4  # M, maps per class
WILDCAT_SHARE: Final = 0.2  # k as a share of the cells
WILDCAT_LOWEST_WEIGHT: Final = 0.7  # alpha
DEEPMIL_HIDDEN: Final = 128  # as in the published code
SAT_AREA: Final = 0.35  # lambda; published are 0.25 to 0.35, and tissue fills more of an image than a bird does
SAT_ATTENTION_HEADS: Final = 4
SAT_ATTENTION_WIDTH: Final = 64  # of each attention head, as in DeiT
SAT_SMOOTHING: Final = (0.25, 0.5, 0.25)  # a 3x3 Gaussian is this times its transpose


class ImageHead(nn.Module, ABC):
    """Turn features (B, channels, h, w) into image logits (B, classes); built by `build_image_head`."""

    name: ClassVar[ImageHeadName]
    gain: ClassVar[float] = 1.0  # by how much a logit grows where all of its class's map grows by 1

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.channels = channels
        self.classes = classes

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""

    @abstractmethod
    def class_maps(self, features: Tensor) -> Tensor:
        """Return where the evidence of each class lies, before pooling: float (B, K, h, w), higher is more."""

    @property
    def last_layer(self) -> nn.Linear | nn.Conv2d:
        """Return the layer, with a bias, whose outputs are the logits, or maps that are pooled into them."""
        raise NotImplementedError(f"{type(self).__name__}: its logits are not those of one layer")

    def penalty(self, features: Tensor) -> Tensor:
        """Return a loss to add to the classification loss, float32 scalar; 0 for most heads."""
        return features.new_zeros((), dtype=torch.float32)

    @torch.no_grad()
    def shift_logits(self, by: Tensor) -> None:
        """Add a constant to every image's logits for good, float (K,), by the bias of the last layer."""
        bias = self.last_layer.bias
        if bias is None:
            raise ValueError(f"{self.name}: its last layer has no bias")
        bias += by.to(bias).repeat_interleave(len(bias) // self.classes) / self.gain


class GapHead(ImageHead):
    """Global average pooling and one linear layer. Source: CAM, Zhou et al., CVPR 2016."""

    name = ImageHeadName.GAP

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__(channels=channels, classes=classes)
        self.linear = nn.Linear(channels, classes)
        start_small(self.linear)

    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        return self.linear(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    @property
    def last_layer(self) -> nn.Linear | nn.Conv2d:
        """Return the layer that gives logits, or maps of them."""
        return self.linear

    def class_maps(self, features: Tensor) -> Tensor:
        """Return the linear layer at every cell, float (B, K, h, w); its mean over cells is the logits."""
        return conv2d(features, self.linear.weight[:, :, None, None], self.linear.bias)


class _MapHead(ImageHead):
    """Convolve to a number of maps per class, average these, and pool each class's map into its logit."""

    kernel_size: ClassVar[int] = 1
    maps_per_class: ClassVar[int] = 1

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__(channels=channels, classes=classes)
        maps = classes * self.maps_per_class
        self.convolution = nn.Conv2d(channels, maps, self.kernel_size, padding=self.kernel_size // 2)
        start_small(self.convolution)

    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        return self.pool(self.class_maps(features).float())

    @property
    def last_layer(self) -> nn.Linear | nn.Conv2d:
        """Return the layer that gives logits, or maps of them."""
        return self.convolution

    def class_maps(self, features: Tensor) -> Tensor:
        """Return what is pooled, float (B, K, h, w)."""
        # (B, K * M, h, w) -> (B, K, M, h, w) -> (B, K, h, w)
        return self.convolution(features).unflatten(1, (self.classes, self.maps_per_class)).mean(dim=2)  # type: ignore[no-any-return]

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """Pool maps, float32 (B, K, h, w), into logits, float32 (B, K)."""


class MaxHead(_MapHead):
    """The highest cell of each class's map. Source: Oquab et al., "Is object localization for free?", CVPR 2015."""

    name = ImageHeadName.MAX

    def pool(self, maps: Tensor) -> Tensor:
        """Return the maximum over cells."""
        return maps.amax(dim=(2, 3))


class LseHead(_MapHead):
    """A smooth maximum, (1/r) log mean exp(r x). Source: Pinheiro and Collobert, CVPR 2015."""

    name = ImageHeadName.LSE

    def pool(self, maps: Tensor) -> Tensor:
        """Return the log-sum-exp over cells."""
        cells = (LSE_SHARPNESS * maps).flatten(2)
        return (cells.logsumexp(dim=2) - math.log(cells.shape[2])) / LSE_SHARPNESS


class WildcatHead(_MapHead):
    """Evidence for a class where its map is highest, and against it where it is lowest.

    Source: WILDCAT, Durand et al., CVPR 2017.
    """

    name = ImageHeadName.WILDCAT
    gain = 1 + WILDCAT_LOWEST_WEIGHT
    maps_per_class = WILDCAT_MAPS

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean of the k highest cells + alpha * the mean of the k lowest."""
        cells = maps.flatten(2)
        count = max(1, round(WILDCAT_SHARE * cells.shape[2]))
        highest, lowest = (cells.topk(count, largest=largest).values.mean(dim=2) for largest in (True, False))
        return highest + WILDCAT_LOWEST_WEIGHT * lowest


class TSCAMHead(_MapHead):
    """The mean of maps from a 3x3 convolution. Source: TS-CAM, Gao et al., ICCV 2021; also without a transformer."""

    name = ImageHeadName.TSCAM
    kernel_size = 3

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean over cells."""
        return maps.mean(dim=(2, 3))


class DeepMILHead(ImageHead):
    """A linear layer on the cells' mean, weighted by gated attention. Source: Ilse et al., ICML 2018."""

    name = ImageHeadName.DEEPMIL

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__(channels=channels, classes=classes)
        self.content = nn.Conv2d(channels, DEEPMIL_HIDDEN, kernel_size=1)  # V
        self.gate = nn.Conv2d(channels, DEEPMIL_HIDDEN, kernel_size=1)  # U
        self.score = nn.Conv2d(DEEPMIL_HIDDEN, 1, kernel_size=1, bias=False)  # w; softmax would undo a bias
        self.linear = nn.Linear(channels, classes)
        for layer in (self.content, self.gate, self.score, self.linear):
            start_small(layer)

    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        weighted = self._attention(features).to(features.dtype) * features
        return self.linear(weighted.sum(dim=(2, 3)))  # type: ignore[no-any-return]

    @property
    def last_layer(self) -> nn.Linear | nn.Conv2d:
        """Return the layer that gives logits, or maps of them."""
        return self.linear

    def class_maps(self, features: Tensor) -> Tensor:
        """Return the attention, float32 (B, K, h, w), alike for every class; it sums to 1 over the cells."""
        return self._attention(features).expand(-1, self.classes, -1, -1)

    def _attention(self, features: Tensor) -> Tensor:
        """Return the share of each cell, float32 (B, 1, h, w)."""
        scores = self.score(self.content(features).tanh() * self.gate(features).sigmoid())
        return scores.float().flatten(2).softmax(dim=2).view(scores.shape)  # type: ignore[no-any-return]


class SATHead(ImageHead):
    """One transformer block whose attention is masked by the map of a learned spatial token, then a 3x3 convolution.

    The map M is the mean over attention heads of sigmoid(q k / sqrt(d)), q the token's query and k the keys of the
    cells. Source: Spatial-Aware Token, Wu et al., ICCV 2023 (arXiv 2303.10438), with these differences: the paper has
    three such blocks as the last ones of a transformer. Our encoders stay as they are, so that there is one, without
    the multilayer perceptron, on top of the last feature map of any encoder; the query is learned as it is, which in
    one block says the same as a projected token.
    """

    name = ImageHeadName.SAT
    smoothing: Tensor

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__(channels=channels, classes=classes)
        width = SAT_ATTENTION_HEADS * SAT_ATTENTION_WIDTH
        self.query = nn.Parameter(torch.empty(SAT_ATTENTION_HEADS, SAT_ATTENTION_WIDTH))
        self.norm = nn.LayerNorm(channels)
        self.projections = nn.Linear(channels, 3 * width)  # queries, keys and values of the cells
        self.output = nn.Linear(width, channels)
        self.convolution = nn.Conv2d(channels, classes, kernel_size=3, padding=1)
        nn.init.normal_(
            self.query
        )  # times small keys: M begins near 1/2, and each attention head with a view of its own
        for layer in (self.projections, self.output, self.convolution):
            start_small(layer)
        kernel = torch.tensor(SAT_SMOOTHING)
        self.register_buffer("smoothing", torch.outer(kernel, kernel)[None, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        queries, keys, values = self._project(features)
        attention = _scores(queries, keys).softmax(dim=3) * self._token_map(keys)[:, None, None]
        attended = attention.to(values.dtype) @ values  # (B, heads, cells, d)
        block = self.output(attended.transpose(1, 2).flatten(2)).transpose(1, 2).view(features.shape)
        return self.convolution(features + block).mean(dim=(2, 3))  # type: ignore[no-any-return]

    @property
    def last_layer(self) -> nn.Linear | nn.Conv2d:
        """Return the layer that gives logits, or maps of them."""
        return self.convolution

    def class_maps(self, features: Tensor) -> Tensor:
        """Return M, float32 (B, K, h, w) in (0, 1), alike for every class."""
        return self._map(features).expand(-1, self.classes, -1, -1)

    def penalty(self, features: Tensor) -> Tensor:
        """Return the batch area loss, |lambda - mean of M|, + the normalization loss, mean of M* (1 - M*), M* smoothed.

        The first keeps M from filling the image, the second draws it to 0 and 1.
        """
        found = self._map(features)
        smooth = self._smoothed(found)
        area = joint_mean(found.mean()) if self.training else found.mean()
        return (SAT_AREA - area).abs() + (smooth * (1 - smooth)).mean()

    def _map(self, features: Tensor) -> Tensor:
        """Return M, float32 (B, 1, h, w)."""
        return self._token_map(self._project(features)[1]).view(features.shape[0], 1, *features.shape[-2:])

    def _token_map(self, keys: Tensor) -> Tensor:
        """Return M, float32 (B, cells)."""
        return _scores(self.query[None, :, None], keys).squeeze(2).sigmoid().mean(dim=1)

    def _project(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of the cells, each (B, heads, cells, d)."""
        projected = self.projections(self.norm(features.flatten(2).transpose(1, 2)))
        split = projected.unflatten(2, (3, SAT_ATTENTION_HEADS, SAT_ATTENTION_WIDTH))
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values

    def _smoothed(self, maps: Tensor) -> Tensor:
        """Smooth maps (B, 1, h, w) in float32, at the border by what there is."""
        with torch.autocast(maps.device.type, enabled=False):
            return conv2d(maps, self.smoothing, padding=1) / conv2d(torch.ones_like(maps), self.smoothing, padding=1)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Return q k / sqrt(d), float32 (B, heads, queries, keys)."""
    return (queries @ keys.transpose(2, 3)).float() / math.sqrt(keys.shape[3])


IMAGE_HEADS: Final[dict[ImageHeadName, type[ImageHead]]] = {
    head.name: head for head in (GapHead, MaxHead, LseHead, WildcatHead, DeepMILHead, TSCAMHead, SATHead)
}


def build_image_head(name: ImageHeadName, *, channels: int, classes: int) -> ImageHead:
    """Build a new image head for features of `channels` channels; draw its weights from torch's global generator."""
    return IMAGE_HEADS[name](channels=channels, classes=classes)


def start_small(layer: nn.Linear | nn.Conv2d) -> None:
    """Let all classes begin nearly alike, so that a pretrained encoder is not shaken by its new head."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
