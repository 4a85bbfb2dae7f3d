"""What judges a picture without the VLM that was trained against."""
