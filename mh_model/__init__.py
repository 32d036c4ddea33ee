"""Checks the model of the protocol in docs/protocol with spin, and that no guard can be dropped unnoticed."""
