"""A training step of the default encoder on noise: print what torch takes the processor for and a hash of gradients.

In a processor's own way the hash tells it from others; in portable bytes it must not.
"""

import hashlib

import torch
from torch.nn.functional import cross_entropy

from pipeline.encoders.encoder import build_encoder
from pipeline.params.vocabulary import EncoderWeights


def main() -> None:
    """Take the step."""
    name, generator = "tf_efficientnet_lite0", torch.Generator().manual_seed(0)
    encoder = build_encoder(name, input_size=224, output_stride=16, weights=EncoderWeights.RANDOM, seed=0).train()
    features = encoder(torch.rand(8, 3, 224, 224, generator=generator)).mean((2, 3))
    logits = features @ torch.randn(encoder.channels, 2, generator=generator)
    torch.autograd.backward(cross_entropy(logits, torch.arange(8) % 2))
    digest = hashlib.sha256()
    for parameter in encoder.parameters():
        if parameter.grad is not None:
            digest.update(parameter.grad.numpy().tobytes())
    print(torch.backends.cpu.get_cpu_capability(), digest.hexdigest()[:16])


if __name__ == "__main__":
    main()
