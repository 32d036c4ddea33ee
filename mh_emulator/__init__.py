"""The machine an image runs on: encrypted memory, secure processor, KVM, vCPU, host and guest owner."""
