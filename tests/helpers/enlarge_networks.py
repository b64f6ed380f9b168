"""Small networks, each with one thing that makes enlarging hard."""

import torch
import torch.nn.functional as F
from torch import nn


class SharedPool(nn.Module):
    """LeNet as tutorials write it: one pool for all steps, padding-free, flattened to a fixed size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.head = nn.Linear(16 * 5 * 5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.head(x.view(-1, 16 * 5 * 5))


class Functional(nn.Module):
    """Nothing but functional calls: pools, a convolution with a weight of its own, a mean over height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.weight, stride=2, padding=1).relu()
        x = F.avg_pool2d(self.conv(x), 2)
        x = torch.max_pool2d(x, 3, stride=2, padding=1)
        return self.head(x.mean((2, 3)))


class OptionA(nn.Module):
    """A residual block whose shortcut is a strided slice with channels of zeros, as in ResNets for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.path = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(self.path(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(F.avg_pool2d(x, x.shape[2:]).flatten(1))


class Branches(nn.Module):
    """A step of four branches: convolution, max pool with ceil_mode, average pool behind a 1x1 convolution, padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, 2, 1, groups=4)
        self.max = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.avg = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(8, 8, 1))
        self.blur = nn.Sequential(nn.ReflectionPad2d((1, 2, 1, 2)), nn.Conv2d(8, 8, 4, 2, groups=8))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([self.conv(x), self.max(x), self.avg(x), self.blur(x)], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Gated(nn.Module):
    """Squeeze and excitation by a pool of fixed size, depth-wise and dilated convolutions, a patchify stem."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 4, 4)
        self.squeeze = nn.AvgPool2d(8)
        self.excite = nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.down = nn.Conv2d(8, 16, 2, 2)
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.wide(x * self.excite(self.squeeze(x)).sigmoid()) + x
        return self.head(self.pool(self.down(x)).squeeze(-1).squeeze(-1))


class SpaceToDepth(nn.Module):
    """Three ways to move pixels into channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, 8, 1)
        self.second = nn.Conv2d(32, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(F.pixel_unshuffle(x, 2))
        corners = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return self.head(self.second(torch.cat(corners, 1)).mean((2, 3)))


class FixedMerge(nn.Module):
    """A branch that comes back to the size of another by a fixed scale: its step can't be relaxed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.up(self.down(x))).mean((2, 3)))


class BiasedAttention(nn.Module):
    """Attention with a learned number for each pair of tokens."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tokens, tokens))
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = x @ x.transpose(1, 2) / self.width**0.5
        return (scores + self.bias).softmax(-1) @ x


class RelativeAttention(nn.Module):
    """A vision transformer of one block: the bias of its attention fixes the number of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 24))
        self.attention = BiasedAttention(17, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.attention(x)[:, 0])


class Mixer(nn.Module):
    """A linear layer across patches, which fixes their number."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 8, 8)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.stem(x).flatten(2)).mean(2))


def plain(pool: nn.Module | None = None, *, padding: int = 0) -> nn.Sequential:
    """Convolutions with two strided steps, and a global pool."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=padding),
        nn.ReLU(),
        pool or nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
