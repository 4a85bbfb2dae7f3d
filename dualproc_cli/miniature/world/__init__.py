"""The procedural world of the miniature: scenes, pictures, captions, questions, and measures that read it."""
