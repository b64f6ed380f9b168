"""Networks under the layer names of other programs, written independently, with values that no layer shares."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block, with the projection under any name, with or without its batch-norm."""

    def __init__(self, before: int, after: int, stride: int, projection: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.name = projection
        if stride != 1 or before != after:
            wide = nn.Conv2d(before, after, 1, stride, bias=False)
            self.add_module(projection, nn.Sequential(wide, nn.BatchNorm2d(after)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (getattr(self, self.name)(x) if hasattr(self, self.name) else x))


class ResNet(nn.Module):
    """ResNet-8 in the names of torchvision (``downsample``, ``fc``) or of the networks for CIFAR-10."""

    def __init__(self, projection: str = "downsample", head: str = "fc", strides: tuple[int, ...] = (1, 2, 2)) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, (before, after, stride) in enumerate(zip((16, 16, 32), (16, 32, 64), strides, strict=True), 1):
            self.add_module(f"layer{number}", nn.Sequential(Block(before, after, stride, projection)))
        self.add_module(head, nn.Linear(64, 10))
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.head)(x.mean((2, 3)))


class PublishedResNet(ResNet):
    """ResNet-8 in the published code's names, whose shortcuts are convolutions alone."""

    def __init__(self) -> None:
        super().__init__("shortway")
        self.conv0, self.bn0 = self.conv1, self.bn1
        del self.conv1, self.bn1
        for block in (*self.layer2, *self.layer3):
            block.shortway = block.shortway[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn0(self.conv0(x))))))
        return self.fc(x.mean((2, 3)))


class PreActBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class PreActResNet(nn.Module):
    """PreActResNet-18 in the published code's names."""

    def __init__(self, strides: tuple[int, ...] = (1, 2, 2, 2)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        before = 64
        for number, (after, stride) in enumerate(zip((64, 128, 256, 512), strides, strict=True), 1):
            blocks = (PreActBlock(before, after, stride), PreActBlock(after, after, 1))
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = after
        self.bn, self.fc = nn.BatchNorm2d(512), nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


class Plain(nn.Module):
    """AlexNet or VGG: numbered features and a numbered classifier."""

    def __init__(self, features: list[nn.Module], classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def alexnet(strides: str) -> Plain:
    first, *pools = map(int, strides)
    features: list[nn.Module] = [nn.Conv2d(3, 64, 5, first, 2), nn.ReLU(), nn.MaxPool2d(2, pools[0])]
    features += [nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2, pools[1])]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        features += [nn.Conv2d(before, after, 3, 1, 1), nn.ReLU()]
    head = [nn.Dropout(), nn.Linear(256, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU()]
    return Plain([*features, nn.MaxPool2d(2, pools[2])], [*head, nn.Linear(512, 10)])


def vgg11_bn(strides: str) -> Plain:
    """Pools of stride 1 are left out, which shifts the numbers behind them."""
    features: list[nn.Module] = []
    before = 3
    for widths, stride in zip(((64,), (128,), (256, 256), (512, 512), (512, 512)), map(int, strides), strict=True):
        for after in widths:
            features += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        features += [nn.MaxPool2d(2, stride)] if stride > 1 else []
    head = [nn.Linear(512, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout()]
    return Plain(features, [*head, nn.Linear(256, 10)])


def with_values(model: nn.Module, seed: int = 0) -> nn.Module:
    """The network with statistics as after training, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.2), (module.running_var, 0.5), (module.weight.data, 0.5)):
                values.copy_(torch.rand(values.shape, generator=generator) + low)
    return model.eval()
