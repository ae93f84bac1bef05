"""Experiments, one file each, and `common`: every key of a config.

`--config=digits` names the file here; a path to a file of one's own does as well.
"""
