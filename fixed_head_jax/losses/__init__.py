"""Losses: pure functions of arrays, without parameters of their own."""
