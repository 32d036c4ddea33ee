"""Writers of a finished image: flat binary, ELF, map, manifest, VMSA."""
