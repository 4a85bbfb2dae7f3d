"""The procedural world of the miniature: scenes, pictures, captions, questions, and measures that read it."""

SIZE = 64  # pixels: every picture of the world is SIZE x SIZE
