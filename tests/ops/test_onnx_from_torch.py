"""What PyTorch's two exporters write reads as a network without transpositions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from onnx_models import kinds, read, run_graph

pytestmark = pytest.mark.slow


def network(torch: Any) -> Any:
    """Normalisation, residual, grouped and gated branches, concatenation, and two dense layers."""
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.b1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.c2, self.b2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
            self.grouped = nn.Conv2d(16, 8, 1, groups=2)
            self.f1, self.f2 = nn.Linear(8 * 4 * 4, 10), nn.Linear(10, 4)

        def forward(self, x: Any) -> Any:
            x = (x - 0.5) / 0.25
            x = torch.relu(self.b1(self.c1(x)))
            x = torch.relu(x + self.b2(self.c2(x)))
            a, b = nn.functional.relu6(self.depthwise(x)), nn.functional.max_pool2d(x, 2)
            x = self.grouped(torch.cat([a, b], 1))
            x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
            x = nn.functional.avg_pool2d(x, 2).flatten(1)
            x = torch.relu(self.f1(nn.functional.dropout(x, 0.5, self.training)))
            return torch.softmax(self.f2(x.view(x.size(0), -1)), -1)

    torch.manual_seed(0)
    net = Net().eval()
    for norm in (net.b1, net.b2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize(
    ("dynamo", "opset"), [(False, 11), (False, 13), (False, 17), (True, 18), (True, 20), (True, 23)]
)
@pytest.mark.filterwarnings("ignore")
def test_a_network_that_pytorch_exports(dynamo: bool, opset: int) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    net, file = network(torch), io.BytesIO()
    # The old exporter writes a dynamic batch and the arithmetic of shapes, the new one folds them.
    given = (
        {}
        if dynamo
        else {"dynamic_axes": {"x": {0: "N"}}, "input_names": ["x"], "do_constant_folding": False}
    )
    x = torch.randn(1, 3, 16, 16)
    torch.onnx.export(net, (x,), file, opset_version=opset, dynamo=dynamo, **given)
    graph = read(file.getvalue())
    (ours,) = run_graph(graph, [x.numpy()[np.newaxis]])
    assert np.abs(ours[0] - net(x).detach().numpy()).max() < 1e-4
    assert kinds(graph).count("RESHAPE") == 1
    assert kinds(graph).count("CONV_2D") == 3
