"""The least of QEMU's q35 machine that OVMF wants: devices of a guest with one vCPU, in virtual time."""
