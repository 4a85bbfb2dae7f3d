"""dualproc: teach a text-to-image generator a visual control by asking a vision-language model about its pictures."""

__version__ = "0.1.0"
