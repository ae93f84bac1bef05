"""Writes datasets in the form that training reads."""
