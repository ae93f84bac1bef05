"""Fine-tuning with dials: which layers start anew, and how every group of layers trains."""
