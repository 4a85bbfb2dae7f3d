"""How different two colours look: CIEDE2000."""

import math

import torch
from torch import Tensor

# sRGB (D65) to XYZ, IEC 61966-2-1, each row divided by the white point's X, Y or Z.
_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883])


def lab(rgb: Tensor) -> Tensor:
    """Convert sRGB colours [..., 3] in [0, 1] to CIELAB [..., 3]."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Return the CIEDE2000 difference [...] of sRGB colours [..., 3] in [0, 1]; 1 is just noticeable."""
    return lab_difference(lab(first), lab(second))


def lab_difference(first: Tensor, second: Tensor) -> Tensor:
    """Return the CIEDE2000 difference [...] of CIELAB colours [..., 3].

    Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula", Color Research & Application 30(1), 2005.
    """
    (l1, a1, b1), (l2, a2, b2) = first.unbind(-1), second.unbind(-1)
    mean_c = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    g = 0.5 * (1 - torch.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1) % (2 * math.pi), torch.atan2(b2, a2) % (2 * math.pi)
    grey = c1 * c2 == 0
    dh = torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi
    dh = torch.where(grey, 0.0, dh)
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = torch.where(grey, h1 + h2, h1 + dh / 2)
    t = (
        1 - 0.17 * torch.cos(mean_h - math.radians(30)) + 0.24 * torch.cos(2 * mean_h)
        + 0.32 * torch.cos(3 * mean_h + math.radians(6)) - 0.20 * torch.cos(4 * mean_h - math.radians(63))
    )  # fmt: skip
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / torch.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    hue = torch.rad2deg(mean_h) % 360
    theta = torch.deg2rad(30 * torch.exp(-(((hue - 275) / 25) ** 2)))
    r_c = 2 * torch.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    l_term, c_term = (l2 - l1) / s_l, (c2 - c1) / s_c
    h_term = 2 * torch.sqrt(c1 * c2) * torch.sin(dh / 2) / s_h
    rotation = -torch.sin(2 * theta) * r_c * c_term * h_term
    return torch.sqrt((l_term**2 + c_term**2 + h_term**2 + rotation).clamp(min=0))
