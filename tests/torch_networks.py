"""Small seeded PyTorch networks for tests, in the shapes that microcontrollers run.

Import this only where PyTorch is installed. Batch norms get random statistics, so that folding shows.
"""

from __future__ import annotations

import torch
from torch import nn


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode with seeded weights and batch-norm statistics."""
    torch.manual_seed(seed)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inputs, outputs, 3, stride),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


class ResNet8(nn.Module):
    """The MLPerf Tiny image classifier, with batch norm."""

    example_input_shape = (1, 3, 32, 32)

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class DsCnn(nn.Module):
    """The MLPerf Tiny keyword spotter, with an asymmetric first kernel and softmax."""

    example_input_shape = (1, 1, 49, 10)

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, width, (10, 4), 2), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layers = nn.Sequential(
            *(
                nn.Sequential(conv_bn(width, width, groups=width), conv_bn(width, width, 1))
                for _ in range(layers)
            )
        )
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(width, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.layers(self.stem(x)))
        y = nn.functional.avg_pool2d(y, y.shape[2:])
        return torch.softmax(self.head(y.view(y.size(0), -1)), dim=1)


class MobileNetV1(nn.Module):
    """MobileNetV1 at width 0.25 on small images."""

    example_input_shape = (1, 3, 64, 64)

    def __init__(self, width: float = 0.25, classes: int = 10) -> None:
        super().__init__()
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (1024, 2), (1024, 1)]
        channels = int(32 * width)
        parts: list[nn.Module] = [conv_bn(3, channels, 3, 2)]
        for size, stride in plan:
            outputs = int(size * width)
            parts += [conv_bn(channels, channels, 3, stride, groups=channels), conv_bn(channels, outputs, 1)]
            channels = outputs
        self.features = nn.Sequential(*parts)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


class Inception(nn.Module):
    """Concatenated branches, a grouped convolution, relu6, and a flatten into a linear layer."""

    example_input_shape = (1, 3, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same")
        self.left = nn.Conv2d(8, 6, 1)
        self.right = nn.Conv2d(8, 10, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, 2, 1, groups=4)
        self.head = nn.Linear(16 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.stem(x))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], dim=1)
        x = nn.functional.max_pool2d(torch.relu(self.grouped(x)), 2)
        return self.head(x.flatten(1))


class Sequence(nn.Module):
    """A network of one-dimensional convolutions over sensor channels."""

    example_input_shape = (1, 6, 64)

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(6, 16, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm1d(16)
        self.two = nn.Conv1d(16, 16, 3, padding=1, groups=16)
        self.three = nn.Conv1d(16, 24, 3, dilation=2)
        self.hidden = nn.Linear(24 * 14, 20)
        self.hidden_norm = nn.BatchNorm1d(20)
        self.head = nn.Linear(20, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.one(x)))
        x = torch.relu(self.three(torch.relu(self.two(x))))
        x = nn.functional.max_pool1d(x, 2)
        return self.head(torch.relu(self.hidden_norm(self.hidden(x.flatten(1)))))


NETWORKS: dict[str, type[nn.Module]] = {
    "resnet8": ResNet8,
    "ds_cnn": DsCnn,
    "mobilenet_v1": MobileNetV1,
    "inception": Inception,
    "sequence": Sequence,
}
