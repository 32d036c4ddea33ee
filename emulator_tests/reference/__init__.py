"""A helper of the protocol in Python, from `payload/abi.h` and `docs/protocol.md`, held against the linked one.

It serves rings of scheme `regions`, start `host`: all operations but the strict finish. Keys come from `cryptography`
by way of `mh_emulator.peer`; of the linked bytes it knows nothing.
"""
