"""What a run keeps on disk: its folder, checkpoints, and files written whole or not at all."""
