"""dualproc: teach a text-to-image generator a visual control by asking a VLM about its pictures."""

__version__ = "0.1.0"
