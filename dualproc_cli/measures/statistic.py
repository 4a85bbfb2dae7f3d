"""Statistics of the pixels that reveal patterns which mislead a VLM and are rare in photographs.

Each is one number per picture, which reports compare with the base generator's.
"""

from typing import TYPE_CHECKING

from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.spec.measures import StatisticMeasure

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_PERIOD = 20  # pixels; patterns of a longer period count as content
# Bins of the spectrum around a peak: how far its neighbourhood and the peak itself reach.
REACH, CORE = 7, 2


class Statistic(Measure):
    """The statistic of `STATISTICS` that the parameter ``of`` names."""

    role = "artefact"

    def __init__(self, parameters: StatisticMeasure) -> None:
        self.name = parameters.name
        self._function, self.unit = STATISTICS[parameters.of]

    def judge(self, evidence: Evidence) -> Judgement:
        """Compute the statistic of each picture."""
        return Judgement(self._function(evidence.images))


def high_frequency(images: "Tensor") -> "Tensor":
    """Return the energy [N] of fine detail in images [N, 3, H, W]: the root mean square of their Laplacian.

    The Laplacian is 4 x - (sum of the four neighbours of x), at every pixel that has them. A pattern
    a cos(2 pi (f x + g y)) has an energy of a (4 - 2 cos(2 pi f) - 2 cos(2 pi g)) / sqrt(2), a checkerboard
    of amplitude a one of 8 a.
    """
    middle = 4 * images[..., 1:-1, 1:-1]
    vertical = images[..., 2:, 1:-1] + images[..., :-2, 1:-1]
    horizontal = images[..., 1:-1, 2:] + images[..., 1:-1, :-2]
    return (middle - vertical - horizontal).square().mean((1, 2, 3)).sqrt()


def clipping(images: "Tensor") -> "Tensor":
    """Return the share [N] of values in images [N, 3, H, W] that are at most 1/255 or at least 254/255.

    Values are rounded to 256 levels, and channels are counted separately.
    """
    return ((images < 1.5 / 255) | (images > 253.5 / 255)).float().mean((1, 2, 3))


def saturation(images: "Tensor") -> "Tensor":
    """Return the mean saturation [N] of images [N, 3, H, W], as in HSV.

    The saturation of a pixel is (max - min) / max of its channels, and 0 for black.
    """
    highest, lowest = images.amax(1), images.amin(1)
    return ((highest - lowest) / highest.clamp(min=1e-6)).mean((1, 2))


def periodicity(images: "Tensor") -> "Tensor":
    """Return how far [N] the strongest periodic pattern stands out of each of images [N, 3, H, W].

    It is the amplitude of the highest peak in the spectrum, as a multiple of its neighbourhood's. P is the
    power spectrum of the mean of the channels under a Hann window, with the power of rounding to 256 levels
    added. The neighbourhood is the geometric mean of P from 3 to 7 bins away from the peak: around it, along
    its row or along its column, whichever is the highest. So neither the falling spectrum of a photograph nor
    the ridge of a vertical or horizontal edge counts. Frequencies below one period in 20 pixels are left out
    as content.

    White noise gives about sqrt(ln(H W / 2) / 0.56), that is 4 to 5; a flat picture gives 1.
    """
    from torch import stack

    return stack([_strongest_peak(image.mean(0)) for image in images])


def _strongest_peak(luma: "Tensor") -> "Tensor":
    """Return the amplitude of the highest peak in a picture's [H, W] spectrum, over its neighbourhood's."""
    import torch
    from torch.nn import functional as F

    height, width = luma.shape
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    power = torch.fft.fft2((luma - luma.mean()) * window).abs().square()
    level = (power + window.square().sum() / (12 * 255**2)).log()
    offset = torch.arange(-REACH, REACH + 1).abs()
    beyond = torch.maximum(offset[:, None], offset) > CORE
    around = torch.stack([beyond, beyond & (offset == 0)[:, None], beyond & (offset == 0)]).float()
    kernels = (around / around.sum((1, 2), keepdim=True))[:, None]
    wrapped = F.pad(level[None, None], [REACH] * 4, mode="circular")
    neighbourhood = F.conv2d(wrapped, kernels)[0].amax(0)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    return ((level - neighbourhood)[frequency >= 1 / LONGEST_PERIOD].max() / 2).exp()


# The function of each statistic, and its unit.
STATISTICS = {
    "high-frequency": (high_frequency, "RMS Laplacian"),
    "clipping": (clipping, "share"),
    "saturation": (saturation, "HSV"),
    "grid": (periodicity, "x spectrum"),
}
