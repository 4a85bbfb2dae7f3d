"""The commands of ``dualproc``: one thin function a file."""
