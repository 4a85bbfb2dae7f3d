"""How a pipeline returns its pictures, which differs from pipeline to pipeline."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Conventions:
    """How a pipeline returns its pictures, as the self-test finds it.

    Attributes:
        width: of the pictures that the self-test draws, in pixels.
        height: of the same pictures, in pixels.
        low: the value of black: 0, or -1 for pipelines whose tensors are in [-1, 1]. White is 1.
        idle_timesteps: how many of the scheduler's timesteps the pipeline never steps through (SANA-Sprint
            keeps a last boundary among them).
        batches: whether the pipeline can draw several pictures at a time, each the same as alone.
    """

    width: int
    height: int
    low: float = 0.0
    idle_timesteps: int = 0
    batches: bool = True

    def picture(self, images: Tensor) -> Tensor:
        """Convert the pipeline's tensors [B, 3 or 4, H, W] to images [B, 3, H, W], float32, in [0, 1].

        Transparent pictures (Qwen-Image 2.1) are laid on white.
        """
        images = ((images.float() - self.low) / (1 - self.low)).clamp(0, 1)
        color, opacity = images[:, :3], images[:, 3:]
        return color * opacity + (1 - opacity) if opacity.numel() else color
