"""A server of GDB's remote protocol for a vCPU: to step through the helper while it migrates a guest.

Source: GDB manual, appendix E (remote serial protocol), appendix G (target descriptions).
"""
