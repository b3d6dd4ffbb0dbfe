"""Data sets of CT slices with metal, made from slices of one's own: what ``eqreg ct`` does.

Taught in: notebooks/14
"""
