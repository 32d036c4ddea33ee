"""A helper of the protocol in Python, from `payload/abi.h` and `docs/protocol.md`, held against the linked one.

It serves rings of scheme `regions`, start `host`, with a strict finish or without. Keys come from `cryptography`
by way of `mh_emulator.peer`; it knows nothing of the linked bytes.
"""
