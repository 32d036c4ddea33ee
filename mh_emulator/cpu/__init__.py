"""One CPU in guest mode: engine, modes and registers, translation, exceptions, intercepts, VMRUN."""
