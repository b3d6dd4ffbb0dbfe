"""The penalty compares tokens and windows of transformers, whose fields a trace has found."""

import pytest
import torch
from torch import nn

from eqreg import C4, D4, EquivarianceRegularizer, equivariant_init_
from eqreg.layers.tokens import LAYOUTS, as_images
from eqreg.soft import eq_reg_t


def terms(reg, x, g):
    return [float(term.detach()) for term in reg(x, g=g).per_layer.values()]


def windows(z, n):
    b, h, w, c = z.shape
    return z.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(-1, n * n, c)


def whole(z, n, b, h):
    return z.view(b, h // n, h // n, n, n, -1).transpose(2, 3).reshape(b, h, h, -1)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = (
            heads,
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, t):
        b, n, c = t.shape
        q, k, v = self.qkv(t).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, t):
        return self.fc2(self.fc1(t).relu())


class Block(nn.Module):
    def __init__(self, shift, width=8, n=4):
        super().__init__()
        self.shift, self.n, self.norm = shift, n, nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, 2), Mlp(width)

    def forward(self, t, h):
        z = self.norm(t).view(len(t), h, h, -1).roll((-self.shift, -self.shift), (1, 2))
        z = whole(self.attn(windows(z, self.n)), self.n, len(t), h)
        t = t + z.roll((self.shift, self.shift), (1, 2)).flatten(1, 2)
        return t + self.mlp(t)


class Restorer(nn.Module):
    """A SwinIR of two blocks, the second in shifted windows."""

    def __init__(self, width=8):
        super().__init__()
        self.conv_first, self.conv_last = (
            nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1),
        )  # fmt: skip
        self.layers = nn.ModuleList([Block(0), Block(2)])

    def forward(self, x):
        z = self.conv_first(x)
        t = z.flatten(2).mT
        for layer in self.layers:
            t = layer(t, x.shape[-1])
        return self.conv_last(t.mT.reshape(z.shape))


class Classifier(nn.Module):
    """A class token in front, channels behind the pixels in the stem."""

    def __init__(self, width=8):
        super().__init__()
        self.patch, self.stem = nn.Conv2d(3, width, 2, 2), nn.Linear(width, width)
        self.first, self.block = nn.Parameter(torch.randn(1, 1, width)), Mlp(width)
        self.attn, self.head = Attention(width, 2), nn.Linear(width, 5)

    def forward(self, x):
        t = self.stem(self.patch(x).permute(0, 2, 3, 1)).flatten(1, 2)
        t = torch.cat([self.first.expand(len(t), -1, -1), t], 1)
        t = self.block(t + self.attn(t))
        return self.head(t[:, 0])


@pytest.mark.parametrize("group", [C4, D4], ids=str)
def test_eq_reg_t_compares_tokens_and_windows(group):
    torch.manual_seed(0)
    model, x = Restorer().double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    reg = EquivarianceRegularizer(model, group, layers=eq_reg_t("SwinIR"), example=x)
    layouts = {name: reg.plan.layouts[name] for name in reg.plan.fields}
    assert layouts == {
        "conv_first": "image",
        "layers.0.attn.proj": "windows",
        "layers.0.mlp.fc1": "tokens",
        "layers.0.mlp.fc2": "tokens",
        "layers.1.attn.proj": "shifted windows",
        "layers.1.mlp.fc1": "tokens",
        "layers.1.mlp.fc2": "tokens",
        "conv_last": "image",
    }
    assert "traced, shifted windows" in str(reg.plan)
    for g in group.elements[1:]:
        assert min(terms(reg, x, g)) > 0.01
    reg(x).penalty.backward()
    assert all(p.grad is not None for p in model.layers[1].attn.parameters())
    equivariant_init_(model, group, example=x)
    for size in (16, 24):  # traced at 16
        y = torch.rand(3, 3, size, size, dtype=torch.float64)
        for g in group.elements[1:]:
            assert max(terms(reg, y, g)) < 1e-20


def test_a_class_token_and_channels_behind_pixels():
    torch.manual_seed(0)
    model, x = Classifier().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    reg = EquivarianceRegularizer(
        model, C4, layers=["stem", "attn.proj", "block.*"], example=x, fraction=0.5
    )
    assert set(reg.plan.layouts.values()) == {"tokens", "channels last"}
    assert min(terms(reg, x, 1)) > 0.01
    equivariant_init_(model, C4, example=x)
    assert max(terms(reg, x, 1)) < 1e-20


def test_layouts():
    image = torch.rand(2, 3, 8, 8)
    last = image.permute(0, 2, 3, 1)
    tokens = torch.cat([torch.rand(2, 1, 3), last.flatten(1, 2)], 1)
    rolled = last.roll((-2, -2), (1, 2))
    made = (image, last, tokens, windows(last, 4), windows(rolled, 4))
    for layout, z in zip(LAYOUTS, made, strict=True):
        assert torch.equal(as_images(z, 2, layout), image)
    assert as_images(tokens, 2, "image") is None and as_images(image, 2, "tokens") is None
    assert as_images(torch.rand(6, 16, 3), 2, "windows") is None  # three windows each
