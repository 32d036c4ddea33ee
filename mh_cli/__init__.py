"""The command line: one module a verb; the only package that knows both builder and emulator."""
